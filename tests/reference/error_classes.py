"""The classes of instances straight from their rules, over sets of pixels: slow and obvious."""

from __future__ import annotations

import numpy as np

from tests.reference.metrics import IGNORED, pixel_sets


def error_classes_reference(y_pred: np.ndarray, y: np.ndarray) -> tuple[dict[int, str], dict[int, str]]:
    """Return the name of the class of every true and of every predicted instance."""
    predicted, true = pixel_sets(y_pred, y == IGNORED), pixel_sets(y, y == IGNORED)
    excused = {j for j, s in predicted.items() if len(s) < np.sum(y_pred == j) / 2}
    covered = {j: [i for i, r in true.items() if len(r & s) > len(r) / 2] for j, s in predicted.items()}
    pieces = {
        i: [j for j, s in predicted.items() if len(r & s) > len(s) / 2 and j not in excused and set(covered[j]) <= {i}]
        for i, r in true.items()
    }
    split = [i for i, r in true.items() if len(pieces[i]) >= 2 and _taken(r, predicted, pieces[i]) > len(r) / 2]
    return (
        {i: _class_of_true(i, covered, split) for i in true},
        {j: _class_of_pred(j, covered, [p for i in split for p in pieces[i]], excused) for j in predicted},
    )


def _taken(r: set, predicted: dict[int, set], pieces: list[int]) -> int:
    return sum(len(r & predicted[j]) for j in pieces)


def _class_of_true(i: int, covered: dict[int, list[int]], split: list[int]) -> str:
    if any(i in cells and len(cells) >= 2 for cells in covered.values()):
        return "MERGED"
    if i in split:
        return "SPLIT"
    return "RIGHT" if any(i in cells for cells in covered.values()) else "MISSED"


def _class_of_pred(j: int, covered: dict[int, list[int]], pieces: list[int], excused: set[int]) -> str:
    if len(covered[j]) >= 2:
        return "MERGED"
    if j in pieces:
        return "SPLIT"
    if covered[j]:
        return "RIGHT"
    return "EXCUSED" if j in excused else "FALSE"
