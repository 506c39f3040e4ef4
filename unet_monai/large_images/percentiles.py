"""Percentiles of an image that is too large for memory: the numbers of its sorted pixels, from streamed histograms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import floor

import numpy as np
from unet_monai.data.image_io import PERCENTILES, check_outliers

Stream = Callable[[], Iterable[np.ndarray]]


def streamed_percentiles(stream: Stream, percentiles: Sequence[float]) -> list[float]:
    """Compute percentiles of the values of all arrays of a stream, as `numpy.percentile` does of all in memory.

    Linear interpolation between the two values whose ranks lie around percentile / 100 * (count - 1), in float64. The
    values are taken as float32, as images are loaded. Those of uint8 and uint16 are counted in one pass. Others take
    two, one for the upper 16 bits of their float32 and one for the lower ones, and are as exact. No pass holds more
    than one array of the stream and a few histograms of 65,536 bins.

    In memory MONAI computes the ranks in float64 too for images beyond a million pixels; in float32 for smaller ones,
    where the interpolated number may differ in its last digits.

    Args:
        stream: called for each pass, returns the same arrays of one dtype, real and finite, of any shape.
        percentiles: each in [0, 100].

    Returns:
        One number for each percentile.

    Raises:
        ValueError: if the stream holds no value, or a percentile is out of its range.

    Example:
        >>> streamed_percentiles(lambda: [np.array([3.0, 1.0]), np.array([2.0, 10.0])], [0, 50, 90])
        [1.0, 2.5, 7.9...]
    """
    for percentile in percentiles:
        if not 0 <= percentile <= 100:
            raise ValueError(f"percentiles must lie in [0, 100], got {percentile}.")
    upper, bins_are_values = np.zeros(65536, np.int64), True
    for array in stream():
        bins_are_values = array.dtype in (np.uint8, np.uint16)
        upper += np.bincount(array.ravel() if bins_are_values else _sortable(array) >> 16, minlength=65536)
    count = int(upper.sum())
    if count == 0:
        raise ValueError("stream must hold at least one value, got none.")
    positions = [percentile / 100 * (count - 1) for percentile in percentiles]
    ranks = sorted({rank for p in positions for rank in (floor(p), min(floor(p) + 1, count - 1))})
    bins = np.searchsorted(np.cumsum(upper), ranks, side="right")
    values = bins.astype(float).tolist() if bins_are_values else _values_within(bins, ranks, upper, stream)
    value_at = dict(zip(ranks, values, strict=True))
    numbers = []
    for position in positions:
        low, high = value_at[floor(position)], value_at[min(floor(position) + 1, count - 1)]
        numbers.append(low + (high - low) * (position - floor(position)))
    return numbers


def intensity_range(stream: Stream, address: str) -> list[float]:
    """Find the two percentiles of a channel that become 0 and 1, as `CellImageReader` and the configs do in memory.

    Args:
        stream: see `streamed_percentiles`.
        address: the image, to be named in errors.

    Raises:
        ValueError: as `check_outliers`.

    Example:
        >>> intensity_range(lambda: [np.arange(1001, dtype=np.uint16)], "a.tif")
        [10.0, 998.0]
    """
    extremes = streamed_percentiles(stream, (0, *PERCENTILES, 100))
    check_outliers(extremes, address)
    return extremes[1:3]


def _values_within(bins: np.ndarray, ranks: Sequence[int], upper: np.ndarray, stream: Stream) -> list[float]:
    """Find the values of given ranks, which lie in given bins of the upper bits, by counting the lower bits there."""
    lower = {b: np.zeros(65536, np.int64) for b in bins.tolist()}
    for array in stream():
        keys = _sortable(array)
        for b, histogram in lower.items():
            histogram += np.bincount(keys[keys >> 16 == b] & 0xFFFF, minlength=65536)
    values = []
    for rank, b in zip(ranks, bins.tolist(), strict=True):
        rank_in_bin = rank - upper[:b].sum()
        low = int(np.searchsorted(np.cumsum(lower[b]), rank_in_bin, side="right"))
        values.append(_unsortable((b << 16) | low))
    return values


def _sortable(array: np.ndarray) -> np.ndarray:
    """Map float32 to uint32 of the same order: of negative numbers all bits are inverted, of others the sign."""
    bits = (array.ravel().astype(np.float32) + np.float32(0)).view(np.uint32)  # + 0 makes one zero of both
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _unsortable(key: int) -> float:
    bits = key & 0x7FFFFFFF if key >> 31 else ~key & 0xFFFFFFFF
    return float(np.array(bits, np.uint32).view(np.float32))
