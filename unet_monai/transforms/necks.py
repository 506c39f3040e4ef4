"""Parting roundish cells that came out as one, where the joint is narrower than they are."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

# Spread in pixels that smooths the distances: the steps of an outline drawn in pixels are no necks.
SMOOTHING = 1.0


def split_at_necks(components: np.ndarray, depth: float) -> np.ndarray:
    """Split components into lobes, where the neck between them is narrower than each of them by ``depth``.

    The distance of each pixel to the outline has a peak in every lobe; on the way from one to the other it falls to
    half the width of the neck. Peaks from which it falls by at least ``depth`` to any higher one are seeds of a
    watershed of the distance (Meyer 1994, by scikit-image), which parts the component along the neck. Lobes of nuclei
    are nuclei that the network saw as one; long or branched cells have necks of their own.

    Args:
        components: integer array (*S), 0 background.
        depth: least difference of half widths, lobe to neck, in pixels (voxels), > 0.

    Returns:
        int32 array (*S), 0 background; instances 1, 2, ... in the order of the components.

    Example:
        >>> two_lobes = np.zeros((7, 15), int)
        >>> two_lobes[:, :7] = two_lobes[:, 8:] = 1
        >>> two_lobes[3, 7] = 1
        >>> split_at_necks(two_lobes, depth=1)[3]
        array([1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2], dtype=int32)
    """
    inside = components > 0
    # The edge of the image is no outline: a cell that it cuts goes on behind it.
    distance = ndimage.distance_transform_edt(inside)
    distance = ndimage.gaussian_filter(distance, SMOOTHING) * inside
    # Peaks cut off by `depth` and filled up to the saddles between them; h_maxima would keep all of equal height apart.
    neighbours = np.ones((3,) * components.ndim)
    peaks = local_maxima(reconstruction(distance - depth, distance, footprint=neighbours)) & inside
    seeds, _ = ndimage.label(peaks, neighbours)
    lobes = watershed(-distance, seeds, mask=inside)
    # Seeds of two components that touch at a corner may be one, and a thin component has none.
    pairs = components[inside].astype(np.int64) * (lobes.max() + 1) + lobes[inside]
    split = np.zeros(components.shape, np.int32)
    split[inside] = 1 + np.unique(pairs, return_inverse=True)[1]
    return split
