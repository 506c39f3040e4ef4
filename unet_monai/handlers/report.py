"""Write the report that a person looks at after a training and after an evaluation, and warn aloud of a bad end."""

from __future__ import annotations

import csv
import logging
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import monai
import numpy as np
import torch
import unet_monai
from ignite.engine import Events
from ignite.handlers.timing import Timer
from monai.data.dataset import Dataset
from monai.engines.workflow import Workflow
from monai.handlers import IgniteMetricHandler
from torch.utils.tensorboard import SummaryWriter
from unet_monai.data.writing import writing
from unet_monai.handlers.failed_files import FailedFiles
from unet_monai.handlers.history import History
from unet_monai.handlers.image_results import ImageResultsHandler
from unet_monai.handlers.ranks import gather
from unet_monai.pictures.curves import EpochResult, draw_curves
from unet_monai.pictures.report import ImageResult, Report, render_report, total_classes

logger = logging.getLogger(__name__)


class TrainingReportHandler:
    """Write ``report.html`` and the folder ``report/`` of its pictures at the end of a training.

    Attach it to the trainer after the validation handler, and after the handlers that log at the end, so that a warning
    comes last. What the report is made of is written to ``report/history.json`` after each epoch: a resumed training's
    report shows the whole training. Of several processes the first one writes; the loss of a step is the mean of all.

    Args:
        output_dir: folder to write to.
        evaluator: the engine that validates.
        metrics: its metrics by name, as it was given them.
        train_dataset: dataset whose ``data`` trains.
        val_dataset: dataset whose ``data`` validates.
        settings: what was set, by name.
        max_images: validation images to show.
        summary_writer: TensorBoard writer that gets the worst images of the best validation; None for none.
    """

    def __init__(
        self,
        output_dir: str,
        evaluator: Workflow,
        metrics: Mapping[str, IgniteMetricHandler],
        train_dataset: Dataset,
        val_dataset: Dataset,
        settings: Mapping[str, Any],
        max_images: int = 12,
        summary_writer: SummaryWriter | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.evaluator = evaluator
        self.datasets = {"training": train_dataset, "validation": val_dataset}
        self.settings = settings
        self.images = ImageResultsHandler(self.output_dir / "report", metrics, max_images, summary_writer)
        self.history = History()
        self.losses: list[float] = []
        self.timer = Timer()

    @property
    def history_path(self) -> Path:
        """File of the history."""
        return self.output_dir / "report" / "history.json"

    def attach(self, engine: Workflow) -> None:
        """Register with the trainer and with its evaluator."""
        self.images.attach(self.evaluator)
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.record)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Workflow) -> None:
        """Begin a history, or go on with that of the training that is resumed."""
        resumed = engine.state.epoch > 0 and self.history_path.is_file()
        self.history = History.load(self.history_path, engine.state.epoch) if resumed else History()
        self.losses = []
        self.timer.reset()

    def step(self, engine: Workflow) -> None:
        """Note the loss of a step."""
        self.losses.append(float(engine.state.output[0]["loss"]))

    def record(self, engine: Workflow) -> None:
        """Add an epoch, and its validation if it had one, to the history."""
        of_ranks = gather(self.losses)
        if of_ranks:
            self._record(engine.state.epoch, np.mean(of_ranks, axis=0))
        self.losses = []
        self.timer.reset()

    def _record(self, epoch: int, losses: np.ndarray) -> None:
        """Add an epoch with these losses of its steps."""
        state = self.evaluator.state
        low, high = np.percentile(losses, (10, 90)).tolist()
        measures = dict(state.metrics) if state.epoch == epoch else {}
        self.history.epochs.append(EpochResult(epoch, float(np.mean(losses)), low, high, measures))
        if self.images.epoch == epoch:
            self.history.best_epoch, self.history.results = epoch, self.images.results
        self.history.seconds += self.timer.value()
        self.history.save(self.history_path)

    @idist.one_rank_only()
    def write(self, engine: Workflow) -> None:
        """Write the report, and log what went wrong."""
        history, key = self.history, self.evaluator.state.key_metric_name
        warnings = found_nothing(history.results) + no_progress(history, key, self.evaluator.metric_cmp_fn)
        best = {epoch.epoch: epoch.measures for epoch in history.epochs}.get(history.best_epoch, {})
        split = {use: [str(item["image"]) for item in dataset.data] for use, dataset in self.datasets.items()}
        headline = {f"{key}, best epoch ({history.best_epoch})": f"{best[key]:.3f}"} if best else {}
        headline |= _cells_found(history.results)
        headline |= {"epochs": str(engine.state.epoch), "time": _duration(history.seconds)}
        headline |= {f"{use} images": str(len(addresses)) for use, addresses in split.items()}
        curves = draw_curves(history.epochs, history.best_epoch or None)
        with writing(self.output_dir / "report" / "curves.png") as part:
            part.write_bytes(curves)
        self.images.write_sheet(history.results, key, history.best_epoch)
        _write(
            self.output_dir,
            Report(
                title="Training",
                warnings=warnings,
                headline=headline,
                curves=curves,
                results=history.results,
                pooled=best,
                pictures=_read_pictures(self.output_dir / "report", history.results),
                settings=self.settings,
                split=split,
                versions=software_versions(),
            ),
        )


