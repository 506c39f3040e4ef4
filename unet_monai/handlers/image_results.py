"""What an evaluator measured on every image, and pictures of the worst ones."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from ignite.engine import Events
from monai.engines.workflow import Workflow
from monai.handlers import IgniteMetricHandler
from monai.metrics import CumulativeIterationMetric
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from unet_monai.data.image_formats import image_stem
from unet_monai.metrics.error_classes import ErrorClass, error_classes
from unet_monai.metrics.instance_matching import overlap_table
from unet_monai.pictures import contact_sheet, draw_errors
from unet_monai.pictures.errors import ERROR_LEGEND
from unet_monai.pictures.report import ImageResult

OF_TRUE = (ErrorClass.RIGHT, ErrorClass.MISSED, ErrorClass.SPLIT, ErrorClass.MERGED)
OF_PRED = (ErrorClass.RIGHT, ErrorClass.SPLIT, ErrorClass.MERGED, ErrorClass.FALSE, ErrorClass.EXCUSED)


class _Measured(NamedTuple):
    """One image of the validation that runs; `planes` are image, pred and label as they are drawn."""

    badness: float
    result: ImageResult
    planes: tuple[np.ndarray, np.ndarray, np.ndarray] | None


class ImageResultsHandler:
    """Collect what an evaluator measures on every image, and draw the worst images of its best run.

    Attach it to an evaluator whose output holds ``image``, ``label`` and, as instances, ``pred``. Only the images that
    may be drawn stay in memory, and nothing is drawn unless the run is the best so far. The worst image is the one with
    the worst key measure; an image without a true cell, where most measures are undefined, is as bad as can be when
    something was found in it, and as good as can be otherwise. Of a volume the middle slice is drawn.

    Args:
        folder: folder for the pictures, ``01_<name>.png``, ...; those of an earlier run are replaced.
        metrics: the evaluator's metrics by name, as it was given them.
        max_images: images to draw.
        summary_writer: TensorBoard writer that gets the sheet; None for none.

    Attributes:
        results: one for each image of the best run, the worst first.
        epoch: the epoch of that run; 0 before there is one.
    """

    def __init__(
        self,
        folder: str | Path,
        metrics: Mapping[str, IgniteMetricHandler],
        max_images: int = 12,
        summary_writer: SummaryWriter | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.metrics = metrics
        self.max_images = max_images
        self.summary_writer = summary_writer
        self.results: list[ImageResult] = []
        self.epoch = 0
        self._seen: list[ImageResult] = []
        self._ranking: list[_Measured] = []

    def attach(self, engine: Workflow) -> None:
        """Register with the evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def start(self, engine: Workflow) -> None:
        """Forget the run before."""
        self._seen, self._ranking = [], []

    def collect(self, engine: Workflow) -> None:
        """Class the cells of a batch, and keep its images if they are among the worst so far."""
        batch = engine.state.output
        metric = self.metrics[engine.state.key_metric_name].metric_fn
        scores = scores_of_images(metric, metric.get_buffer()[-len(batch) :])
        # The comparison that picks the best epoch tells whether more is better.
        sign = -1 if engine.metric_cmp_fn(1.0, 0.0) else 1
        for item, score in zip(batch, scores, strict=True):
            pred, label = (item[key][0].cpu().numpy() for key in ("pred", "label"))
            of_true, of_pred = error_classes(overlap_table(pred, label))
            result = ImageResult(
                address=str(item["image"].meta["filename_or_obj"]),
                true={kind.name.lower(): int((of_true == kind).sum()) for kind in OF_TRUE},
                pred={kind.name.lower(): int((of_pred == kind).sum()) for kind in OF_PRED},
            )
            found = np.any(of_pred != ErrorClass.EXCUSED)
            badness = sign * score if not math.isnan(score) else math.inf if found else -math.inf
            planes = (picture_plane(item["image"]), picture_plane(item["pred"]), picture_plane(item["label"]))
            self._seen.append(result)
            self._ranking.append(_Measured(badness, result, planes))
        self._ranking.sort(key=lambda measured: -measured.badness)
        self._ranking[self.max_images :] = [better._replace(planes=None) for better in self._ranking[self.max_images :]]

    def finish(self, engine: Workflow) -> None:
        """Keep the results and draw the worst images, if the run is the best so far."""
        state = engine.state
        if state.best_metric_epoch == state.epoch:
            for name, metric in self.metrics.items():
                scores = scores_of_images(metric.metric_fn, state.metric_details[name])
                for result, score in zip(self._seen, scores, strict=True):
                    result.measures[name] = score
            self.results, self.epoch = [measured.result for measured in self._ranking], state.epoch
            self._draw()
        self._seen, self._ranking = [], []

    def write_sheet(self, results: Sequence[ImageResult], key_metric_name: str, epoch: int) -> None:
        """Put the pictures that are in the folder on one sheet, ``sheet.png``, and show it in TensorBoard.

        Args:
            results: what was measured on the images, in the order to show them.
            key_metric_name: measure to show above each.
            epoch: epoch that they are of.
        """
        drawn = [result for result in results if result.picture and (self.folder / result.picture).is_file()]
        if not drawn:
            return
        pictures = [np.asarray(Image.open(self.folder / result.picture)) for result in drawn]
        figures = [f"{key_metric_name} {result.measures[key_metric_name]:.2f}" for result in drawn]
        titles = [f"{Path(r.address).name}  {figure}" for r, figure in zip(drawn, figures, strict=True)]
        sheet = contact_sheet(pictures, titles, legend=ERROR_LEGEND)
        Image.fromarray(sheet).save(self.folder / "sheet.png")
        if self.summary_writer is not None:
            self.summary_writer.add_image("worst images", sheet, epoch, dataformats="HWC")

    def _draw(self) -> None:
        """Draw the images that were kept."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.glob("[0-9][0-9]*_*.png"):
            old.unlink()
        for rank, (_, result, planes) in enumerate(self._ranking, start=1):
            if planes is not None:
                result.picture = f"{rank:02d}_{image_stem(result.address)}.png"
                picture = Image.fromarray(draw_errors(*planes))
                # Noise cannot be compressed: a higher level takes longer and gains nothing.
                picture.save(self.folder / result.picture, compress_level=1)


def scores_of_images(metric: CumulativeIterationMetric, rows: torch.Tensor) -> list[float]:
    """Compute a measure on each image alone, from the rows that it holds of them.

    Args:
        metric: the measure; it is not changed.
        rows: (images, ...) of its buffer.

    Returns:
        What the measure would aggregate to, had it seen this image only.
    """
    alone = copy.copy(metric)
    scores = []
    for row in rows:
        alone.reset()
        alone.append(row)
        scores.append(float(alone.aggregate()))
    return scores


def picture_plane(array: torch.Tensor) -> np.ndarray:
    """Turn (C, X, Y[, Z]) into rows and columns (Y, X[, 3]); the middle slice of a volume."""
    plane = array if array.ndim == 3 else array[..., array.shape[-1] // 2]
    # A copy, since a slice would keep its whole volume in memory.
    rows_first = plane.cpu().numpy().T.copy()
    return rows_first if rows_first.shape[-1] == 3 else rows_first[..., 0]
