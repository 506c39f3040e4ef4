"""Steps from instances to pixels, by breadth-first search."""

from __future__ import annotations

from collections import deque

import numpy as np


def breadth_first_steps(cores: np.ndarray, within: np.ndarray) -> dict[int, np.ndarray]:
    """Count the steps to 4-connected pixels of `within` from each instance (key: its id) and from the nearest (key 0).

    -1 where no path leads. Paths may not cross another instance's core.
    """
    steps = {i: _steps(cores == i, within & (cores == 0)) for i in np.unique(cores[cores > 0]).tolist()}
    reached = np.stack([np.where(s < 0, np.inf, s) for s in steps.values()]).min(axis=0)
    for i in range(1, 9):
        steps.setdefault(i, np.full(cores.shape, -1))
    return {**steps, 0: np.where(np.isinf(reached), -1, reached).astype(int)}


def _steps(start: np.ndarray, within: np.ndarray) -> np.ndarray:
    steps = np.where(start, 0, -1)
    queue = deque(map(tuple, np.argwhere(start)))
    while queue:
        y, x = queue.popleft()
        for ny, nx in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            inside = 0 <= ny < start.shape[0] and 0 <= nx < start.shape[1]
            if inside and within[ny, nx] and steps[ny, nx] < 0:
                steps[ny, nx] = steps[y, x] + 1
                queue.append((ny, nx))
    return steps
