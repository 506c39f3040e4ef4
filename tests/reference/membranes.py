"""The measures of the ISBI 2012 challenge straight from their definitions, pixel by pixel: slow and obvious."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import product
from math import log

import numpy as np
from scipy import ndimage


def foreground_names(y_pred: np.ndarray, y: np.ndarray) -> list[tuple[Hashable, Hashable]]:
    """Return the names of the true cell and of the segment of every foreground pixel; without one, its own."""
    pixels = [pixel for pixel in np.ndindex(y.shape) if y[pixel] > 0]
    return [(int(y[p]), int(y_pred[p]) if y_pred[p] > 0 else p) for p in pixels]


def rand_reference(y_pred: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Return f_score, split, merge of V^Rand over all pairs of foreground pixels, each with itself too."""
    pairs = list(product(foreground_names(y_pred, y), repeat=2))
    true, proposed = [p[0] == q[0] for p, q in pairs], [p[1] == q[1] for p, q in pairs]
    both = sum(t and s for t, s in zip(true, proposed, strict=True))
    split, merge = both / sum(true), both / sum(proposed)
    return 2 * split * merge / (split + merge), split, merge


def entropy(names: Sequence[Hashable]) -> float:
    """Return the entropy of a list of names, in nats."""
    return -sum(count / len(names) * log(count / len(names)) for count in Counter(names).values())


def information_reference(y_pred: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Return f_score, split, merge of V^Info; a part without entropy scores 1."""
    names = foreground_names(y_pred, y)
    of_truth, of_proposal = entropy([t for t, _ in names]), entropy([s for _, s in names])
    mutual = of_truth + of_proposal - entropy(names)
    f_score, split, merge = (
        mutual / part if part else 1.0 for part in ((of_truth + of_proposal) / 2, of_proposal, of_truth)
    )
    return f_score, split, merge


def topology(cells: np.ndarray) -> tuple[int, int]:
    """Return the numbers of 4-connected cells and of 8-connected membranes, all membrane outside."""
    padded = np.pad(cells, 1)
    return ndimage.label(padded)[1], ndimage.label(~padded, np.ones((3, 3)))[1]


def relax_reference(y: np.ndarray, y_pred: np.ndarray, threshold: float) -> np.ndarray:
    """Return the truth relaxed by flipping, again and again, the first pixel in order that changes no topology."""
    relaxed, target = y.copy(), y_pred > threshold
    order = sorted(np.ndindex(y.shape), key=lambda pixel: (-abs(y_pred[pixel] - threshold), pixel))
    while True:
        for pixel in order:
            flipped = relaxed.copy()
            flipped[pixel] = target[pixel]
            if relaxed[pixel] != target[pixel] and topology(flipped) == topology(relaxed):
                relaxed = flipped
                break
        else:
            return relaxed
