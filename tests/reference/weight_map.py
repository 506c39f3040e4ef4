"""The weight map of the paper's equation 2, pixel by pixel and instance by instance: slow and obvious."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def weight_map_reference(
    label: np.ndarray, *, w0: float = 10.0, sigma: float = 5.0, class_weights: Sequence[float] = (1.0, 1.0)
) -> np.ndarray:
    """Return the weight of every pixel, float64."""
    instances = [np.argwhere(label == i) for i in np.unique(label) if i > 0]
    weight = np.zeros(label.shape)
    for pixel in np.ndindex(label.shape):
        if label[pixel] < 0:
            continue
        weight[pixel] = class_weights[int(label[pixel] > 0)]
        if label[pixel] == 0 and len(instances) >= 2:
            distances = sorted(np.sqrt(((points - pixel) ** 2).sum(axis=1)).min() for points in instances)
            weight[pixel] += w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return weight
