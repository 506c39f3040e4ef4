"""The whole image in one pass: what overlap-tile has to equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch


def mirror_out(array: np.ndarray, margins: Sequence[tuple[int, int]]) -> np.ndarray:
    """Mirror every axis out by (before, after), the edge not repeated; as often as it takes, once around at a time."""
    for axis, (before, after) in enumerate(margins):
        while before or after:
            # A singleton has no neighbour to mirror: it repeats itself.
            reach, mode = (array.shape[axis] - 1, "reflect") if array.shape[axis] > 1 else (before + after, "edge")
            step = (min(before, reach), min(after, reach))
            array = np.pad(array, [step if a == axis else (0, 0) for a in range(array.ndim)], mode=mode)
            before, after = before - step[0], after - step[1]
    return array


def whole_image_scores(
    image: torch.Tensor, network: Callable[[torch.Tensor], torch.Tensor], border: Sequence[int], poolings: Sequence[int]
) -> torch.Tensor:
    """Return the scores (B, K, *S) of one pass over the image (B, C, *S), mirrored out by `border` before its first
    pixel and by `border` + r after its last, r the least that the poolings fit."""
    margins = [(0, 0), (0, 0)]
    for size, b, p in zip(image.shape[2:], border, poolings, strict=True):
        r = next(r for r in range(2**p) if (size + r + b) % 2**p == 0)
        margins.append((b, b + r))
    scores = network(torch.from_numpy(mirror_out(image.numpy(), margins)))
    return scores[(..., *(slice(n) for n in image.shape[2:]))]
