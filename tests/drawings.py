"""Small label images drawn as text: `.` background, `1`-`9` and `a`-`z` instances, `?` ignored pixels."""

from __future__ import annotations

import numpy as np
from unet_monai.data.image_io import IGNORE_LABEL

_VALUES = {".": 0, "?": IGNORE_LABEL}


def draw(picture: str) -> np.ndarray:
    """Return the drawing as an int32 array (rows, columns); blanks at the ends of its lines do not count."""
    rows = [[_VALUES[c] if c in _VALUES else int(c, 36) for c in line.strip()] for line in picture.split("\n")]
    return np.array([row for row in rows if row], dtype=np.int32)


def random_discs(
    seed: int, shape: tuple[int, ...] = (60, 70), *, count: int = 12, radius: tuple[float, float] = (4, 9)
) -> np.ndarray:
    """Return `count` discs (balls) that touch where they would overlap: each pixel goes to the nearest centre."""
    random = np.random.default_rng(seed)
    grid = np.indices(shape).reshape(len(shape), -1)
    centres = random.uniform(0, shape, size=(count, len(shape)))
    radii = random.uniform(*radius, size=count)
    distances = np.linalg.norm(grid[None] - centres[:, :, None], axis=1) / radii[:, None]
    label = np.where(distances.min(axis=0) < 1, distances.argmin(axis=0) + 1, 0)
    return label.reshape(shape).astype(np.int32)
