"""Average the weights over the last steps: steadier from validation to validation than the weights themselves."""

from __future__ import annotations

import ignite.distributed as idist
import torch
from ignite.engine import Events
from monai.engines.workflow import Workflow
from torch import nn


class WeightAveragingHandler:
    """Keep a moving average of a network's weights, and of its running statistics, after each step.

    Source: Polyak averaging in its usual exponential form, average += (weights - average) / n. The average reaches back
    n = an eighth of the steps so far, and at most `steps`: the first weights, far from good, are soon forgotten. A
    function of the trainer's step, it resumes exactly.

    Of several processes each keeps the average. The weights are the same everywhere, and so are running statistics that
    all share (`distribute`); of others, all take those of the first one after each epoch. Attach it before the
    validation handler.

    Args:
        network: the network that is trained.
        averaged: a network of the same kind that receives the average; validate and keep this one.
        steps: steps that the average reaches back at most, >= 1.

    Raises:
        ValueError: if `steps` is below 1.
    """

    def __init__(self, network: nn.Module, averaged: nn.Module, steps: int = 100) -> None:
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}.")
        self.network = network
        self.averaged = averaged
        self.steps = steps

    def attach(self, engine: Workflow) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.agree)

    @torch.no_grad()
    def __call__(self, engine: Workflow) -> None:
        """Take in the weights after a step."""
        share = 1 / min(max(engine.state.iteration / 8, 1), self.steps)
        current = self.network.state_dict()
        for name, average in self.averaged.state_dict().items():
            if average.is_floating_point():
                average.lerp_(current[name], share)
            else:
                average.copy_(current[name])

    def agree(self, engine: Workflow) -> None:
        """Take over the running statistics of the first process, so that all validate the same network."""
        for statistic in self.averaged.buffers():
            idist.broadcast(statistic, src=0)
