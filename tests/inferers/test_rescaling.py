from __future__ import annotations

import pytest
import torch
from unet_monai.inferers import OverlapTileInferer, RescalingInferer
from unet_monai.networks import ValidUNet
from unet_monai.transforms.rescale import resample, smooth


def make(**options: float) -> tuple[ValidUNet, OverlapTileInferer]:
    torch.manual_seed(0)
    network = ValidUNet(features=(2, 4), **options).eval()
    return network, OverlapTileInferer(border=network.border, poolings=network.poolings)


IMAGE = torch.rand(1, 1, 50, 71, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_images_like_those_of_the_training() -> None:
    network, inner = make(image_scale=0.5, cell_diameter=30)
    expected = resample(inner(resample(IMAGE[0], (25, 36))[None], network)[0], (50, 71))[None]
    torch.testing.assert_close(RescalingInferer(inner)(IMAGE, network), expected)


@torch.no_grad()
@pytest.mark.parametrize("scale", [1, 0.5])
def test_images_are_smoothed_as_in_the_training(scale: float) -> None:
    network, inner = make(image_scale=scale, image_smoothing=0.7)
    plain, _ = make(image_scale=scale)
    expected = RescalingInferer(lambda image, net: inner(smooth(image[0], 0.7)[None], net))(IMAGE, plain)
    torch.testing.assert_close(RescalingInferer(inner)(IMAGE, network), expected)
    assert not torch.equal(expected, RescalingInferer(inner)(IMAGE, plain)), "test invalid"


@torch.no_grad()
@pytest.mark.parametrize(("diameter", "side"), [(30, 25), (60, 12), (15, 50), (10, 75)])
def test_cells_of_another_size(diameter: float, side: int) -> None:
    network, inner = make(image_scale=0.5, cell_diameter=30)
    seen = []
    inferer = RescalingInferer(lambda image, net: seen.append(image.shape[2]) or inner(image, net), diameter)
    assert inferer(IMAGE, network).shape == (1, 2, 50, 71)
    assert seen == [side]


@torch.no_grad()
def test_the_networks_own_scale_leaves_everything_as_it_is() -> None:
    network, inner = make()
    assert torch.equal(RescalingInferer(inner)(IMAGE, network), inner(IMAGE, network))


def test_the_scale_travels_with_the_weights() -> None:
    network, inner = make(image_scale=0.25, cell_diameter=80)
    loaded = ValidUNet.from_state_dict(network.state_dict())
    assert RescalingInferer(inner).scale_for(loaded) == 0.25
    assert RescalingInferer(inner, cell_diameter=40).scale_for(loaded) == 0.5


def test_rejects() -> None:
    network, inner = make()
    with pytest.raises(ValueError, match=r"cell_diameter must be positive, got 0\."):
        RescalingInferer(inner, cell_diameter=0)
    with pytest.raises(ValueError, match=r"cell_diameter must be None for a network that knows none, got 20\."):
        RescalingInferer(inner, cell_diameter=20)(IMAGE, network)
