"""How well the segments between membranes match the true cells: thinning -> table -> Rand and information scores.

Definitions: Arganda-Carreras et al. 2015, "Crowdsourcing the creation of image segmentation algorithms for
connectomics" (https://doi.org/10.3389/fnana.2015.00142). Every step is a pure function on small arrays; the MONAI
metrics built on them are in `isbi_2012.py`. `skimage.metrics.adapted_rand_error` is another measure: it counts pairs
of different pixels, n (n - 1), leaves out the pixels of the proposal without a segment, and returns as precision what
is called split here, as recall what is called merge.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage, special
from skimage.metrics import contingency_table
from skimage.segmentation import watershed


class ForegroundTable(NamedTuple):
    """How a proposal cuts the true foreground: T true cells, P segments, N overlapping pairs, all in pixels.

    Pixels outside the true cells are left out: nobody is told on which side of a membrane its pixels belong.

    Attributes:
        true_areas: (T,) areas of the true cells; their sum is the foreground.
        segment_areas: (P,) areas of the segments on the foreground.
        overlaps: (N,) areas that a true cell and a segment share.
        singletons: pixels of the foreground that the proposal gives to no segment; each is a segment of its own.
    """

    true_areas: np.ndarray
    segment_areas: np.ndarray
    overlaps: np.ndarray
    singletons: int


class SegmentationScores(NamedTuple):
    """Scores in [0, 1], best 1; `split` falls with every cell cut in two, `merge` with every two cells joined."""

    f_score: float
    split: float
    merge: float


def thin_borders(cells: np.ndarray) -> np.ndarray:
    """Grow the 4-connected cells into the membrane until only lines are left between them.

    This is the watershed of the membrane mask with 4-connected basins, which the challenge applies to every proposal
    so that thick membranes cost nothing. No two basins are 4-connected, and every pixel of a line has a basin beside
    it: lines are one pixel wide, but where three or more meet there may be a 2 x 2 block. A basin may leave a few
    pixels behind a line; they keep its number. Where the middle falls between two pixels, the order in which
    scikit-image visits them decides; it is always the same.

    A mask without cells is flat: as a watershed it has one minimum, the whole of it, and is one segment. It is scored
    like a proposal that merges all cells.

    Args:
        cells: bool array (H, W), False on membranes.

    Returns:
        int32 array (H, W), 0 on lines, segments 1, 2, ... in the order of their first cell pixel.

    Raises:
        ValueError: if `cells` is not 2-D.

    Example:
        >>> thin_borders(np.array([[1, 0, 0, 0, 0, 0, 1, 1]], bool))
        array([[1, 1, 1, 0, 2, 2, 2, 2]], dtype=int32)
    """
    if cells.ndim != 2:
        raise ValueError(f"cells must have two axes, (H, W), got shape {cells.shape}.")
    markers, count = ndimage.label(cells)
    if count == 0:
        return np.ones(cells.shape, np.int32)
    # Markers of our own: scikit-image finds no minimum where all pixels are cells.
    basins: np.ndarray = watershed((~cells).astype(np.uint8), markers, connectivity=1, watershed_line=True)
    return basins


def foreground_table(y_pred: np.ndarray, y: np.ndarray) -> ForegroundTable:
    """Count how the segments of a proposal overlap the true cells.

    Args:
        y_pred: segments, integer array (*S), 0 where there is none.
        y: true cells, integer array (*S), 0 on membranes.

    Returns:
        The table of overlaps on the true foreground.

    Raises:
        ValueError: if the shapes differ, a label is negative, or no pixel of `y` is above 0.
        TypeError: if a map does not hold integers.

    Example:
        >>> foreground_table(y_pred=np.array([1, 1, 0, 2, 2, 2]), y=np.array([1, 1, 1, 1, 0, 2]))
        ForegroundTable(true_areas=array([4, 1]), segment_areas=array([2, 2]), overlaps=array([2, 1, 1]), singletons=1)
    """
    if y_pred.shape != y.shape:
        raise ValueError(f"y_pred must have the shape of y, {y.shape}, got {y_pred.shape}.")
    for name, labels in (("y_pred", y_pred), ("y", y)):
        if not np.issubdtype(labels.dtype, np.integer):
            raise TypeError(f"{name} must be an integer label map, got {labels.dtype}.")
        if labels.min(initial=0) < 0:
            raise ValueError(f"{name} must hold no label below 0, got {labels.min()}.")
    foreground = y > 0
    if not foreground.any():
        raise ValueError(f"y must hold a label above 0, got none in shape {y.shape}.")
    counts = contingency_table(y[foreground], y_pred[foreground]).astype(np.int64)
    of_segments = counts[:, 1:]
    true_areas, segment_areas = (np.asarray(m.sum(axis)).ravel() for m, axis in ((counts, 1), (of_segments, 0)))
    return ForegroundTable(
        true_areas=true_areas[true_areas > 0],
        segment_areas=segment_areas[segment_areas > 0],
        overlaps=of_segments.data,
        singletons=int(true_areas.sum() - segment_areas.sum()),
    )


def rand_scores(table: ForegroundTable) -> SegmentationScores:
    """Score a proposal by pairs of pixels: V^Rand, the foreground-restricted Rand F-score, and its two parts.

    With p_ij the part of the foreground in true cell i and segment j, t_i = sum_j p_ij, s_j = sum_i p_ij, and every
    pixel without a segment a segment of its own: split = sum p_ij^2 / sum t_i^2, the chance that two pixels of one
    true cell are in one segment; merge = sum p_ij^2 / sum s_j^2, the chance that two pixels of one segment are in one
    true cell; f_score = 2 sum p_ij^2 / (sum t_i^2 + sum s_j^2), their harmonic mean. A pixel may be drawn twice.

    Args:
        table: the overlaps.

    Returns:
        f_score, split, merge.

    Example:
        >>> rand_scores(foreground_table(y_pred=np.array([1, 1, 2, 2]), y=np.array([1, 1, 1, 1])))
        SegmentationScores(f_score=0.666..., split=0.5, merge=1.0)
    """
    n = table.true_areas.sum()
    singletons = table.singletons / n**2
    together = float(np.sum((table.overlaps / n) ** 2) + singletons)
    in_truth = float(np.sum((table.true_areas / n) ** 2))
    in_proposal = float(np.sum((table.segment_areas / n) ** 2) + singletons)
    return SegmentationScores(2 * together / (in_truth + in_proposal), together / in_truth, together / in_proposal)


def information_scores(table: ForegroundTable) -> SegmentationScores:
    """Score a proposal by its information on the truth: V^Info, and its two parts.

    With I the mutual information of the segments S and the true cells T, and H the entropy, on the table of
    `rand_scores`: split = I / H(S), merge = I / H(T), f_score = 2 I / (H(S) + H(T)), their harmonic mean. A part
    without entropy scores 1: one segment splits nothing, and where there is one true cell none are merged.

    Args:
        table: the overlaps.

    Returns:
        f_score, split, merge.

    Example:
        >>> scores = information_scores(foreground_table(y_pred=np.array([1, 1, 2, 3]), y=np.array([1, 1, 2, 2])))
        >>> [round(score, 3) for score in scores]
        [0.8, 0.667, 1.0]
    """
    n = table.true_areas.sum()
    singletons = table.singletons * special.entr(1 / n)
    of_truth = float(special.entr(table.true_areas / n).sum())
    of_proposal = float(special.entr(table.segment_areas / n).sum() + singletons)
    joint = float(special.entr(table.overlaps / n).sum() + singletons)
    mutual = of_truth + of_proposal - joint
    entropies = (of_truth + of_proposal) / 2, of_proposal, of_truth
    return SegmentationScores(*(mutual / entropy if entropy > 0 else 1.0 for entropy in entropies))
