from __future__ import annotations

import itertools

import numpy as np
import pytest
from unet_monai.networks.tile_shapes import (
    balanced_output_size,
    context_border,
    covering_output_size,
    mirrored_indices,
    output_size,
    output_sizes,
    tile_starts,
)

from tests.reference.overlap_tile import mirror_out


def traced_size(size: int, kernels: list[int], pools: list[int]) -> int | None:
    """Follow the side of a map through the network, layer by layer; None where a pooling does not fit."""
    *upper, lowest = kernels
    for kernel, pool in zip(upper, pools, strict=True):
        size -= 2 * (kernel - 1)
        if size < pool or size % pool:
            return None
        size //= pool
    size -= 2 * (lowest - 1)
    for kernel, pool in zip(reversed(upper), reversed(pools), strict=True):
        if size < 1:
            return None
        size = size * pool - 2 * (kernel - 1)
    return size if size >= 1 else None


@pytest.mark.parametrize(("input_size", "output"), [(188, 4), (204, 20), (316, 132), (572, 388), (700, 516)])
def test_sizes_of_the_paper(input_size: int, output: int) -> None:
    assert output_size(input_size, border=92, step=16) == output


@pytest.mark.parametrize(
    ("kernels", "pools"),
    [
        ([3, 3, 3, 3, 3], [2, 2, 2, 2]),
        ([3, 3], [2]),
        ([1, 1, 3], [1, 2]),
        ([3, 3, 3], [1, 2]),
        ([5, 3, 1, 3], [2, 1, 2]),
        ([7, 1], [1]),
    ],
)
def test_every_size_agrees_with_a_walk_through_the_layers(kernels: list[int], pools: list[int]) -> None:
    border, step = context_border(kernels, pools), int(np.prod(pools))
    fitting = {n: traced_size(n, kernels, pools) for n in range(1, 2 * border + 3 * step + 2)}
    assert sum(size is not None for size in fitting.values()) >= 3, "test invalid"
    for size, output in fitting.items():
        if output is None:
            with pytest.raises(ValueError, match="input size must be one that the poolings fit"):
                output_size(size, border, step)
        else:
            assert output_size(size, border, step) == output


def test_context_border_wants_a_pooling_between_levels() -> None:
    with pytest.raises(ValueError, match="argument 2 is"):
        context_border([3, 3], [2, 2])


@pytest.mark.parametrize(
    ("size", "named"),
    [(573, "572 or 588"), (571, "556 or 572"), (512, "508 or 524"), (189, "188 or 204"), (187, "188, the smallest")],
)
def test_error_names_the_nearest_sizes(size: int, named: str) -> None:
    message = rf"^input size must be one that the poolings fit, such as {named}, got {size}\.$"
    with pytest.raises(ValueError, match=message):
        output_size(size, border=92, step=16)


def test_one_side_or_one_per_axis() -> None:
    borders, steps = (92, 92, 8), (16, 16, 4)
    assert output_sizes([572, 188, 24], borders, steps) == (388, 4, 8)
    assert output_sizes(204, borders[:2], steps[:2]) == (20, 20)
    for wrong in ([572, 572], (), [572] * 4):
        with pytest.raises(ValueError, match=r"^input size must be one side, or 3, one per axis, got [\[(]"):
            output_sizes(wrong, borders, steps)


@pytest.mark.parametrize("size", [-5, 0, 1, 184])
def test_hopeless_sizes_are_sent_to_the_smallest(size: int) -> None:
    with pytest.raises(ValueError, match=rf"such as 188, the smallest, got {size}\."):
        output_size(size, border=92, step=16)


@pytest.mark.parametrize(("border", "step"), [(92, 16), (20, 4), (4, 1), (0, 8)])
def test_covering_size_is_the_least_valid_one(border: int, step: int) -> None:
    valid = []
    for candidate in range(1, 100 + step):
        try:
            valid.append(output_size(candidate + 2 * border, border, step))
        except ValueError:
            continue
    for image in range(1, 100):
        assert covering_output_size(image, border, step) == min(size for size in valid if size >= image)


CASES = [
    (image, tile, border, step)
    for border, step in ((92, 16), (20, 4), (0, 8), (3, 1), (10, 2))
    for tile in range(step, 5 * step + 6)
    if (tile + border) % step == 0
    for image in range(1, 9 * step + 10, 3)
]


def test_tiles_cover_the_image_in_phase_and_none_is_spare() -> None:
    several = 0
    for image, tile, _, step in CASES:
        starts = tile_starts(image, tile, step)
        several += len(starts) > 1
        assert starts[0] == 0
        assert all(start % step == 0 for start in starts), "out of pooling phase"
        assert all(b - a <= tile for a, b in itertools.pairwise(starts)), "a gap between tiles"
        assert starts[-1] + tile >= image, "the end of the image is left out"
        # The widest stride that keeps the phase leaves no smaller number of tiles.
        assert len(starts) == 1 or (len(starts) - 2) * (tile // step * step) + tile < image
    assert several > 300, "test invalid"


def test_tile_starts_of_the_paper() -> None:
    assert tile_starts(512, tile_output=388, step=16) == [0, 384]
    assert tile_starts(772, tile_output=388, step=16) == [0, 384]
    assert tile_starts(773, tile_output=388, step=16) == [0, 384, 768]


def test_a_tile_below_one_step_can_only_stand_alone() -> None:
    assert tile_starts(4, tile_output=4, step=16) == [0]
    with pytest.raises(ValueError, match=r"^tile output must be at least 16 px, .* got 4\.$"):
        tile_starts(5, tile_output=4, step=16)


def test_balanced_tiles_are_the_smallest_that_need_no_more() -> None:
    for image, tile, border, step in CASES:
        size = balanced_output_size(image, tile, border, step)
        assert output_size(size + 2 * border, border, step) == size
        assert len(tile_starts(image, size, step)) <= len(tile_starts(image, tile, step))
        smaller = size - step
        if smaller >= step:
            assert len(tile_starts(image, smaller, step)) > len(tile_starts(image, tile, step))
        assert size <= max(tile, covering_output_size(image, border, step))


def test_mirrored_indices_by_hand() -> None:
    assert mirrored_indices(-5, 8, size=3).tolist() == [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1]
    assert mirrored_indices(-2, 4, size=2).tolist() == [0, 1, 0, 1, 0, 1]
    assert mirrored_indices(-2, 3, size=1).tolist() == [0, 0, 0, 0, 0]
    assert mirrored_indices(2, 5, size=9).tolist() == [2, 3, 4]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_mirrored_indices_are_repeated_mirroring(size: int) -> None:
    folded = mirror_out(np.arange(size), [(92, 107)])
    np.testing.assert_array_equal(mirrored_indices(-92, size + 107, size), folded)