class EvaluationReportHandler:
    """Write ``report.html``, the folder ``report/`` of its pictures and two tables at the end of an evaluation.

    ``metrics.csv`` has one line, name and value, for each measure of all images, as MONAI's ``MetricsSaver`` writes it.
    ``images.csv`` has one row for each image: its measures, and what became of its true and of the predicted cells.
    Attach the handler to the evaluator. Of several processes the first one writes the images of all.

    Args:
        output_dir: folder to write to.
        metrics: the evaluator's metrics by name, as it was given them.
        settings: what was set, by name.
        failed_files: what was wrong with images that were left out; None if none could be.
        max_images: images to show.
    """

    def __init__(
        self,
        output_dir: str,
        metrics: Mapping[str, IgniteMetricHandler],
        settings: Mapping[str, Any],
        failed_files: FailedFiles | None = None,
        max_images: int = 30,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.settings = settings
        self.failed_files = failed_files or FailedFiles()
        self.images = ImageResultsHandler(self.output_dir / "report", metrics, max_images)
        self.timer = Timer()

    def attach(self, engine: Workflow) -> None:
        """Register with the evaluator."""
        self.images.attach(engine)
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Workflow) -> None:
        """Start the clock."""
        self.timer.reset()

    @idist.one_rank_only()
    def write(self, engine: Workflow) -> None:
        """Write the report, and log what went wrong."""
        results, key, pooled = self.images.results, engine.state.key_metric_name, dict(engine.state.metrics)
        headline = {key: f"{pooled[key]:.3f}", **_cells_found(results), "images": str(len(results))}
        left_out = [f"Left out: {line}" for line in self.failed_files.failed.values()]
        with writing(self.output_dir / "metrics.csv") as part:
            part.write_text("".join(f"{name},{value}\n" for name, value in pooled.items()))
        _write_table(self.output_dir / "images.csv", results)
        self.images.write_sheet(results, key, engine.state.epoch)
        _write(
            self.output_dir,
            Report(
                title="Evaluation",
                warnings=left_out + found_nothing(results),
                headline={**headline, "time": _duration(self.timer.value())},
                curves=None,
                results=results,
                pooled=pooled,
                pictures=_read_pictures(self.output_dir / "report", results),
                settings=self.settings,
                split={"evaluated": sorted(result.address for result in results)},
                versions=software_versions(),
            ),
        )


def found_nothing(results: Sequence[ImageResult]) -> list[str]:
    """Warn if there are images but no predicted instance in any of them."""
    if not results or any(sum(result.pred.values()) for result in results):
        return []
    return [
        f"The network finds no cell in any of the {len(results)} images. If the loss still falls, train longer "
        "(--epochs, --steps_per_epoch); if it does not, look whether the labels fit the images, and try another "
        "--learning_rate or a lower --threshold."
    ]


def no_progress(history: History, key: str, better: Callable[[float, float], bool]) -> list[str]:
    """Warn if the last validation is not better than the first one, by the comparison that picks the best epoch."""
    validated = [epoch for epoch in history.epochs if epoch.measures]
    if len(validated) < 2 or better(validated[-1].measures[key], validated[0].measures[key]):
        return []
    first, last = (f"{epoch.measures[key]:.3f} (epoch {epoch.epoch})" for epoch in (validated[0], validated[-1]))
    return [
        f"{key} is no better at the end than at the first validation: {last} after {first}. The weights kept are those "
        f"of epoch {history.best_epoch}. Look at the curve of the loss and at the worst images: if it jumps, lower "
        "--learning_rate; if it falls, the training images may be too few, or none of them like those that validate."
    ]


def software_versions() -> dict[str, str]:
    """Name the versions of what a result may depend on."""
    return {"unet_monai": unet_monai.__version__, "monai": monai.__version__, "torch": str(torch.__version__)} | {
        "numpy": np.__version__,
        "Python": platform.python_version(),
    }


def _cells_found(results: Sequence[ImageResult]) -> dict[str, str]:
    """Say how many of the true cells were found."""
    true = total_classes(results)["true"]
    return {"true cells found right": f"{true['right']} of {sum(true.values())}"} if results else {}


def _duration(seconds: float) -> str:
    """Write a time in the unit that suits it."""
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _read_pictures(folder: Path, results: Sequence[ImageResult]) -> dict[str, bytes]:
    """Read the pictures that are still there."""
    paths = {result.picture: folder / result.picture for result in results if result.picture}
    return {name: path.read_bytes() for name, path in paths.items() if path.is_file()}


def _write_table(path: Path, results: Sequence[ImageResult]) -> None:
    """Write one row for each image, the worst first: its measures, and what became of its cells."""
    rows: list[dict[str, object]] = [
        {
            "image": result.address,
            **result.measures,
            **{f"true_{kind}": count for kind, count in result.true.items()},
            **{f"predicted_{kind}": count for kind, count in result.pred.items()},
        }
        for result in results
    ]
    with writing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["image"])
        table.writeheader()
        table.writerows(rows)


def _write(output_dir: Path, report: Report) -> None:
    """Write the page, say where it is and, last, what is wrong."""
    path = output_dir / "report.html"
    with writing(path) as part:
        part.write_text(render_report(report), encoding="utf-8")
    logger.info("report: %s", path)
    for warning in report.warnings:
        logger.warning("WARNING: %s", warning)
