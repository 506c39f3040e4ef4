from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from monai.transforms import ScaleIntensityRangePercentiles
from unet_monai.inferers import OverlapTileInferer, RescalingInferer
from unet_monai.large_images import open_image
from unet_monai.large_images.block_grid import Block, block_grid
from unet_monai.large_images.block_scores import BlockScorer
from unet_monai.networks import ValidUNet

from tests.large_images.images import make_network


def in_memory(pixels: np.ndarray, network: ValidUNet, cell_diameter: float | None = None) -> torch.Tensor:
    """The scores as bundle/configs/inference.json computes them, pixels (X, Y[, Z])."""
    normalise = ScaleIntensityRangePercentiles(lower=1, upper=99.8, b_min=0, b_max=1, channel_wise=True)
    inferer = OverlapTileInferer(border=network.border, poolings=network.poolings)
    with torch.inference_mode():
        image = torch.as_tensor(normalise(pixels.astype(np.float32)[None]))[None]
        return RescalingInferer(inferer, cell_diameter)(image, network)[0]


@pytest.mark.parametrize(
    ("size", "block", "options"),
    [
        ((100, 77), (48, 32), {}),
        ((100, 77), (48, 32), {"image_smoothing": 1.3}),
        ((100, 77), (128, 128), {"image_smoothing": 0.7}),
        ((17, 90), (16, 16), {"image_smoothing": 0.7}),
        ((5, 3), (16, 16), {}),
        ((100, 77), (50, 31), {}),
        ((40, 33, 20), (16, 16, 16), {"spatial_dims": 3, "features": (2, 4, 8), "image_smoothing": 0.7}),
        ((100, 77), (48, 32), {"image_scale": 0.31, "image_smoothing": 0.7}),
        ((100, 177), (33, 64), {"image_scale": 0.5}),
        ((101, 77), (48, 32), {"image_scale": 0.77, "image_smoothing": 1.3}),
        ((61, 48), (17, 32), {"image_scale": 1.6, "image_smoothing": 0.7}),
        ((90, 3), (20, 20), {"image_scale": 0.31}),
        ((90, 1), (20, 20), {"image_scale": 1.6}),
        ((100, 99), (48, 48), {"image_scale": 0.995}),
        ((50, 33, 20), (16, 32, 16), {"spatial_dims": 3, "image_scale": 0.61, "image_smoothing": 0.7}),
        ((17, 12, 20), (16, 16, 16), {"spatial_dims": 3, "image_scale": 1.3}),
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


@pytest.mark.parametrize("cell_diameter", [37.0, 11.3])
def test_cells_of_another_diameter_are_brought_to_the_one_learnt(tmp_path: Path, cell_diameter: float) -> None:
    network = make_network(image_scale=0.8, cell_diameter=24)
    pixels = np.random.default_rng(0).integers(0, 200, (70, 81)).astype(np.uint8)
    zarr.create_array(tmp_path / "a.zarr", data=pixels.T)
    numbers = [(float(np.percentile(pixels, 1)), float(np.percentile(pixels, 99.8)))]
    scorer = BlockScorer(open_image(tmp_path / "a.zarr"), network, numbers, cell_diameter=cell_diameter)
    expected = in_memory(pixels, network, cell_diameter)
    assert not torch.equal(expected, in_memory(pixels, network)), "test invalid"
    for block in block_grid((70, 81), (32, 32)).values():
        torch.testing.assert_close(
            scorer(block), expected[(slice(None), *block.slices)], rtol=0, atol=1e-5 * float(expected.abs().max())
        )


@pytest.mark.parametrize("scale", [0.31, 1.6])
def test_a_block_is_read_with_the_context_that_it_needs_and_no_more(tmp_path: Path, scale: float) -> None:
    network = make_network(image_scale=scale)
    zarr.create_array(tmp_path / "a.zarr", data=np.zeros((900, 900), np.uint8))
    image, windows = open_image(tmp_path / "a.zarr"), []
    whole = image.read

    def read(window: tuple[slice, ...]) -> np.ndarray:
        windows.append(window)
        return whole(window)

    image.read = read  # type: ignore[method-assign]
    BlockScorer(image, network, [(0, 1)])(Block((400, 400), (440, 440)))
    ((rows, columns),) = windows
    context = (network.border[0] + 4 + 4) / scale  # less than a pooling step before the block, and behind the tile
    assert 400 - context - 3 < rows.start <= 400 - network.border[0] / scale
    assert 440 + network.border[0] / scale <= rows.stop < 440 + context + 3
    assert rows == columns


def test_errors(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=np.zeros((40, 50), np.uint8))
    image = open_image(tmp_path / "a.zarr")
    with pytest.raises(ValueError, match="cell_diameter must be None for a network that knows none, got 30"):
        BlockScorer(image, make_network(), [(0, 1)], cell_diameter=30)
    with pytest.raises(ValueError, match="cell_diameter must be positive, got 0"):
        BlockScorer(image, make_network(), [(0, 1)], cell_diameter=0)
