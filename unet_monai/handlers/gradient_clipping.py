"""Keep single steps from spoiling a training."""

from __future__ import annotations

import logging

import ignite.distributed as idist
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from torch import nn
from torch.nn.utils import clip_grad_norm_

logger = logging.getLogger(__name__)


class GradientClippingHandler:
    """Clip the norm of the gradient of each step; leave out a step whose gradient is not finite.

    A tile without any contrast, such as one of a blacked-out background, has such a gradient: every batch
    normalisation divides by a standard deviation of nearly 0, and in a U-Net there are eighteen in a row. One such
    step, if taken, leaves Adam with second moments that hold the first layers still for the rest of the training.
    Gradients of other tiles have norms of a few units, and stay as they are.

    Args:
        network: the network that is trained.
        max_norm: largest norm of the gradient over all parameters.
    """

    def __init__(self, network: nn.Module, max_norm: float = 10.0) -> None:
        self.network = network
        self.max_norm = max_norm
        self.left_out = 0

    def attach(self, engine: SupervisedTrainer) -> None:
        """Register with the trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: SupervisedTrainer) -> None:
        """Clip, between the backward pass and the step."""
        if clip_grad_norm_(self.network.parameters(), self.max_norm).isfinite():
            return
        engine.optimizer.zero_grad(set_to_none=True)
        if self.left_out == 0 and idist.get_rank() == 0:  # all processes have the same gradient
            logger.warning(
                "step %d is left out: its gradient is not finite, as that of a tile without contrast (said once).",
                engine.state.iteration,
            )
        self.left_out += 1
