"""SEG and DET straight from their definitions, over sets of pixels: slow and obvious."""

from __future__ import annotations

import numpy as np

IGNORED = -1


def pixel_sets(label: np.ndarray, ignored: np.ndarray) -> dict[int, set[tuple[int, ...]]]:
    """Return the pixels of every instance that are not ignored."""
    ids = {int(value) for value in label.ravel() if value > 0}
    return {i: {tuple(p) for p in np.argwhere((label == i) & ~ignored).tolist()} for i in ids}


def seg_reference(y_pred: np.ndarray, y: np.ndarray) -> list[float]:
    """Return the Jaccard index of the match of every true instance, in ascending order of its id."""
    predicted, true = pixel_sets(y_pred, y == IGNORED), pixel_sets(y, y == IGNORED)
    scores = []
    for i in sorted(true):
        match = [s for s in predicted.values() if len(true[i] & s) > len(true[i]) / 2]
        scores.append(len(true[i] & match[0]) / len(true[i] | match[0]) if match else 0.0)
    return scores


def det_reference(y_pred: np.ndarray, y: np.ndarray) -> tuple[int, int, int, int]:
    """Return splits, false negatives, false positives, references."""
    predicted, true = pixel_sets(y_pred, y == IGNORED), pixel_sets(y, y == IGNORED)
    splits = false_positives = matched = 0
    for i, s in predicted.items():
        matches = sum(len(r & s) > len(r) / 2 for r in true.values())
        matched += matches
        if matches >= 2:
            splits += matches - 1
        if matches == 0 and len(s) >= np.sum(y_pred == i) / 2:
            false_positives += 1
    return splits, len(true) - matched, false_positives, len(true)


def det_score(splits: int, false_negatives: int, false_positives: int, references: int) -> float:
    """Return DET from its counts."""
    cost = 5 * splits + 10 * false_negatives + false_positives
    return 1 - min(cost, 10 * references) / (10 * references)
