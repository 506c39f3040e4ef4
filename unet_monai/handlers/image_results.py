"""What an evaluator measured on every image, and pictures of the worst ones."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Events
from monai.engines.workflow import Workflow
from monai.handlers import IgniteMetricHandler
from monai.metrics import CumulativeIterationMetric
from PIL import Image
from torch.utils.tensorboard import SummaryWriter
from unet_monai.data.image_formats import image_stem
from unet_monai.data.writing import writing
from unet_monai.handlers.ranks import gather
from unet_monai.metrics.error_classes import ErrorClass, error_classes
from unet_monai.metrics.instance_matching import overlap_table
from unet_monai.pictures import contact_sheet, draw_errors
from unet_monai.pictures.errors import ERROR_LEGEND
from unet_monai.pictures.report import ImageResult

OF_TRUE = (ErrorClass.RIGHT, ErrorClass.MISSED, ErrorClass.SPLIT, ErrorClass.MERGED)
OF_PRED = (ErrorClass.RIGHT, ErrorClass.SPLIT, ErrorClass.MERGED, ErrorClass.FALSE, ErrorClass.EXCUSED)


@dataclass
class _Measured:
    """One image of the validation that runs; `planes` are image, pred and label as they are drawn."""

    badness: float
    result: ImageResult
    planes: tuple[np.ndarray, np.ndarray, np.ndarray] | None


class ImageResultsHandler:
    """Collect what an evaluator measures on every image, and draw the worst images of its best run.

    Attach it to an evaluator whose output holds ``image``, ``label`` and, as instances, ``pred``. Only the images that
    may be drawn stay in memory, and nothing is drawn unless the run is the best so far. The worst image is the one with
    the worst key measure; an image without a true cell, where most measures are undefined, is as bad as can be when
    something was found in it, and as good as can be otherwise. Of a volume the middle slice is drawn. Of
    several processes the first one collects and draws the images of all.

    Args:
        folder: folder for the pictures, ``01_<name>.png``, ...; those of an earlier run are replaced.
        metrics: the evaluator's metrics by name, as it was given them.
        max_images: images to draw.
        summary_writer: TensorBoard writer that gets the sheet; None for none.

    Attributes:
        results: one for each image of the best run, the worst first; none on other ranks than the first.
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
        self._measured: list[_Measured] = []

    def attach(self, engine: Workflow) -> None:
        """Register with the evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def start(self, engine: Workflow) -> None:
        """Forget the run before."""
        self._measured = []

    def collect(self, engine: Workflow) -> None:
        """Class the cells of a batch, and keep its images if they are among the worst so far."""
        batch = engine.state.output
        key_metric = self.metrics[engine.state.key_metric_name]
        metric = key_metric.metric_fn
        # Measured once more, since the evaluator's metric shows its rows only together with those of all processes.
        alone = copy.copy(metric)
        alone.reset()
        rows = alone(*key_metric._output_transform(batch))
        scores = scores_of_images(metric, torch.as_tensor(rows))
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
            self._measured.append(_Measured(badness, result, planes))
        for better in _worst_first(self._measured)[self.max_images :]:
            better.planes = None

    def finish(self, engine: Workflow) -> None:
        """Keep the results and draw the worst images, if the run is the best so far."""
        state = engine.state
        if state.best_metric_epoch == state.epoch:
            self.epoch = state.epoch
            of_ranks = gather(self._measured)
            if of_ranks:
                self._keep(of_ranks, state.metric_details)
        self._measured = []

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
        with writing(self.folder / "sheet.png") as part:
            Image.fromarray(sheet).save(part)
        if self.summary_writer is not None:
            self.summary_writer.add_image("worst images", sheet, epoch, dataformats="HWC")

    def _keep(self, of_ranks: Sequence[Sequence[_Measured]], rows: Mapping[str, torch.Tensor]) -> None:
        """Keep and draw the images of all processes; the metrics hold their rows in the order of the ranks."""
        for name, metric in self.metrics.items():
            scores = scores_of_images(metric.metric_fn, rows[name])
            for image, score in zip(chain.from_iterable(of_ranks), scores, strict=True):
                image.result.measures[name] = score
        # Samplers deal the images out in turn, which puts them back into the order of one process.
        in_turn = chain.from_iterable(zip_longest(*of_ranks))
        worst = _worst_first([image for image in in_turn if image is not None])
        self.results = [image.result for image in worst]
        self._draw(worst[: self.max_images])

    def _draw(self, worst: Sequence[_Measured]) -> None:
        """Draw the worst images."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.glob("[0-9][0-9]*_*.png"):
            old.unlink()
        for place, image in enumerate(worst, start=1):
            if image.planes is not None:
                image.result.picture = f"{place:02d}_{image_stem(image.result.address)}.png"
                picture = Image.fromarray(draw_errors(*image.planes))
                # Noise cannot be compressed: a higher level takes longer and gains nothing.
                with writing(self.folder / image.result.picture) as part:
                    picture.save(part, compress_level=1)


def _worst_first(measured: Sequence[_Measured]) -> list[_Measured]:
    return sorted(measured, key=lambda image: -image.badness)


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
    for row in rows.unsqueeze(1):
        # Not by its own buffer, which would gather the rows of all processes.
        alone.get_buffer = row.clone  # type: ignore[method-assign]
        scores.append(float(alone.aggregate()))
    return scores


def picture_plane(array: torch.Tensor) -> np.ndarray:
    """Turn (C, X, Y[, Z]) into rows and columns (Y, X[, 3]); the middle slice of a volume."""
    plane = array if array.ndim == 3 else array[..., array.shape[-1] // 2]
    # A copy, since a slice would keep its whole volume in memory.
    rows_first = plane.cpu().numpy().T.copy()
    return rows_first if rows_first.shape[-1] == 3 else rows_first[..., 0]
