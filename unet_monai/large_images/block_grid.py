"""Blocks of an image, solved along one axis on plain ints and multiplied out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import product
from typing import NamedTuple

import numpy as np


def axis_bounds(size: int, block: int) -> list[tuple[int, int]]:
    """List the (start, stop) of the blocks along one axis: starts at multiples of `block`, the last one cut off.

    Example:
        >>> axis_bounds(40, 16)
        [(0, 16), (16, 32), (32, 40)]
    """
    return [(start, min(start + block, size)) for start in range(0, size, block)]


class Block(NamedTuple):
    """A box of pixels: from `start` up to, not including, `stop`, one number per axis, in the image's frame."""

    start: tuple[int, ...]
    stop: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of pixels along each axis."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def slices(self) -> tuple[slice, ...]:
        """The box as an index into an array of the image's size."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    def widened(self, before: int, after: int, image_size: Sequence[int]) -> Block:
        """Return the box with `before` and `after` pixels more on each axis, cut at the image's edge."""
        start = tuple(max(a - before, 0) for a in self.start)
        return Block(start, tuple(min(b + after, n) for b, n in zip(self.stop, image_size, strict=True)))

    def within(self, outer: Block) -> tuple[slice, ...]:
        """Return the box as an index into an array that holds the pixels of `outer`."""
        bounds = zip(self.start, self.stop, outer.start, strict=True)
        return tuple(slice(a - origin, b - origin) for a, b, origin in bounds)


def block_grid(image_size: Sequence[int], block_size: Sequence[int]) -> dict[tuple[int, ...], Block]:
    """Cut an image into blocks.

    Returns:
        The blocks by their position in the grid, in array order; they cover every pixel once.

    Example:
        >>> list(block_grid((20, 5), (16, 16)).items())
        [((0, 0), Block(start=(0, 0), stop=(16, 5))), ((1, 0), Block(start=(16, 0), stop=(20, 5)))]
    """
    axes = [axis_bounds(size, block) for size, block in zip(image_size, block_size, strict=True)]
    blocks = {}
    for position in product(*(range(len(bounds)) for bounds in axes)):
        starts, stops = zip(*(bounds[i] for i, bounds in zip(position, axes, strict=True)), strict=True)
        blocks[position] = Block(starts, stops)
    return blocks


def largest_block(memory_budget: int, bytes_per_pixel: int, halo: int, chunk: int, spatial_dims: int) -> int:
    """Find the largest side of a block, a multiple of `chunk`, that fits the budget with a halo around it.

    Raises:
        ValueError: when not even one chunk fits.

    Example:
        >>> largest_block(2 * 10**9, bytes_per_pixel=200, halo=64, chunk=512, spatial_dims=2)
        2560
    """
    side = int((max(memory_budget, 0) / bytes_per_pixel) ** (1 / spatial_dims)) - 2 * halo
    if side < chunk:
        needed = bytes_per_pixel * (chunk + 2 * halo) ** spatial_dims
        raise ValueError(
            f"memory_budget must be at least {needed} bytes, for one chunk of {chunk} px and {halo} px around it, "
            f"got {memory_budget}."
        )
    return side - side % chunk


class Selection:
    """The pixels of an image that are to be segmented: those of a region of interest, a mask, of both, or all.

    Args:
        image_size: the image's size.
        roi: (start, stop) for each axis, pixels; None for the whole image.
        mask: bool array of any size, one axis per axis of the image, that covers the whole image: a pixel counts if the
            mask's pixel below its centre does. None for all pixels.

    Raises:
        ValueError: for a region that is not in the image, or a mask of another number of axes.

    Example:
        >>> Selection((6,), roi=[(0, 5)], mask=np.array([False, True])).pixels(Block((2,), (6,)))
        array([False,  True,  True, False])
    """

    def __init__(
        self, image_size: Sequence[int], roi: Sequence[Sequence[int]] | None = None, mask: np.ndarray | None = None
    ) -> None:
        whole = [(0, size) for size in image_size]
        given = np.array(whole if roi is None else roi, dtype=object)
        if given.shape != (len(whole), 2) or any(
            not (isinstance(a, int | np.integer) and isinstance(b, int | np.integer) and 0 <= a < b <= n)
            for (a, b), n in zip(given.tolist(), image_size, strict=True)
        ):
            raise ValueError(f"roi must be start < stop for each axis of {tuple(image_size)}, got {roi}.")
        self.roi = [(start, stop) for start, stop in given.tolist()]
        if mask is not None and mask.ndim != len(whole):
            raise ValueError(f"mask must have {len(whole)} axes, got shape {mask.shape}.")
        self.image_size = tuple(image_size)
        self.mask = mask

    def pixels(self, block: Block) -> np.ndarray:
        """Tell which pixels of a block count: bool array of the block's shape."""
        axes = [np.arange(a, b) for a, b in zip(block.start, block.stop, strict=True)]
        inside = [(start <= axis) & (axis < stop) for axis, (start, stop) in zip(axes, self.roi, strict=True)]
        selected = reduce(np.logical_and, np.meshgrid(*inside, indexing="ij", sparse=True))
        if self.mask is None:
            return selected
        sides = zip(axes, self.mask.shape, self.image_size, strict=True)
        return selected & self.mask[np.ix_(*((2 * axis + 1) * side // (2 * size) for axis, side, size in sides))]
