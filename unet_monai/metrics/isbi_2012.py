"""The measures of the ISBI 2012 challenge on membranes in electron microscopy, as MONAI metrics.

Definitions: Arganda-Carreras et al. 2015 (https://doi.org/10.3389/fnana.2015.00142). The challenge ranks by V^Rand and
V^Info; the three errors were its measures at first. All of them cut a probability map at several thresholds, compare
it with the truth slice by slice, and report the score at the one threshold that is best for the mean of all slices.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from unet_monai.metrics.foreground_rand import (
    ForegroundTable,
    foreground_table,
    information_scores,
    rand_scores,
    thin_borders,
)
from unet_monai.metrics.image_rows import ImageRowsMetric
from unet_monai.metrics.warping_error import warping_error

THRESHOLDS = tuple(step / 10 for step in range(11))


class _ThresholdMetric(ImageRowsMetric):
    """One row for each image in the buffer: its mean score at every threshold, then the number of scored slices."""

    # What takes the best of the mean scores.
    _best = staticmethod(torch.amax)

    def __init__(self, thresholds: Sequence[float] = THRESHOLDS) -> None:
        super().__init__()
        if not thresholds or not all(0 <= threshold <= 1 for threshold in thresholds):
            raise ValueError(f"thresholds must be one or more numbers in [0, 1], got {thresholds}.")
        self.thresholds = tuple(thresholds)

    @abstractmethod
    def _score(self, probability: np.ndarray, truth: np.ndarray, threshold: float) -> float:
        """Score a slice of probabilities (X, Y), cut at the threshold, against its true cells, bool (X, Y)."""

    def _image_row(self, probability: np.ndarray, truth: np.ndarray) -> list[float]:
        # A slice without true cells has no foreground that could be restricted to.
        slices = [(probability[..., z], truth[..., z]) for z in range(truth.shape[-1]) if truth[..., z].any()]
        if not slices:
            return [float("nan")] * len(self.thresholds) + [0]
        scores = [[self._score(p, t, threshold) for threshold in self.thresholds] for p, t in slices]
        return [*np.mean(scores, axis=0), len(slices)]

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        if y is None or y.ndim not in (4, 5) or y.shape[1] != 1:
            raise ValueError(f"y must have the shape (B, 1, X, Y[, Z]), got {None if y is None else tuple(y.shape)}.")
        if y_pred.shape != y.shape:
            raise ValueError(f"y_pred must have the shape of y, {tuple(y.shape)}, got {tuple(y_pred.shape)}.")
        _check_values(y_pred, y)
        stack = (-1, *y.shape[2:4], prod(y.shape[4:]))
        probabilities = y_pred.detach().float().cpu().reshape(stack).numpy()
        truths = (y > 0).cpu().reshape(stack).numpy()
        rows = [self._image_row(*pair) for pair in zip(probabilities, truths, strict=True)]
        return torch.tensor(np.array(rows), dtype=torch.float32, device=y_pred.device)

    def aggregate(self) -> torch.Tensor:
        """Take the mean over all slices seen since `reset`, then the best threshold.

        Returns:
            Score in [0, 1], scalar float32; nan if no slice has a true cell.

        Raises:
            RuntimeError: if no image was seen.
        """
        rows = self._rows()
        scores, slices = rows[:, :-1], rows[:, -1:]
        return self._best((scores.nan_to_num() * slices).sum(dim=0) / slices.sum())


def _check_values(y_pred: torch.Tensor, y: torch.Tensor) -> None:
    if not y_pred.is_floating_point():
        raise TypeError(f"y_pred must hold probabilities as floating point numbers, got {y_pred.dtype}.")
    if y.is_floating_point():
        raise TypeError(f"y must be an integer label map, got {y.dtype}.")
    low, high = y_pred.min().item(), y_pred.max().item()
    # Asked this way round, nan is caught too.
    if not (low >= 0 and high <= 1):
        raise ValueError(f"y_pred must hold probabilities in [0, 1], got values from {low} to {high}.")
    if y.min() < 0:
        raise ValueError(f"y must hold no ignored pixels (below 0), got {y.min().item()}.")


@lru_cache(maxsize=512)
def _thinned_table(cells: bytes, truth: bytes, shape: tuple[int, int]) -> ForegroundTable:
    """Thin a proposal and count its overlaps with the truth; both as packed bits, so that they can be remembered.

    V^Rand and V^Info need the same table, and the watershed is most of the work. The memory holds the thresholds of 46
    slices: 32 MB of keys for slices of 512 x 512.
    """
    y_pred, y = (np.unpackbits(np.frombuffer(bits, np.uint8), count=prod(shape)) for bits in (cells, truth))
    return foreground_table(thin_borders(y_pred.reshape(shape) > 0), ndimage.label(y.reshape(shape))[0])


class _ThinnedMetric(_ThresholdMetric):
    """Scores of the segments that the watershed of the cut probability map leaves between its lines."""

    @abstractmethod
    def _table_score(self, table: ForegroundTable) -> float:
        """Reduce the overlaps of one slice to its score."""

    def _score(self, probability: np.ndarray, truth: np.ndarray, threshold: float) -> float:
        cells, truth_bits = (np.packbits(mask).tobytes() for mask in (probability > threshold, truth))
        return self._table_score(_thinned_table(cells, truth_bits, truth.shape))


class VRandMetric(_ThinnedMetric):
    """V^Rand after thinning: do pairs of pixels lie in one cell in the proposal as in the truth?

    The foreground-restricted Rand F-score (`rand_scores`) of the proposal `y_pred` > threshold, whose membranes are
    thinned to lines first (`thin_borders`); the highest over the thresholds of the mean over the slices.

    The call takes `y_pred`, the probability of cell, floating point (B, 1, X, Y[, Z]), and `y`, integer of the same
    shape, > 0 cells (binary or instances: the 4-connected components count), 0 membrane; or lists of images without
    B. A volume is a stack of slices along Z. It returns one row for each image, float32 (B, thresholds + 1): the mean
    over its slices at every threshold, then their number; slices without true cells are left out. Raises ValueError
    for other or differing shapes and for values out of range, TypeError for wrong kinds of numbers.

    Args:
        thresholds: the proposal is where the probability is above.

    Raises:
        ValueError: if there is no threshold, or one outside [0, 1].

    Example:
        >>> metric = VRandMetric()
        >>> cells = torch.tensor([[[[3, 3, 3, 0, 0, 4, 4]]]])
        >>> _ = metric(y_pred=torch.tensor([[[[0.9, 0.9, 0.9, 0.6, 0.3, 0.9, 0.9]]]]), y=cells)
        >>> metric.aggregate()
        tensor(1.)
    """

    def _table_score(self, table: ForegroundTable) -> float:
        return rand_scores(table).f_score


class VInfoMetric(_ThinnedMetric):
    """V^Info after thinning: how much do the segments and the true cells tell of each other?

    As `VRandMetric`, with the information F-score (`information_scores`).

    Args:
        thresholds: the proposal is where the probability is above.

    Raises:
        ValueError: if there is no threshold, or one outside [0, 1].

    Example:
        >>> metric = VInfoMetric()
        >>> cells = torch.tensor([[[[3, 3, 3, 0, 0, 4, 4]]]])
        >>> _ = metric(y_pred=torch.tensor([[[[0.9, 0.9, 0.9, 0.6, 0.3, 0.9, 0.9]]]]), y=cells)
        >>> metric.aggregate()
        tensor(1.)
    """

    def _table_score(self, table: ForegroundTable) -> float:
        return information_scores(table).f_score


class RandErrorMetric(_ThresholdMetric):
    """Rand error: 1 - the foreground-restricted Rand F-score without thinning; thick membranes cost.

    The segments are the 4-connected components of `y_pred` > threshold. Fiji's `RandError` pools the pairs of all
    slices into one F-score; here, as for V^Rand, the F-scores of the slices are averaged. Call as `VRandMetric`.

    Args:
        thresholds: the proposal is where the probability is above.

    Raises:
        ValueError: if there is no threshold, or one outside [0, 1].

    Example:
        >>> metric = RandErrorMetric()
        >>> cells = torch.tensor([[[[3, 3, 3, 3]]]])
        >>> _ = metric(y_pred=torch.tensor([[[[0.9, 0.9, 0.0, 0.0]]]]), y=cells)
        >>> metric.aggregate()
        tensor(0.4545)
    """

    _best = staticmethod(torch.amin)

    def _score(self, probability: np.ndarray, truth: np.ndarray, threshold: float) -> float:
        segments, cells = (ndimage.label(mask)[0] for mask in (probability > threshold, truth))
        return 1 - rand_scores(foreground_table(segments, cells)).f_score


class PixelErrorMetric(_ThresholdMetric):
    """Pixel error: 1 - the F-score (Dice) of the cell pixels; it knows nothing of splits and merges.

    Fiji's `PixelError` pools the pixels of all slices; here the F-scores of the slices are averaged. Call as
    `VRandMetric`.

    Args:
        thresholds: the proposal is where the probability is above.

    Raises:
        ValueError: if there is no threshold, or one outside [0, 1].

    Example:
        >>> metric = PixelErrorMetric()
        >>> _ = metric(y_pred=torch.tensor([[[[0.9, 0.9, 0.9, 0.0]]]]), y=torch.tensor([[[[3, 3, 0, 0]]]]))
        >>> metric.aggregate()
        tensor(0.2000)
    """

    _best = staticmethod(torch.amin)

    def _score(self, probability: np.ndarray, truth: np.ndarray, threshold: float) -> float:
        cells = probability > threshold
        return 1 - 2 * np.count_nonzero(cells & truth) / (np.count_nonzero(cells) + np.count_nonzero(truth))


class WarpingErrorMetric(_ThresholdMetric):
    """Warping error: share of the pixels that differ once the truth was relaxed towards the proposal.

    See `warping_error`; a moved membrane costs nothing, a broken or an added one its pixels. Threshold 1 is left out:
    no probability is above it, and the proposal without cells costs little more than a pixel for each of them. Fiji's
    script counts only the splits and merges among the pixels that differ. Call as `VRandMetric`.

    Args:
        thresholds: the proposal is where the probability is above.

    Raises:
        ValueError: if there is no threshold, or one outside [0, 1].

    Example:
        >>> metric = WarpingErrorMetric()
        >>> cells = torch.tensor([[[[3, 3, 0, 0, 4, 4]]]])
        >>> _ = metric(y_pred=torch.full((1, 1, 1, 6), 0.95), y=cells)
        >>> metric.aggregate()
        tensor(0.1667)
    """

    _best = staticmethod(torch.amin)

    def __init__(self, thresholds: Sequence[float] = THRESHOLDS[:-1]) -> None:
        super().__init__(thresholds)

    def _score(self, probability: np.ndarray, truth: np.ndarray, threshold: float) -> float:
        return warping_error(truth, probability, threshold)
