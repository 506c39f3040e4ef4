"""Sizes of valid-convolution tiles, solved along one axis on plain ints; every axis of a tile obeys them alone.

An unpadded U-Net turns ``input_size`` pixels into ``input_size - 2 * border``. Its poolings fit only when every pooled
map has an even side, which leaves the input sizes congruent to ``border`` modulo ``step``, where ``step`` is the
product of the poolings (16 for the paper's four). Shifting the input by ``step`` pixels shifts the output with it;
any other shift changes the pooling phase, and with it the scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import torch
from monai.utils import ensure_tuple


def context_border(kernel_sizes: Sequence[int], pool_sizes: Sequence[int]) -> int:
    """Count the pixels that a valid U-Net loses on each side of one axis.

    From the lowest level up: its two convolutions lose ``kernel - 1`` pixels a side; a level above doubles what is
    below it (its pooling) and adds two convolutions on the way down and two on the way up.

    Args:
        kernel_sizes: kernel side of each level, the highest resolution first; odd.
        pool_sizes: pooling between the levels, one fewer than the levels; 1 (none) or 2.

    Returns:
        The border in input pixels.

    Example:
        >>> context_border([3, 3, 3, 3, 3], [2, 2, 2, 2])
        92
    """
    *upper, lowest = kernel_sizes
    border = lowest - 1
    for kernel, pool in zip(reversed(upper), reversed(pool_sizes), strict=True):
        border = pool * border + 2 * (kernel - 1)
    return border


def covering_output_size(image_size: int, border: int, step: int) -> int:
    """Find the least valid output size that is not smaller than the image.

    Example:
        >>> covering_output_size(512, border=92, step=16)
        516
    """
    return image_size + (-border - image_size) % step


def output_size(input_size: int, border: int, step: int) -> int:
    """Compute the output size of a valid tile.

    Raises:
        ValueError: when the poolings do not fit ``input_size``, or nothing would be left; names the nearest sizes.

    Example:
        >>> output_size(572, border=92, step=16)
        388
        >>> output_size(512, border=92, step=16)
        Traceback (most recent call last):
        ...
        ValueError: input size must be one that the poolings fit, such as 508 or 524, got 512.
    """
    size = input_size - 2 * border
    if size >= 1 and covering_output_size(size, border, step) == size:
        return size
    above = covering_output_size(max(size, 1), border, step) + 2 * border
    below = above - step
    nearest = f"{below} or {above}" if below > 2 * border else f"{above}, the smallest"
    raise ValueError(f"input size must be one that the poolings fit, such as {nearest}, got {input_size}.")


def output_sizes(input_size: int | Sequence[int], borders: Sequence[int], steps: Sequence[int]) -> tuple[int, ...]:
    """Compute the output size of a valid tile along all axes.

    Args:
        input_size: one side, or one per axis.
        borders: border of each axis.
        steps: step of each axis.

    Raises:
        ValueError: when there is another number of sides, or as `output_size`.

    Example:
        >>> output_sizes(572, borders=(92, 92), steps=(16, 16))
        (388, 388)
    """
    sides = ensure_tuple(input_size)
    if len(sides) not in (1, len(borders)):
        raise ValueError(f"input size must be one side, or {len(borders)}, one per axis, got {input_size}.")
    sides *= len(borders) // len(sides)
    return tuple(output_size(*axis) for axis in zip(sides, borders, steps, strict=True))


def tile_starts(image_size: int, tile_output: int, step: int) -> list[int]:
    """List where the output tiles begin, in image pixels: the fewest that cover the image in the pooling phase.

    All starts are multiples of ``step``, the last one too: its tile reaches beyond the image rather than moving back.

    Args:
        image_size: pixels of the image along this axis.
        tile_output: output pixels of a tile along this axis.
        step: product of the poolings along this axis.

    Raises:
        ValueError: when more than one tile is needed and the tile's output is smaller than ``step``.

    Example:
        >>> tile_starts(512, tile_output=388, step=16)
        [0, 384]
    """
    if tile_output >= image_size:
        return [0]
    stride = tile_output - tile_output % step
    if stride == 0:
        raise ValueError(
            f"tile output must be at least {step} px, the step that keeps the pooling phase, got {tile_output}."
        )
    count = 1 + ceil((image_size - tile_output) / stride)
    return [i * stride for i in range(count)]


def balanced_output_size(image_size: int, largest_output: int, border: int, step: int) -> int:
    """Find the least valid output size that needs no more tiles than ``largest_output`` does.

    Mirrored pixels beyond the image cost as much as real ones, so a few equal tiles beat large ones that overhang.

    Example:
        >>> balanced_output_size(512, largest_output=388, border=92, step=16)  # two tiles of 260 instead of 388
        260
    """
    count = len(tile_starts(image_size, largest_output, step))
    size = covering_output_size(ceil(image_size / count), border, step)
    while len(tile_starts(image_size, size, step)) > count:
        size += step
    return size


def mirrored_indices(start: int, stop: int, size: int) -> torch.Tensor:
    """Fold the positions ``start ... stop - 1`` into an axis of ``size`` pixels by mirroring at its first and last one.

    The edge pixel is not repeated, and positions beyond the mirrored copy fold again, so any reach works for any size.

    Returns:
        int64 indices of shape ``(stop - start,)``, each in ``[0, size)``.

    Example:
        >>> mirrored_indices(-3, 6, size=3).tolist()
        [1, 2, 1, 0, 1, 2, 1, 0, 1]
    """
    period = max(2 * (size - 1), 1)
    folded = torch.arange(start, stop) % period
    return torch.minimum(folded, period - folded) if size > 1 else torch.zeros_like(folded)
