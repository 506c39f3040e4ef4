"""Cells as polygons, in the region of an image that a client such as QuPath asks for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from unet_monai.data.imagej_rois import rois_from_instances


def region_slices(
    location: Sequence[int] | None, size: Sequence[int] | None, image_size: Sequence[int]
) -> tuple[slice, slice]:
    """Return the slices (x, y) of a region of an image.

    Args:
        location: the region's corner (x, y) next to the image's origin, in pixels.
        size: its (width, height) in pixels; (0, 0) at location (0, 0) is the whole image, as QuPath asks for it.
        image_size: the image's (width, height).

    Raises:
        ValueError: if there is no such region in the image.

    Example:
        >>> region_slices((10, 20), (30, 40), image_size=(100, 60))
        (slice(10, 40, None), slice(20, 60, None))
    """
    if location is None or len(location) != 2:
        raise ValueError(f"location must be two numbers, x and y, got {location}.")
    if size is None or len(size) != 2:
        raise ValueError(f"size must be two numbers, width and height, got {size}.")
    (x, y), (width, height) = location, size
    if (x, y, width, height) == (0, 0, 0, 0):
        width, height = image_size
    if width < 1 or height < 1:
        raise ValueError(f"size must be at least 1 x 1, or 0 x 0 at 0, 0 for all, got {width} x {height} at {x}, {y}.")
    if min(x, y) < 0 or x + width > image_size[0] or y + height > image_size[1]:
        whole = f"{image_size[0]} x {image_size[1]}"
        raise ValueError(f"region must lie in the image of {whole}, got {width} x {height} at {x}, {y}.")
    return slice(x, x + width), slice(y, y + height)


def cell_polygons(
    instances: np.ndarray, *, location: Sequence[int] = (0, 0), min_area: int = 0
) -> list[list[list[int]]]:
    """Outline every cell along the edges of its pixels, so that touching cells share an edge and do not overlap.

    A pixel of row r and column c is the square from (c, r) to (c + 1, r + 1), as QuPath has it. Holes in a cell are
    filled, since a polygon has none; of a cell in several pieces the largest counts (diagonal neighbours are two).

    Args:
        instances: integers (H, W), 0 = background.
        location: (x, y) of their first pixel in the whole image.
        min_area: cells of fewer pixels are left out.

    Returns:
        A polygon for each cell in the order of their ids: its corners (x, y) in the whole image, the first one again
        at the end.

    Raises:
        ValueError: if `instances` does not have two axes.

    Example:
        >>> cell_polygons(np.array([[0, 1, 1], [0, 1, 1]]), location=(100, 200))
        [[[101, 202], [101, 200], [103, 200], [103, 202], [101, 202]]]
    """
    small = np.bincount(instances.ravel()) < min_area
    polygons = []
    for roi in rois_from_instances(np.where(small[instances], 0, instances)):
        outer = max(roi.coordinates(multi=True), key=_enclosed_area)
        corners = (outer.astype(np.int64) + np.asarray(location)).tolist()
        polygons.append(corners if corners[0] == corners[-1] else [*corners, corners[0]])
    return polygons


def _enclosed_area(outline: np.ndarray) -> float:
    """Return the area by the shoelace formula, |sum of x_i y_(i+1) - x_(i+1) y_i| / 2."""
    x, y = outline.T.astype(np.float64)
    return abs(float(x @ np.roll(y, -1) - np.roll(x, -1) @ y)) / 2
