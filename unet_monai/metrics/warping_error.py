"""Warping error: what remains of the disagreement once the truth may move its membranes but not its topology.

Source: Jain et al. 2010, "Boundary learning by optimization with topological constraints"
(https://doi.org/10.1109/CVPR.2010.5539950). The MONAI metric built on it is in `isbi_2012.py`.
"""

from __future__ import annotations

from functools import cache
from heapq import heapify, heappop, heappush

import numpy as np
from scipy import ndimage

# The eight neighbours in array order: the one opposite to number k is number 7 - k.
NEIGHBOURS = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if (row, column) != (0, 0)]


@cache
def simple_points() -> np.ndarray:
    """Tell for every neighbourhood whether its centre can be flipped without a change of topology.

    Cells are 4-connected and membranes 8-connected. The centre is simple if one 4-connected piece of cell among its
    eight neighbours is 4-connected to it, and one 8-connected piece of membrane 8-connected to it; its own value plays
    no part. Then to flip it neither makes, removes, splits nor joins a cell, nor a piece of membrane.

    Returns:
        (256,) bool; bit k of the index says whether neighbour number k, in array order, is cell.

    Example:
        >>> simple_points()[[0b00000000, 0b00000010, 0b01000010, 0b11111111]]
        array([False,  True, False, False])
    """
    cells = np.zeros((256, 3, 3), bool)
    for k, (row, column) in enumerate(NEIGHBOURS):
        cells[:, 1 + row, 1 + column] = np.arange(256) >> k & 1
    membranes = ~cells
    membranes[:, 1, 1] = False
    beside, around = ndimage.generate_binary_structure(2, 1), ndimage.generate_binary_structure(2, 2)
    touching_cells = [np.unique(ndimage.label(patch, beside)[0][beside & patch]).size for patch in cells]
    touching_membranes = [ndimage.label(patch, around)[1] for patch in membranes]
    return (np.array(touching_cells) == 1) & (np.array(touching_membranes) == 1)


def _neighbourhood_codes(padded: np.ndarray) -> np.ndarray:
    # The codes of the padding itself are never asked for: it has wrong neighbours, but is never flipped.
    codes = np.zeros(padded.shape, np.uint8)
    for k, (row, column) in enumerate(NEIGHBOURS):
        codes |= np.roll(padded, (-row, -column), (0, 1)).astype(np.uint8) << k
    return codes


def relax_truth(y: np.ndarray, y_pred: np.ndarray, threshold: float) -> np.ndarray:
    """Move the membranes of the truth towards those of a proposal without a change of topology.

    Pixels that differ from the proposal, `y_pred` > `threshold`, and are simple (`simple_points`) are flipped one at a
    time until none is left: always the one whose probability is farthest from the threshold, on a tie the first in
    array order. Nothing limits how far a membrane may move. Outside the image all is membrane.

    Args:
        y: True in cells, bool array (H, W).
        y_pred: probability of cell, floating point array (H, W).
        threshold: probability above which a pixel is cell.

    Returns:
        The relaxed truth, bool array (H, W).

    Raises:
        ValueError: if `y` is not 2-D or the shapes differ.

    Example:
        >>> thick = np.array([[1, 1, 0, 0, 0, 1, 1]] * 3, bool)
        >>> relax_truth(thick, np.array([[1, 1, 1, 1, 1, 0, 1]] * 3) * 0.9, threshold=0.5)[0].astype(int)
        array([1, 1, 1, 1, 1, 0, 1])
        >>> relax_truth(thick, np.full((3, 7), 0.9), threshold=0.5).sum(axis=0) < 3
        array([False, False, False, False,  True, False, False])
    """
    if y.ndim != 2:
        raise ValueError(f"y must have two axes, (H, W), got shape {y.shape}.")
    if y_pred.shape != y.shape:
        raise ValueError(f"y_pred must have the shape of y, {y.shape}, got {y_pred.shape}.")
    relaxed, target = np.pad(y, 1), np.pad(y_pred > threshold, 1)
    urgency = np.pad(-np.abs(y_pred - threshold), 1).ravel().tolist()
    codes = _neighbourhood_codes(relaxed).ravel().tolist()
    differs = (relaxed != target).ravel().tolist()
    simple = simple_points().tolist()
    # For every neighbour its distance in the flat array, and the bit of its code that stands for the flipped pixel.
    updates = [(row * relaxed.shape[1] + column, 1 << 7 - k) for k, (row, column) in enumerate(NEIGHBOURS)]

    waiting = [(urgency[i], i) for i, code in enumerate(codes) if differs[i] and simple[code]]
    heapify(waiting)
    while waiting:
        _, pixel = heappop(waiting)
        # It may have been flipped already, or be simple no longer; it is queued again if it becomes so.
        if not (differs[pixel] and simple[codes[pixel]]):
            continue
        differs[pixel] = False
        for distance, bit in updates:
            neighbour = pixel + distance
            codes[neighbour] ^= bit
            if differs[neighbour] and simple[codes[neighbour]]:
                heappush(waiting, (urgency[neighbour], neighbour))
    return (target ^ np.reshape(differs, target.shape))[1:-1, 1:-1]


def warping_error(y: np.ndarray, y_pred: np.ndarray, threshold: float) -> float:
    """Share of the pixels on which the relaxed truth still differs from the proposal: splits, merges, lost cells.

    Args:
        y: True in cells, bool array (H, W).
        y_pred: probability of cell, floating point array (H, W).
        threshold: probability above which a pixel is cell.

    Returns:
        Differing pixels / pixels, in [0, 1].

    Raises:
        ValueError: if `y` is not 2-D or the shapes differ.

    Example:
        >>> two_cells = np.array([[1, 1, 0, 0, 0, 1, 1]] * 3, bool)
        >>> warping_error(two_cells, np.full((3, 7), 0.9), threshold=0.5) == 3 / 21
        True
    """
    return float(np.mean(relax_truth(y, y_pred, threshold) != (y_pred > threshold)))
