"""Stop a training that diverged, before its weights replace good ones."""

from __future__ import annotations

import math

from ignite.engine import Events
from monai.engines.workflow import Workflow
from torch import nn


class DivergenceHandler:
    """End a training with an error after the first step whose loss is not finite, or epoch whose weights are not.

    What was kept after earlier epochs stays. Attach it before the handlers that validate and save.

    Args:
        network: the network that is trained.

    Raises:
        ValueError: in training, naming the step or the epoch.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def attach(self, engine: Workflow) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.check_loss)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.check_weights)

    def check_loss(self, engine: Workflow) -> None:
        """Look at the loss of a step."""
        loss = float(engine.state.output[0]["loss"])
        if not math.isfinite(loss):
            raise ValueError(
                f"loss must stay finite, got {loss} at step {engine.state.iteration}: the training diverged, "
                "try a lower --learning_rate."
            )

    def check_weights(self, engine: Workflow) -> None:
        """Look at the weights after an epoch: its last step may have spoilt them, and no loss has shown it yet."""
        for name, values in self.network.state_dict().items():
            # The scalars are notes, and of those an unknown cell diameter is NaN.
            if values.ndim and not values.isfinite().all():
                raise ValueError(
                    f"weights must stay finite, got others in {name} after epoch {engine.state.epoch}: the training "
                    "diverged, try a lower --learning_rate."
                )
