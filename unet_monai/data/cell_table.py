"""What can be measured on each cell, as a table."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.measure import regionprops_table

_AXES = ("slice", "row", "column")
_COLOURS = ("red", "green", "blue")
_ELLIPSE = {"major_axis": "axis_major_length", "minor_axis": "axis_minor_length", "eccentricity": "eccentricity"}


def cell_table(instances: np.ndarray, image: np.ndarray, probability: np.ndarray) -> dict[str, np.ndarray]:
    """Measure every instance by scikit-image's `regionprops_table`, in pixels (voxels) and the image's own grey values.

    The columns, in 2-D:

    - `label`: the instance's value in the label map;
    - `area`: number of its pixels;
    - `centroid_row`, `centroid_column`: mean of its pixels' indices, which count from 0;
    - `first_row`, `first_column`, `end_row`, `end_column`: its box; the last row is `end_row` - 1;
    - `mean_intensity`, or `mean_red`, `mean_green`, `mean_blue`: mean of the image over its pixels;
    - `equivalent_diameter`: of the disc (ball) of the same area;
    - `major_axis`, `minor_axis`, `eccentricity`: of the ellipse with the same second moments;
    - `confidence`: mean foreground probability of its pixels.

    Volumes have `centroid_slice`, `first_slice` and `end_slice` too, and no ellipse.

    Args:
        instances: integers (H, W) or (D, H, W), 0 = background.
        image: grey (H, W) or RGB (H, W, 3); of a volume (D, H, W) or (D, H, W, 3).
        probability: foreground probability in [0, 1], of the shape of `instances`.

    Returns:
        The columns, one value for each instance, in the order of their ids.

    Raises:
        ValueError: if the shapes do not fit each other.

    Example:
        >>> table = cell_table(np.array([[0, 5, 5]]), np.array([[9, 10, 20]]), np.array([[0.1, 0.75, 1.0]]))
        >>> {name: table[name].tolist() for name in ("label", "area", "centroid_column", "mean_intensity")}
        {'label': [5], 'area': [2], 'centroid_column': [1.5], 'mean_intensity': [15.0]}
        >>> table["confidence"].tolist()
        [0.875]
    """
    if instances.ndim not in (2, 3):
        raise ValueError(f"instances must have the shape (H, W) or (D, H, W), got {instances.shape}.")
    if image.shape not in (instances.shape, (*instances.shape, 3)):
        raise ValueError(f"image must have the shape of instances, {instances.shape}, or RGB, got {image.shape}.")
    if probability.shape != instances.shape:
        raise ValueError(f"probability must have the shape of instances, {instances.shape}, got {probability.shape}.")
    ellipse = _ELLIPSE if instances.ndim == 2 else {}
    properties = ("label", "area", "centroid", "bbox", "equivalent_diameter_area", *ellipse.values())
    measured = regionprops_table(instances, properties=properties)
    ids, axes = measured["label"], _AXES[-instances.ndim :]
    channels = {"mean_intensity": image}
    if image.ndim > instances.ndim:
        channels = {f"mean_{colour}": image[..., i] for i, colour in enumerate(_COLOURS)}
    table = {"label": ids, "area": measured["area"].astype(np.int64)}
    table |= {f"centroid_{axis}": measured[f"centroid-{i}"] for i, axis in enumerate(axes)}
    table |= {f"first_{axis}": measured[f"bbox-{i}"] for i, axis in enumerate(axes)}
    table |= {f"end_{axis}": measured[f"bbox-{i + len(axes)}"] for i, axis in enumerate(axes)}
    table |= {name: _means(channel, instances, ids) for name, channel in channels.items()}
    table["equivalent_diameter"] = measured["equivalent_diameter_area"]
    table |= {name: measured[key] for name, key in ellipse.items()}
    table["confidence"] = _means(probability, instances, ids)
    return table


def _means(values: np.ndarray, instances: np.ndarray, ids: np.ndarray) -> np.ndarray:
    return np.asarray(ndimage.mean(values, instances, ids))  # one channel at a time needs the least memory
