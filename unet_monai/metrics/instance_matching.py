"""Matching of predicted to true instances: label maps -> overlap table -> matches -> scores.

Every step is a pure function on small arrays; the MONAI metrics built on them are in `cell_tracking.py` and
`average_precision.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from unet_monai.data.image_io import IGNORE_LABEL


class OverlapTable(NamedTuple):
    """How the instances of two label maps overlap: T true instances, P predicted ones, N overlapping pairs.

    Areas are pixel (voxel) counts outside the ignored pixels. Only pairs that share a pixel are stored, so the table
    stays small for maps with thousands of instances.

    Attributes:
        true_ids: (T,) ids of the true instances, ascending.
        pred_ids: (P,) ids of the predicted instances, ascending.
        true_areas: (T,) their areas.
        pred_areas: (P,) their areas; 0 for a prediction that lies wholly on ignored pixels.
        pred_excused: (P,) bool, True where more than half of a predicted instance lies on ignored pixels. Such a
            prediction may still match, but is no false positive when it does not.
        true_index: (N,) index into `true_ids` of each pair.
        pred_index: (N,) index into `pred_ids` of each pair.
        intersections: (N,) pixels that the pair shares, at least 1.
    """

    true_ids: np.ndarray
    pred_ids: np.ndarray
    true_areas: np.ndarray
    pred_areas: np.ndarray
    pred_excused: np.ndarray
    true_index: np.ndarray
    pred_index: np.ndarray
    intersections: np.ndarray


class DetectionCounts(NamedTuple):
    """Detection errors of one image in the sense of the Cell Tracking Challenge."""

    splits: int
    false_negatives: int
    false_positives: int
    references: int


class MatchCounts(NamedTuple):
    """Outcome of a one-to-one matching of predicted and true instances."""

    true_positives: int
    false_positives: int
    false_negatives: int


def overlap_table(y_pred: np.ndarray, y: np.ndarray) -> OverlapTable:
    """Count the pixels that every pair of a true and a predicted instance shares.

    Instances are the values > 0, in any numbering. Pixels where `y` is `IGNORE_LABEL` are taken out of both maps.
    What remains of a prediction that lay there for more than its half is excused from being a false positive, the rule
    for void pixels of Kirillov et al. 2019, section 4.1 (https://arxiv.org/abs/1801.00868): so a perfect prediction
    stays perfect when a part of the truth is masked.

    Args:
        y_pred: predicted instances, integer array (*S), any number of axes.
        y: true instances, integer array (*S).

    Returns:
        The table of overlaps.

    Raises:
        ValueError: if the shapes differ.
        TypeError: if a map does not hold integers.

    Example:
        >>> table = overlap_table(y_pred=np.array([7, 7, 7, 0]), y=np.array([0, 4, 4, 4]))
        >>> table.intersections, table.true_areas, table.pred_areas
        (array([2]), array([3]), array([3]))
    """
    if y_pred.shape != y.shape:
        raise ValueError(f"y_pred must have the shape of y, {y.shape}, got {y_pred.shape}.")
    for name, labels in (("y_pred", y_pred), ("y", y)):
        if not np.issubdtype(labels.dtype, np.integer):
            raise TypeError(f"{name} must be an integer label map, got {labels.dtype}.")
    pred_ids, whole_areas = np.unique(y_pred[y_pred > 0], return_counts=True)
    true_ids, true_areas = np.unique(y[y > 0], return_counts=True)
    kept = y_pred[(y_pred > 0) & (y != IGNORE_LABEL)]
    pred_areas = np.bincount(np.searchsorted(pred_ids, kept), minlength=len(pred_ids))

    both = (y > 0) & (y_pred > 0)
    pairs = np.searchsorted(true_ids, y[both]) * len(pred_ids) + np.searchsorted(pred_ids, y_pred[both])
    pairs, intersections = np.unique(pairs, return_counts=True)
    true_index, pred_index = np.divmod(pairs, max(len(pred_ids), 1))
    pred_excused = 2 * pred_areas < whole_areas
    return OverlapTable(true_ids, pred_ids, true_areas, pred_areas, pred_excused, true_index, pred_index, intersections)


def ctc_matches(table: OverlapTable) -> np.ndarray:
    """Tell which pairs match in the Cell Tracking Challenge: |R and S| > |R| / 2, exactly half is no match.

    A true instance R has at most one match; a prediction S may match several R.

    Args:
        table: the overlaps.

    Returns:
        (N,) bool, one value for each pair of the table.
    """
    return 2 * table.intersections > table.true_areas[table.true_index]


def jaccard_indices(table: OverlapTable) -> np.ndarray:
    """Jaccard index (IoU) |R and S| / |R or S| of every pair of the table.

    Args:
        table: the overlaps.

    Returns:
        (N,) float64 in (0, 1].
    """
    summed_areas = table.true_areas[table.true_index] + table.pred_areas[table.pred_index]
    return table.intersections / (summed_areas - table.intersections)


def seg_scores(table: OverlapTable) -> np.ndarray:
    """Score every true instance with the Jaccard index of its match, 0 without one; their mean is SEG.

    Source: Maska et al. 2014, and the challenge's page (https://celltrackingchallenge.net/evaluation-methodology/).

    Args:
        table: the overlaps.

    Returns:
        (T,) float64 in [0, 1], in the order of `table.true_ids`; empty without true instances.

    Example:
        >>> seg_scores(overlap_table(y_pred=np.array([7, 7, 7, 0, 0]), y=np.array([0, 4, 4, 4, 9])))
        array([0.5, 0. ])
    """
    matched = ctc_matches(table)
    scores = np.zeros(len(table.true_ids))
    scores[table.true_index[matched]] = jaccard_indices(table)[matched]
    return scores


def det_counts(table: OverlapTable) -> DetectionCounts:
    """Count the detection errors that the challenge's DET is made of.

    Source: Matula et al. 2015 (https://doi.org/10.1371/journal.pone.0144959), the vertices of AOGM. A prediction that
    matches n >= 2 true instances needs n - 1 splits; a true instance without a match is a false negative; a prediction
    without one is a false positive, unless it is excused (see `OverlapTable`).

    Args:
        table: the overlaps.

    Returns:
        splits, false_negatives, false_positives, references.

    Example:
        >>> det_counts(overlap_table(y_pred=np.array([7, 7, 7, 0, 5]), y=np.array([1, 1, 2, 3, 0])))
        DetectionCounts(splits=1, false_negatives=1, false_positives=1, references=3)
    """
    matches_of_pred = np.bincount(table.pred_index[ctc_matches(table)], minlength=len(table.pred_ids))
    references = len(table.true_ids)
    return DetectionCounts(
        splits=int(np.maximum(matches_of_pred - 1, 0).sum()),
        false_negatives=int(references - matches_of_pred.sum()),
        false_positives=int(((matches_of_pred == 0) & ~table.pred_excused).sum()),
        references=references,
    )


def match_counts(table: OverlapTable, iou_threshold: float) -> MatchCounts:
    """Count hits and errors when each instance may match at most one of the other map, at an IoU >= `iou_threshold`.

    Above 0.5 an instance has at most one candidate. At 0.5 it can have two, its exact halves, and below it more: then
    as many pairs as possible are matched and, among the matchings of that size, those with the fewest false positives
    count. True instances without a match are false negatives; predictions without one are false positives, unless they
    are excused (see `OverlapTable`).

    Args:
        table: the overlaps.
        iou_threshold: least Jaccard index of a match, in (0, 1].

    Returns:
        true_positives, false_positives, false_negatives.

    Raises:
        ValueError: if `iou_threshold` is out of its range.

    Example:
        >>> match_counts(overlap_table(y_pred=np.array([8, 8, 9, 9]), y=np.array([1, 1, 1, 1])), iou_threshold=0.5)
        MatchCounts(true_positives=1, false_positives=1, false_negatives=0)
    """
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold must be in (0, 1], got {iou_threshold}.")
    candidates = jaccard_indices(table) >= iou_threshold
    matches = _matching_size(table, candidates)
    # Augmenting paths turn a largest matching without the excused into one of all, and no prediction loses its match.
    matches_not_excused = _matching_size(table, candidates & ~table.pred_excused[table.pred_index])
    return MatchCounts(
        true_positives=matches,
        false_positives=int((~table.pred_excused).sum()) - matches_not_excused,
        false_negatives=len(table.true_ids) - matches,
    )


def _matching_size(table: OverlapTable, candidates: np.ndarray) -> int:
    """Count the pairs of a largest one-to-one matching made of the candidates, (N,) bool."""
    pairs = (table.true_index[candidates], table.pred_index[candidates])
    shape = (len(table.true_ids), len(table.pred_ids))
    graph = csr_array((np.ones(len(pairs[0]), dtype=bool), pairs), shape=shape)
    return int((maximum_bipartite_matching(graph) >= 0).sum())
