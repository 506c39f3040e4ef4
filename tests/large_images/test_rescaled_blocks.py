from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from unet_monai.large_images.block_grid import Block, block_grid
from unet_monai.large_images.rescaled_blocks import BlockResampling, resampling_matrix, rescaled_size
from unet_monai.transforms.rescale import Rescale, resample


def test_halving_weighs_four_pixels_and_fewer_at_the_edges() -> None:
    """Triangles of four pixels: 1 3 3 1, and what of them lies in the image."""
    expected = np.array(
        [[3 / 7, 3 / 7, 1 / 7, 0, 0, 0], [0, 1 / 8, 3 / 8, 3 / 8, 1 / 8, 0], [0, 0, 0, 1 / 7, 3 / 7, 3 / 7]]
    )
    np.testing.assert_allclose(resampling_matrix(6, 3).toarray(), expected, atol=1e-7)


def test_doubling_mixes_two_neighbours() -> None:
    expected = np.array([[4, 0], [3, 1], [1, 3], [0, 4]]) / 4
    np.testing.assert_allclose(resampling_matrix(2, 4).toarray(), expected, atol=1e-7)


@pytest.mark.parametrize(
    ("size", "new_size"),
    [(1, 1), (1, 3), (5, 1), (3, 2), (100, 31), (31, 100), (77, 59), (59, 77), (40, 64), (1000, 3), (4096, 2047)],
)
def test_the_matrix_is_the_resampled_identity(size: int, new_size: int) -> None:
    slow = resample(torch.eye(size), [new_size]).T.numpy()
    np.testing.assert_array_equal(resampling_matrix(size, new_size).toarray(), slow)


def test_the_matrix_of_random_sizes_is_the_resampled_identity() -> None:
    for size, new_size in np.random.default_rng(0).integers(1, 90, (100, 2)).tolist():
        slow = resample(torch.eye(size), [new_size]).T.numpy()
        np.testing.assert_array_equal(resampling_matrix(size, new_size).toarray(), slow, err_msg=f"{size} {new_size}")


def test_the_matrix_of_a_long_axis_keeps_every_weight() -> None:
    """Where a position needs most of the digits of float32, no weight may be lost or moved."""
    matrix = resampling_matrix(300_001, 93_000)
    assert np.all(np.diff(matrix.indptr) >= 5)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-5)
    ramp = torch.linspace(0, 1, 300_001)[None]
    np.testing.assert_allclose(matrix @ ramp[0].numpy(), resample(ramp, [93_000])[0], atol=1e-6)


@pytest.mark.parametrize("scale", [0.31, 0.5, 0.77, 1.6, 0.001])
def test_sizes_are_those_of_the_rescaled_image(scale: float) -> None:
    for size in (1, 2, 3, 5, 97, 1000):
        assert (rescaled_size(size, scale),) == tuple(Rescale(scale)(torch.zeros(1, size)).shape[1:])
    assert [rescaled_size(size, 0.5) for size in (1, 3, 5)] == [1, 2, 2], "halves are rounded to the even number"


@pytest.mark.parametrize(
    ("size", "new_size"), [((40, 33), (12, 10)), ((40, 33), (64, 53)), ((20, 30), (20, 9)), ((9, 20, 11), (7, 31, 11))]
)
def test_blocks_are_cut_from_the_whole(size: tuple[int, ...], new_size: tuple[int, ...]) -> None:
    image = torch.randn(2, *size, generator=torch.Generator().manual_seed(0))
    whole, resampling = resample(image, new_size), BlockResampling(size, new_size)
    for block in block_grid(new_size, [7] * len(size)).values():
        window = resampling.needed(block)
        for widened in (window, window.widened(3, 1, size)):
            found = resampling(image[(slice(None), *widened.slices)], widened, block)
            torch.testing.assert_close(found, whole[(slice(None), *block.slices)], rtol=0, atol=1e-6)


def test_only_the_pixels_that_count_are_needed() -> None:
    """Of 8 pixels made 4, pixel 2 has its centre between pixels 4 and 5 and reaches two more to each side."""
    halved, doubled = BlockResampling([8], [4]), BlockResampling([8], [16])
    assert halved.needed(Block((2,), (3,))) == Block((3,), (7,))
    assert doubled.needed(Block((4,), (6,))) == Block((1,), (4,))
    assert BlockResampling([8], [8]).needed(Block((2,), (5,))) == Block((2,), (5,))
    parts = [doubled.needed(Block((a,), (b,))) for a, b in pairwise(range(0, 17, 4))]
    assert [part.start[0] for part in parts] == [0, 1, 3, 5]


def test_the_dtype_stays() -> None:
    halved = BlockResampling([8], [4])(torch.ones(1, 8, dtype=torch.float16), Block((0,), (8,)), Block((0,), (4,)))
    assert (halved.dtype, halved.tolist()) == (torch.float16, [[1, 1, 1, 1]])
