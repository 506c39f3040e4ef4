"""Which pixels a region holds, one pixel and one outline at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def fill(outlines: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Return the pixels (H, W) whose centre a ray to the right leaves the outlines (x, y) an odd number of times."""
    inside = np.zeros(shape, dtype=bool)
    for row, column in np.ndindex(shape):
        x, y = column + 0.5, row + 0.5
        for outline in outlines:
            for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
                if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
                    inside[row, column] ^= True
    return inside
