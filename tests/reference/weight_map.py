"""The weight map of the paper's equation 2, pixel by pixel and instance by instance: slow and obvious."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def two_nearest_reference(label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances of every pixel to the two nearest instances, float64, infinite where there is none."""
    instances = [np.argwhere(label == i) for i in np.unique(label) if i > 0]
    d1, d2 = np.full(label.shape, np.inf), np.full(label.shape, np.inf)
    for pixel in np.ndindex(label.shape):
        distances = sorted(np.sqrt(((points - pixel) ** 2).sum(axis=1)).min() for points in instances)
        d1[pixel], d2[pixel] = [*distances, np.inf, np.inf][:2]
    return d1, d2


def weight_map_reference(
    label: np.ndarray, *, w0: float = 10.0, sigma: float = 5.0, class_weights: Sequence[float] = (1.0, 1.0)
) -> np.ndarray:
    """Return the weight of every pixel, float64."""
    d1, d2 = two_nearest_reference(label)
    weight = np.zeros(label.shape)
    for pixel in np.ndindex(label.shape):
        if label[pixel] < 0:
            continue
        weight[pixel] = class_weights[int(label[pixel] > 0)]
        if label[pixel] == 0:
            weight[pixel] += w0 * np.exp(-((d1[pixel] + d2[pixel]) ** 2) / (2 * sigma**2))
    return weight
