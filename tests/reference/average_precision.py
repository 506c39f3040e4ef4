"""AP and PQ straight from their definitions: all one-to-one matchings are tried, IoUs are fractions."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from tests.reference.metrics import IGNORED, pixel_sets

Pair = tuple[int, int]


def matchings(pairs: list[Pair]) -> Iterator[list[Pair]]:
    """Yield every set of pairs in which no id occurs twice on its side."""
    if not pairs:
        yield []
        return
    first, rest = pairs[0], pairs[1:]
    yield from matchings(rest)
    for matching in matchings([pair for pair in rest if pair[0] != first[0] and pair[1] != first[1]]):
        yield [first, *matching]


def all_ious(y_pred: np.ndarray, y: np.ndarray) -> dict[Pair, Fraction]:
    """Return the IoU of every pair (true id, predicted id), also of those that share nothing."""
    predicted, true = pixel_sets(y_pred, y == IGNORED), pixel_sets(y, y == IGNORED)
    return {(i, j): Fraction(len(r & s), len(r | s)) for i, r in true.items() for j, s in predicted.items()}


def counted_predictions(y_pred: np.ndarray, y: np.ndarray) -> set[int]:
    """Return the ids of the predictions of which at least half is not ignored."""
    kept = pixel_sets(y_pred, y == IGNORED)
    return {j for j, pixels in kept.items() if 2 * len(pixels) >= np.sum(y_pred == j)}


def counts_reference(y_pred: np.ndarray, y: np.ndarray, threshold: str) -> tuple[int, int, int]:
    """Return TP, FP, FN of the matching with the most pairs and then the fewest false positives."""
    pairs = [pair for pair, iou in all_ious(y_pred, y).items() if iou >= Fraction(threshold)]
    counted = counted_predictions(y_pred, y)
    outcomes = [(-len(matching), len(counted - {j for _, j in matching})) for matching in matchings(pairs)]
    minus_matches, false_positives = min(outcomes)
    true_ids = {int(i) for i in y.ravel() if i > 0}
    return -minus_matches, false_positives, len(true_ids) + minus_matches


def pq_reference(y_pred: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return the sum of the IoUs of all hits, and TP + FP / 2 + FN / 2."""
    hits = {pair: iou for pair, iou in all_ious(y_pred, y).items() if iou > Fraction(1, 2)}
    false_positives = len(counted_predictions(y_pred, y) - {j for _, j in hits})
    false_negatives = len({int(i) for i in y.ravel() if i > 0} - {i for i, _ in hits})
    return float(sum(hits.values())), len(hits) + (false_positives + false_negatives) / 2
