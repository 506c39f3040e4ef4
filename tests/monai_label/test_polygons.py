"""The polygons that QuPath gets, of instances drawn by hand."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest
from skimage.draw import polygon2mask
from unet_monai.data import draw_cells

from tests.bundle.conftest import REPOSITORY


@pytest.fixture
def polygons(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(REPOSITORY / "monai_label" / "app"))
    return importlib.import_module("polygons")


def filled(corners: list[list[int]], shape: tuple[int, int]) -> np.ndarray:
    """Return the pixels whose centres a polygon of corners (x, y) encloses, by scikit-image."""
    return polygon2mask(shape, np.array(corners)[:, ::-1] - 0.5)


def test_a_square_has_four_corners_and_the_first_again(polygons) -> None:
    instances = np.zeros((6, 8), int)
    instances[1:4, 2:7] = 1
    (corners,) = polygons.cell_polygons(instances)
    assert corners[0] == corners[-1]
    assert sorted(corners[:-1]) == [[2, 1], [2, 4], [7, 1], [7, 4]]


def test_touching_cells_stay_two_that_share_an_edge(polygons) -> None:
    instances = np.array([[0, 0, 0, 0, 0], [1, 1, 2, 2, 2], [1, 1, 2, 2, 2]])
    first, second = polygons.cell_polygons(instances)
    assert sorted(first[:-1]) == [[0, 1], [0, 3], [2, 1], [2, 3]]
    assert sorted(second[:-1]) == [[2, 1], [2, 3], [5, 1], [5, 3]]


def test_a_cell_at_the_border_reaches_the_edge_of_the_image(polygons) -> None:
    instances = np.array([[0, 0, 0], [0, 0, 3], [0, 0, 3]])
    (corners,) = polygons.cell_polygons(instances)
    assert sorted(corners[:-1]) == [[2, 1], [2, 3], [3, 1], [3, 3]]


def test_a_cell_of_one_pixel_is_that_pixel(polygons) -> None:
    (corners,) = polygons.cell_polygons(np.array([[0, 0], [0, 0], [0, 1]]), location=(100, 200))
    assert sorted(corners[:-1]) == [[101, 202], [101, 203], [102, 202], [102, 203]]
    assert corners[0] == corners[-1]


def test_a_region_without_cells_has_no_polygons(polygons) -> None:
    assert polygons.cell_polygons(np.zeros((3, 4), np.uint16)) == []


def test_holes_are_filled_and_of_pieces_the_largest_counts(polygons) -> None:
    ring = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 0, 0], [1, 1, 1, 0, 1]])
    (corners,) = polygons.cell_polygons(ring)
    assert corners[0] == corners[-1]
    assert sorted(corners[:-1]) == [[0, 0], [0, 3], [3, 0], [3, 3]]
    np.testing.assert_array_equal(polygons.cell_polygons(ring[::-1, ::-1]), [[[x + 2, y] for x, y in corners]])


def test_cells_of_fewer_pixels_are_left_out(polygons) -> None:
    instances = np.array([[1, 1, 0, 5, 5], [0, 0, 0, 5, 0]])
    assert [len(polygons.cell_polygons(instances, min_area=area)) for area in (0, 2, 3, 4)] == [2, 2, 1, 0]
    (corners,) = polygons.cell_polygons(instances, min_area=3)
    assert [3, 0] in corners


def test_polygons_hold_exactly_the_pixels_of_the_cells(polygons) -> None:
    instances = draw_cells(5, (96, 120))[1]
    found = polygons.cell_polygons(instances, location=(7, 11))
    ids = np.unique(instances)[1:]
    assert len(found) == len(ids) > 3, "test invalid"
    for i, corners in zip(ids, found, strict=True):
        in_array = [[x - 7, y - 11] for x, y in corners]
        np.testing.assert_array_equal(filled(in_array, instances.shape), instances == i)


def test_instances_have_two_axes(polygons) -> None:
    with pytest.raises(ValueError, match=r"instances must have two axes, \(H, W\), got shape \(1, 2, 3\)\."):
        polygons.cell_polygons(np.ones((1, 2, 3), int))


def test_a_region_is_cut_out_by_columns_and_rows(polygons) -> None:
    assert polygons.region_slices([10, 20], [30, 40], (40, 60)) == (slice(10, 40), slice(20, 60))
    assert polygons.region_slices([39, 59], [1, 1], (40, 60)) == (slice(39, 40), slice(59, 60))


def test_no_size_at_no_location_is_the_whole_image(polygons) -> None:
    assert polygons.region_slices([0, 0], [0, 0], (40, 60)) == (slice(0, 40), slice(0, 60))


@pytest.mark.parametrize("region", [(0, 0, 41, 60), (0, 0, 40, 61), (-1, 0, 5, 5), (0, -1, 5, 5), (40, 60, 1, 1)])
def test_a_region_lies_in_the_image(polygons, region: tuple[int, int, int, int]) -> None:
    x, y, width, height = region
    with pytest.raises(
        ValueError, match=rf"region must lie in the image of 40 x 60, got {width} x {height} at {x}, {y}\."
    ):
        polygons.region_slices([x, y], [width, height], (40, 60))


@pytest.mark.parametrize("region", [(0, 0, 0, 5), (0, 0, 5, 0), (3, 0, 0, 0), (0, 0, -2, 5)])
def test_a_region_has_a_size(polygons, region: tuple[int, int, int, int]) -> None:
    x, y, width, height = region
    with pytest.raises(ValueError, match=rf"size must be at least 1 x 1, .*, got {width} x {height} at {x}, {y}\."):
        polygons.region_slices([x, y], [width, height], (40, 60))


@pytest.mark.parametrize("pair", [None, [1], [1, 2, 3]])
def test_location_and_size_are_pairs(polygons, pair: list[int] | None) -> None:
    got = str(pair).replace("[", r"\[").replace("]", r"\]")
    with pytest.raises(ValueError, match=f"location must be two numbers, x and y, got {got}."):
        polygons.region_slices(pair, [1, 1], (40, 60))
    with pytest.raises(ValueError, match=f"size must be two numbers, width and height, got {got}."):
        polygons.region_slices([0, 0], pair, (40, 60))
