"""Make what an epoch draws on its own (dropout) a function of the seed and the epoch alone."""

from __future__ import annotations

import ignite.distributed as idist
import torch
from ignite.engine import Events
from monai.engines.workflow import Workflow

# Apart by more epochs than a training has, so that no two ranks draw the same.
RANK_STRIDE = 1_000_000


class EpochSeedHandler:
    """Seed torch at the start of each epoch, so that a resumed training draws what an undisturbed one would.

    Args:
        seed: seed of the training; epoch ``n`` uses ``seed + n``, and on rank ``r`` of several ``r`` strides more.

    Raises:
        TypeError: when the seed is no whole number.
    """

    def __init__(self, seed: int) -> None:
        if not isinstance(seed, int):
            raise TypeError(f"seed must be a whole number, got {seed!r}.")
        self.seed = seed

    def attach(self, engine: Workflow) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Workflow) -> None:
        """Seed the epoch that starts."""
        torch.manual_seed(self.seed + engine.state.epoch + RANK_STRIDE * idist.get_rank())
