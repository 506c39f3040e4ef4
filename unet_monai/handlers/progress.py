"""One progress bar for the whole training, with the loss and the validation measure."""

from __future__ import annotations

import logging

import ignite.distributed as idist
from ignite.engine import Events
from monai.engines.workflow import Workflow
from tqdm import tqdm

logger = logging.getLogger(__name__)


class ProgressHandler:
    """Show one bar over all steps: the epoch, the running loss, the last and the best validation measure.

    Attach it to the trainer after the validation handler. Of several processes the first one shows its own losses.

    Args:
        evaluator: the engine that validates; its key metric is shown.
    """

    def __init__(self, evaluator: Workflow) -> None:
        self.evaluator = evaluator
        self.loss: float | None = None
        self.bar = tqdm(disable=True)

    def attach(self, engine: Workflow) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.validated)
        engine.add_event_handler(Events.COMPLETED | Events.EXCEPTION_RAISED, self.finish)

    def start(self, engine: Workflow) -> None:
        """Open the bar, at the step that a resumed training starts from."""
        total = engine.state.max_epochs * engine.state.epoch_length
        self.bar = tqdm(
            total=total,
            initial=engine.state.iteration,
            desc="training",
            unit="step",
            mininterval=1.0,
            disable=idist.get_rank() > 0,
        )

    def step(self, engine: Workflow) -> None:
        """Count a step and average its loss into the running one."""
        loss = float(engine.state.output[0]["loss"])
        self.loss = loss if self.loss is None else 0.95 * self.loss + 0.05 * loss
        self.bar.set_postfix(self._figures(engine), refresh=False)
        self.bar.update()

    def validated(self, engine: Workflow) -> None:
        """Show an epoch's validation at once."""
        self.bar.set_postfix(self._figures(engine))

    def finish(self, engine: Workflow, error: BaseException | None = None) -> None:
        """Close the bar; pass an error on."""
        self.bar.close()
        if error is not None:
            raise error

    def _figures(self, engine: Workflow) -> dict[str, str]:
        figures = {"epoch": f"{engine.state.epoch}/{engine.state.max_epochs}", "loss": f"{self.loss:.3f}"}
        state = self.evaluator.state
        if state.key_metric_name in state.metrics:
            figures[state.key_metric_name] = f"{state.metrics[state.key_metric_name]:.3f}"
            figures["best"] = f"{state.best_metric:.3f}"
        return figures


class FileProgressHandler:
    """Show a bar over the files that an evaluator segments, and say at the end where the results are.

    Of several processes the first one shows the bar, over its own share, and counts the files of all at the end.

    Args:
        output_dir: folder that the results are written to.
    """

    def __init__(self, output_dir: str) -> None:
        self.output_dir = output_dir
        self.images = 0

    def attach(self, engine: Workflow) -> None:
        """Register with the evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.step)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def start(self, engine: Workflow) -> None:
        """Open the bar."""
        self.images = 0
        total = engine.state.epoch_length
        self.bar = tqdm(total=total, desc="segmenting", unit="image", disable=idist.get_rank() > 0)

    def step(self, engine: Workflow) -> None:
        """Count the images of a batch that were segmented; of one that failed, the bar only."""
        self.images += len(engine.state.output)
        self.bar.update()

    def finish(self, engine: Workflow) -> None:
        """Close the bar."""
        self.bar.close()
        logger.info("%d images segmented, results in %s", idist.all_reduce(self.images), self.output_dir)
