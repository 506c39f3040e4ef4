from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from unet_monai.handlers import WeightAveragingHandler


def averaged_after(values: list[float], steps: int) -> list[float]:
    """Feed one weight, step by step, and return its average after each."""
    network, averaged = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    handler = WeightAveragingHandler(network, averaged, steps)
    seen = []
    for iteration, value in enumerate(values, start=1):
        nn.init.constant_(network.weight, value)
        handler(SimpleNamespace(state=SimpleNamespace(iteration=iteration)))
        seen.append(averaged.weight.item())
    return seen


def test_it_is_the_mean_until_it_reaches_back_far_enough() -> None:
    assert averaged_after([2, 4, 9, 1], steps=10) == pytest.approx([2, 3, 5, 4])


def test_then_it_forgets() -> None:
    assert averaged_after([2, 4, 9, 1], steps=2) == pytest.approx([2, 3, 6, 3.5])


def test_running_statistics_are_averaged_and_counters_copied() -> None:
    network, averaged = nn.BatchNorm2d(1), nn.BatchNorm2d(1)
    handler = WeightAveragingHandler(network, averaged, steps=4)
    means = []
    for iteration in (1, 2):
        network(torch.full((1, 1, 2, 2), 10.0 * iteration))
        means.append(network.running_mean.clone())
        handler(SimpleNamespace(state=SimpleNamespace(iteration=iteration)))
    assert means[0] != means[1], "test invalid"
    torch.testing.assert_close(averaged.running_mean, (means[0] + means[1]) / 2)
    assert averaged.num_batches_tracked == 2


def test_the_network_itself_stays() -> None:
    network, averaged = nn.Linear(2, 2), nn.Linear(2, 2)
    before = network.weight.clone()
    WeightAveragingHandler(network, averaged)(SimpleNamespace(state=SimpleNamespace(iteration=7)))
    assert torch.equal(network.weight, before)
    assert not averaged.weight.grad_fn


def test_rejects_steps() -> None:
    with pytest.raises(ValueError, match=r"steps must be at least 1, got 0\."):
        WeightAveragingHandler(nn.Linear(1, 1), nn.Linear(1, 1), steps=0)
