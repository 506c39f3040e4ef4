"""End a training when its time is up."""

from __future__ import annotations

import ignite.distributed as idist
from ignite.engine import Events
from ignite.handlers import TimeLimit
from monai.engines.workflow import Workflow


class TimeLimitHandler:
    """End a training after the step in which its time is up; what the validations so far found best is kept.

    Several processes end after the same step, that in which the time of the first of them is up.

    The learning rate's schedule does not know of it: choose the epochs so that the limit is an emergency brake.

    Args:
        minutes: time from the start of the training, validations included, > 0.

    Raises:
        ValueError: if `minutes` is not positive.
    """

    def __init__(self, minutes: float) -> None:
        if not minutes > 0:
            raise ValueError(f"minutes must be positive, got {minutes}.")
        self.minutes = minutes

    def attach(self, engine: Workflow) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.STARTED, self.start)

    def start(self, engine: Workflow) -> None:
        """Start the clock."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, TimeLimit(max(int(60 * self.minutes), 1)))
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.agree)

    def agree(self, engine: Workflow) -> None:
        """End here too if another process ends: left alone, those that go on would wait for it."""
        if idist.all_reduce(int(engine.should_terminate)):
            engine.terminate()
