from __future__ import annotations

import numpy as np
import pytest
from unet_monai import segment

from tests.large_images.images import make_finding_network

KNOBS = {"threshold": 0.5, "min_size": 1}


def test_instances_are_numbered_along_the_rows() -> None:
    picture = np.zeros((24, 40))
    corners = [(2, 30), (4, 6), (9, 16), (9, 33), (15, 3)]
    for row, column in corners:
        picture[row : row + 4, column : column + 4] = 1
    cells = segment(picture, make_finding_network(), **KNOBS)
    assert cells.shape == picture.shape
    assert [cells[row + 1, column + 1] for row, column in corners] == [1, 2, 3, 4, 5]
    assert cells.max() == 5


def test_instances_of_a_volume_are_numbered_slice_by_slice() -> None:
    volume = np.zeros((12, 16, 20))
    corners = [(1, 9, 2), (2, 2, 12), (7, 2, 12), (7, 10, 2)]
    for corner in corners:
        volume[tuple(slice(start, start + 4) for start in corner)] = 1
    cells = segment(volume, make_finding_network(3), **KNOBS)
    assert [cells[tuple(start + 1 for start in corner)] for corner in corners] == [1, 2, 3, 4]


@pytest.mark.parametrize("factor", [2.0**100, 2.0**-100])
def test_the_unit_of_the_pixels_does_not_count(factor: float) -> None:
    picture = np.random.default_rng(0).random((40, 50))
    expected = segment(picture, make_finding_network(), **KNOBS)
    assert expected.max() > 5, "test invalid"
    np.testing.assert_array_equal(segment(picture * factor, make_finding_network(), **KNOBS), expected)
