"""The contestants of inference compute what the table says, and operations are counted as by hand."""

from __future__ import annotations

import pytest
import torch
from unet_monai.networks import ValidUNet

from benchmarks import overlap_tile
from benchmarks.overlap_tile import (
    best_rate,
    fastest,
    flops,
    hovernet_inferers,
    plain_twin,
    tile_of,
    with_random_statistics,
)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> ValidUNet:
    features = (2, 4, 8, 16, 32)
    monkeypatch.setattr(overlap_tile, "FEATURES", features)
    torch.manual_seed(0)
    return with_random_statistics(ValidUNet(features=features, norm="batch", dropout=0.0)).eval()


@torch.inference_mode()
def test_plain_twin_scores_alike_layer_after_layer(network: ValidUNet) -> None:
    plain = plain_twin(network)
    tile = torch.rand(1, 1, 204, 204)
    torch.testing.assert_close(plain(tile), network(tile), atol=1e-5, rtol=1e-5)
    assert not any(hasattr(module, "conv1") for module in plain.modules())


@torch.inference_mode()
def test_hovernet_tiles_are_those_of_the_network(network: ValidUNet) -> None:
    assert [tile_of(inferer) for inferer in hovernet_inferers()] == [572, 1084, 2236]
    small = hovernet_inferers()[0]
    assert small(torch.rand(1, 1, 400, 380), network).shape == (1, 2, 400, 380)


def test_flops_of_two_levels_by_hand() -> None:
    # 20 px: 18 and 16 at full resolution, pooled 8: 6 and 4, up 8: 6 and 4, and the scores.
    network = ValidUNet(features=(3, 5), norm="batch", dropout=0.0).eval()
    down = 9 * (1 * 3 * 18**2 + 3 * 3 * 16**2)
    lowest = 9 * (3 * 5 * 6**2 + 5 * 5 * 4**2)
    up = 5 * 3 * 8**2 + 9 * (6 * 3 * 6**2 + 3 * 3 * 4**2) + 3 * 2 * 4**2
    with torch.inference_mode():
        assert flops(network, 20) == 2 * (down + lowest + up)


@torch.inference_mode()
def test_best_rate_is_a_rate(network: ValidUNet) -> None:
    assert 1e6 < best_rate(network) < 1e14


@torch.inference_mode()
def test_fastest_picks_the_least_work(network: ValidUNet) -> None:
    quick, slow = (lambda image, net: None), (lambda image, net: net(image))
    assert fastest(torch.rand(1, 1, 204, 204), network, [slow, quick]) is quick
