"""The graph that mirrors and crops by itself scores as the inferers do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from unet_monai.export import SameSizeUNet
from unet_monai.inferers import OverlapTileInferer, RescalingInferer

from tests.export.conftest import draw_network

# Columns first, the borders of the second are 44 and 88 px, and 44 is no multiple of its pooling step, 8.
NETWORKS = [
    {"features": (2, 4)},
    {"features": (2, 2, 2, 2), "image_smoothing": 0.7},
    {"features": (2, 4), "spatial_dims": 3, "kernel_size": (3, 3, 1), "pool_size": [[2, 2, 1]], "in_channels": 2},
]


@pytest.mark.parametrize("settings", NETWORKS)
def test_probabilities_are_those_of_the_inferers(settings: dict[str, object]) -> None:
    network = draw_network(**settings)
    same_size = SameSizeUNet(network)
    size = [n + 3 * (axis + 1) * s for axis, (n, s) in enumerate(zip(same_size.smallest, same_size.steps, strict=True))]
    images = torch.rand(2, network.in_channels, *size, generator=torch.Generator().manual_seed(0))
    inferer = RescalingInferer(OverlapTileInferer(border=network.border, poolings=network.poolings))
    with torch.inference_mode():
        columns_first = torch.from_numpy(images.numpy().transpose(0, 1, *range(images.ndim - 1, 1, -1)))
        scores = inferer(columns_first, network).softmax(dim=1).numpy()
        probabilities = same_size(images)
    expected = scores.transpose(0, 1, *range(images.ndim - 1, 1, -1))
    assert expected.std() > 0.01, "test invalid: all probabilities are alike"
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-5)


def test_what_the_sizes_of_the_second_network_are() -> None:
    same_size = SameSizeUNet(draw_network(**NETWORKS[1]))
    assert same_size.network.border == (44, 88)
    assert (same_size.steps, same_size.halo, same_size.smallest) == ((8, 8), (88, 48), (184, 104))


@pytest.mark.parametrize("settings", NETWORKS[:2])
def test_tile_without_its_halo_is_as_in_the_whole_image(settings: dict[str, object]) -> None:
    """As programs cut images: tiles overlap by twice the halo, which is cropped from the output."""
    same_size = SameSizeUNet(draw_network(**{**settings, "image_smoothing": 0.0}))
    (up, left), (step_up, step_left) = same_size.halo, same_size.steps
    side = [n + 4 * s for n, s in zip(same_size.smallest, same_size.steps, strict=True)]
    image = torch.rand(1, 1, *side, generator=torch.Generator().manual_seed(0))
    height, width = same_size.smallest
    with torch.inference_mode():
        whole = same_size(image)
        tile = same_size(image[..., 2 * step_up : 2 * step_up + height, step_left : step_left + width])
    inside = tile[..., up:-up, left:-left]
    expected = whole[..., 2 * step_up + up :, step_left + left :][..., : inside.shape[2], : inside.shape[3]]
    torch.testing.assert_close(inside, expected, rtol=0, atol=1e-5)
