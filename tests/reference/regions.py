"""Joining regions at weak borders, slowly: all borders are measured anew after each step."""

from __future__ import annotations

from itertools import product

import numpy as np


def strengths(regions: np.ndarray, border: np.ndarray) -> dict[tuple[int, int], float]:
    """Average, for each pair of neighbours, over the pixels of each of the two that touch the other (8, 26 in 3-D)."""
    values: dict[tuple[int, int], list[float]] = {}
    steps = [step for step in product((-1, 0, 1), repeat=regions.ndim) if any(step)]
    for place in np.ndindex(*regions.shape):
        near = [tuple(np.add(place, step)) for step in steps]
        inside = [spot for spot in near if all(0 <= i < n for i, n in zip(spot, regions.shape, strict=True))]
        here = regions[place]
        for other in {regions[spot] for spot in inside} - {here}:
            values.setdefault((min(here, other), max(here, other)), []).append(border[place])
    return {pair: float(np.mean(found)) for pair, found in values.items()}


def joined(regions: np.ndarray, border: np.ndarray, threshold: float) -> np.ndarray:
    """Join the pair with the weakest border, again and again; the lower number stays."""
    current = regions.copy()
    while pairs := strengths(current, border):
        weakest = min(pairs, key=pairs.__getitem__)
        if pairs[weakest] >= threshold:
            break
        current[current == weakest[1]] = weakest[0]
    return 1 + np.unique(current, return_inverse=True)[1].reshape(regions.shape)
