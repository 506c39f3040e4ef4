from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from monai.transforms import ScaleIntensityRangePercentiles

from tests.large_images.images import make_network
from unet_monai.inferers import OverlapTileInferer, RescalingInferer
from unet_monai.large_images import open_image
from unet_monai.large_images.block_grid import block_grid
from unet_monai.large_images.block_scores import BlockScorer
from unet_monai.networks import ValidUNet


def in_memory(pixels: np.ndarray, network: ValidUNet) -> torch.Tensor:
    """The scores as bundle/configs/inference.json computes them, pixels (X, Y[, Z])."""
    normalise = ScaleIntensityRangePercentiles(lower=1, upper=99.8, b_min=0, b_max=1, channel_wise=True)
    inferer = OverlapTileInferer(border=network.border, poolings=network.poolings)
    with torch.inference_mode():
        return RescalingInferer(inferer)(torch.as_tensor(normalise(pixels.astype(np.float32)[None]))[None], network)[0]


@pytest.mark.parametrize(
    ("size", "block", "options"),
    [
        ((100, 77), (48, 32), {}),
        ((100, 77), (48, 32), {"image_smoothing": 1.3}),
        ((100, 77), (128, 128), {"image_smoothing": 0.7}),
        ((17, 90), (16, 16), {"image_smoothing": 0.7}),
        ((5, 3), (16, 16), {}),
        ((40, 33, 20), (16, 16, 16), {"spatial_dims": 3, "features": (2, 4, 8), "image_smoothing": 0.7}),
    ],
)
@pytest.mark.parametrize("roi_size", [None, "small"])
def test_scores_of_blocks_are_those_of_the_whole_image(
    tmp_path: Path, size: tuple[int, ...], block: tuple[int, ...], options: dict, roi_size: str | None
) -> None:
    network = make_network(**options)
    pixels = np.random.default_rng(0).integers(0, 200, size).astype(np.uint8)
    zarr.create_array(tmp_path / "a.zarr", data=pixels.T)
    numbers = [(float(np.percentile(pixels, 1)), float(np.percentile(pixels, 99.8)))]
    first = next(n for n in range(4, 8) if (n + network.border[0]) % 4 == 0)
    side = None if roi_size is None else first + 8 + 2 * network.border[0]
    image = open_image(tmp_path / "a.zarr", spatial_dims=len(size))
    scorer = BlockScorer(image, network, numbers, roi_size=side)
    expected = in_memory(pixels, network)
    for each in block_grid(size, block).values():
        found = scorer(each)
        torch.testing.assert_close(
            found, expected[(slice(None), *each.slices)], rtol=0, atol=1e-5 * float(expected.abs().max())
        )


def test_errors(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=np.zeros((40, 50), np.uint8))
    image = open_image(tmp_path / "a.zarr")
    with pytest.raises(ValueError, match=r"network must have been trained at scale 1 .* got image_scale 0\.5"):
        BlockScorer(image, make_network(image_scale=0.5), [(0, 1)])
    blocks = block_grid(image.shape, (20, 20))
    with pytest.raises(ValueError, match=r"block must start at multiples of \[4, 4\] px, got \(0, 30\)"):
        BlockScorer(image, make_network(), [(0, 1)])(block_grid(image.shape, (30, 30))[0, 1])
    assert BlockScorer(image, make_network(), [(0, 1)])(blocks[1, 1]).shape == (3, 20, 20)
