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


def test_it_reaches_back_an_eighth_of_the_steps() -> None:
    seen = averaged_after([5.0] * 15 + [9, 1] + [0] * 15, steps=100)
    # Steps 1 to 8 are copied; step 16 counts half, step 17 counts 8 / 17, step 32 a quarter.
    assert seen[:15] == [5] * 15
    assert seen[15] == pytest.approx(7)
    assert seen[16] == pytest.approx(7 - 6 * 8 / 17)
    assert seen[31] == pytest.approx(seen[30] * 3 / 4)


def test_at_most_so_many() -> None:
    seen = averaged_after([0.0] * 80 + [4], steps=5)
    assert seen[-1] == pytest.approx(4 / 5)


def test_running_statistics_are_averaged_and_counters_copied() -> None:
    network, averaged = nn.BatchNorm2d(1), nn.BatchNorm2d(1)
    handler = WeightAveragingHandler(network, averaged, steps=4)
    means = []
    for iteration in (1, 16):
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
