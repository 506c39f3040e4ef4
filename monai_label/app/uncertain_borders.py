"""How sure a network is of where the cells end: the measure by which the next image to annotate is chosen."""

from __future__ import annotations

import numpy as np
from skimage.segmentation import find_boundaries


def border_uncertainty(probabilities: np.ndarray, instances: np.ndarray) -> float:
    """Measure how unsure a network is at the borders of the cells it found: 0 sure, towards 1 undecided.

    At each pixel the two likeliest classes are compared, `1 - (p_first - p_second)`, as in margin sampling (Scheffer et
    al. 2001, https://doi.org/10.1007/3-540-44816-0_31); the mean is taken over the borders only: the pixels with a
    pixel of another cell, or of background, beside them (diagonals count). So neither a large background nor many cells
    make an image win, only borders in doubt. Without a border, where no cell was found, it is 0.

    Args:
        probabilities: of the classes, float (C, *S) with C > 1, sum 1 over the classes.
        instances: the cells found, integer (*S): 0 background, 1, 2, ... the cells.

    Returns:
        The mean over the border pixels, in [0, 1].

    Raises:
        ValueError: if the shapes do not fit, or there is one class only.

    Example:
        >>> at_borders = np.array([[0.0, 0.4, 0.7, 1.0]])
        >>> round(border_uncertainty(np.stack([1 - at_borders, at_borders]), np.array([[0, 0, 1, 1]])), 3)
        0.7
    """
    if len(probabilities) < 2 or probabilities.shape[1:] != instances.shape:
        raise ValueError(
            f"probabilities must be (C, *S) with C > 1 for instances of {instances.shape}, got {probabilities.shape}."
        )
    border = find_boundaries(instances, connectivity=instances.ndim, mode="thick")
    if not border.any():
        return 0.0
    second, first = np.sort(probabilities[:, border].astype(np.float64), axis=0)[-2:]
    return float(1 - (first - second).mean())
