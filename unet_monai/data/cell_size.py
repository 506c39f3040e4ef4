"""The typical size of the training cells, and the scale that brings them to the size that suits the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan, nan

import numpy as np
from unet_monai.data.image_io import LabelReader


def median_cell_diameter(
    data: Sequence[Mapping[str, str]],
    *,
    ignore_label: int | None = None,
    border_label: int | None = None,
    spatial_dims: int = 2,
) -> float:
    """Measure the median diameter of the cells in all training labels.

    The diameter of a cell is that of the disc (ball in 3-D) of the same area (volume).

    Args:
        data: training list; ``label`` of each item is read.
        ignore_label: label value of pixels that nobody annotated, which are no cell.
        border_label: in label maps of classes, the value of the pixels where cells touch; see `LabelReader`.
        spatial_dims: 2 or 3.

    Returns:
        The diameter in pixels; nan without any cell.
    """
    reader = LabelReader(spatial_dims=spatial_dims, ignore_label=ignore_label, border_label=border_label)
    sizes: list[int] = []
    for item in data:
        sizes.extend(cell_sizes(reader.get_data(reader.read(item["label"]))[0]))
    return median_diameter(sizes, spatial_dims)


def cell_sizes(label: np.ndarray) -> list[int]:
    """Count the pixels of each cell of a label image.

    Args:
        label: instances (*S), 0 or less is no cell.

    Returns:
        The areas (volumes) in pixels, in the order of the cells' numbers.

    Example:
        >>> cell_sizes(np.array([[0, 7, 7], [0, 3, 7]]))
        [1, 3]
    """
    counts: list[int] = np.unique(label[label > 0], return_counts=True)[1].tolist()
    return counts


def median_diameter(sizes: Sequence[int], spatial_dims: int) -> float:
    """Compute the diameter of the disc (ball) of the median area (volume); nan without any.

    Example:
        >>> round(median_diameter([3, 314, 999], spatial_dims=2), 1)
        20.0
    """
    return disc_diameter(float(np.median(sizes)), spatial_dims) if sizes else nan


def disc_diameter(size: float, spatial_dims: int) -> float:
    """Compute the diameter of the disc (ball) of a given area (volume).

    Example:
        >>> disc_diameter(np.pi * 3**2, spatial_dims=2), disc_diameter(4 / 3 * np.pi * 3**3, spatial_dims=3)
        (6.0, 6.0)
    """
    return float(2 * np.sqrt(size / np.pi)) if spatial_dims == 2 else float(np.cbrt(6 * size / np.pi))


def diameters_disagree(first: float, second: float) -> bool:
    """Tell whether one diameter is at least twice the other: more than a network copes with.

    An unknown one, nan, disagrees with none.

    Example:
        >>> diameters_disagree(20, 40), diameters_disagree(20, 39), diameters_disagree(20, float("nan"))
        (True, False, False)
    """
    return first >= 2 * second or second >= 2 * first


def scale_for_cells(cell_diameter: float, largest_diameter: float | None) -> float:
    """Choose the factor that images are rescaled by, so that the typical cell is no larger than a given diameter.

    Images are never enlarged. Large cells seen small take fewer steps to learn, for a tile then holds more of them,
    and the network's context of fixed width more of each.

    Args:
        cell_diameter: typical diameter of the cells, pixels; nan if there is none.
        largest_diameter: what it may be at most after rescaling, pixels; None for no bound.

    Returns:
        A factor of at most 1.

    Raises:
        ValueError: if `largest_diameter` is not positive.

    Example:
        >>> scale_for_cells(100, largest_diameter=40), scale_for_cells(20, largest_diameter=40)
        (0.4, 1.0)
    """
    if largest_diameter is not None and not largest_diameter > 0:
        raise ValueError(f"largest_diameter must be positive, got {largest_diameter}.")
    if largest_diameter is None or isnan(cell_diameter):
        return 1.0
    return min(1.0, largest_diameter / cell_diameter)
