from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from unet_monai.large_images.block_grid import Block, Selection, block_grid, largest_block

from tests.drawings import draw


@pytest.mark.parametrize("size", [(1,), (16,), (33, 20), (20, 9, 17)])
def test_blocks_cover_every_pixel_once(size: tuple[int, ...]) -> None:
    covered = np.zeros(size, int)
    for block in block_grid(size, [16] * len(size)).values():
        assert all(start % 16 == 0 for start in block.start)
        covered[block.slices] += 1
    assert np.all(covered == 1)


def test_a_window_is_cut_at_the_edge_and_knows_its_block() -> None:
    block = Block((16, 0), (32, 16))
    window = block.widened(5, 3, (33, 40))
    assert window == Block((11, 0), (33, 19))
    image = np.arange(33 * 40).reshape(33, 40)
    np.testing.assert_array_equal(image[window.slices][block.within(window)], image[block.slices])


def test_the_largest_block_fits_the_budget_with_its_halo() -> None:
    side = largest_block(10**6, bytes_per_pixel=10, halo=20, chunk=16, spatial_dims=2)
    assert side % 16 == 0
    assert 10 * (side + 40) ** 2 <= 10**6 < 10 * (side + 16 + 40) ** 2
    with pytest.raises(ValueError, match=r"memory_budget must be at least 31360 bytes, for one chunk of 16 px"):
        largest_block(31359, bytes_per_pixel=10, halo=20, chunk=16, spatial_dims=2)
    assert largest_block(31360, bytes_per_pixel=10, halo=20, chunk=16, spatial_dims=2) == 16


class TestSelection:
    def test_region_and_mask_together(self) -> None:
        """The mask's pixels are 2 x 3 pixels of the image."""
        mask = draw("""
            1.
            .1
        """)
        expected = draw("""
            ......
            .11...
            ...111
            ......
        """)
        selection = Selection((4, 6), roi=[(1, 3), (1, 6)], mask=mask > 0)
        np.testing.assert_array_equal(selection.pixels(Block((0, 0), (4, 6))), expected > 0)
        np.testing.assert_array_equal(selection.pixels(Block((1, 2), (3, 5))), expected[1:3, 2:5] > 0)

    def test_a_mask_of_another_ratio_is_read_below_the_pixels_centres(self) -> None:
        selection = Selection((5,), mask=np.array([True, False]))
        assert selection.pixels(Block((0,), (5,))).tolist() == [True, True, False, False, False]

    @pytest.mark.parametrize(
        "roi", [[(0, 3)], [(0, 3), (2, 2)], [(0, 5), (0, 1)], [(-1, 2), (0, 1)], [(0, 1.5), (0, 1)], [0, 3], "abc", 5]
    )
    def test_a_region_outside_is_refused(self, roi: Any) -> None:
        with pytest.raises(ValueError, match=r"roi must be start < stop for each axis of \(4, 6\), got"):
            Selection((4, 6), roi=roi)

    def test_a_mask_of_other_axes_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"mask must have 2 axes, got shape \(3,\)"):
            Selection((4, 6), mask=np.ones(3, bool))
