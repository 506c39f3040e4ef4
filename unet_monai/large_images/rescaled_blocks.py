"""Resample an image of any size block by block, as all of it in memory: one sparse matrix for each axis."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
import torch
from scipy import sparse
from unet_monai.large_images.block_grid import Block
from unet_monai.transforms.rescale import Rescale, resample


def rescaled_size(size: int, scale: float) -> int:
    """Compute the pixels that `Rescale` makes of one axis.

    Example:
        >>> rescaled_size(101, 0.31), rescaled_size(1, 0.31), rescaled_size(7, 1.6)
        (31, 1, 11)
    """
    return len(torch.as_tensor(Rescale(scale)(torch.zeros(1, size)))[0])


def resampling_matrix(size: int, new_size: int) -> sparse.csr_array:
    """Write what `resample` does along one axis as a matrix: row i holds the weights of the pixels that make pixel i.

    The weights are torch's own, of the whole axis, with their rounding and all that is special at the edges. At most
    `period` neighbours have one for each new pixel, so combs of that period, each shifted by a pixel, give one each.

    Args:
        size: pixels of the axis.
        new_size: pixels that it is resampled to.

    Returns:
        float32 (new_size, size).

    Example:
        >>> resampling_matrix(4, 2).toarray().round(3)
        array([[0.429, 0.429, 0.143, 0.   ],
               [0.   , 0.143, 0.429, 0.429]], dtype=float32)
    """
    ratio = size / new_size
    reach = max(ratio, 1.0)  # pixels on each side of the centre that count
    period = ceil(2 * reach) + 3
    combs = torch.zeros(period, size)
    combs[torch.arange(size) % period, torch.arange(size)] = 1
    weights = resample(combs, [new_size]).numpy()
    first = np.floor((np.arange(new_size) + 0.5) * ratio - reach - 1).astype(np.int64)
    teeth, rows = np.nonzero(weights)
    columns = first[rows] + (teeth - first[rows]) % period
    return sparse.csr_array((weights[teeth, rows], (rows, columns)), shape=(new_size, size))


class BlockResampling:
    """Resample blocks of an image to another size, edge to edge, exactly as `resample` does the whole image.

    Args:
        size: (X, Y[, Z]) of the image.
        new_size: size that all of it would be resampled to.

    Example:
        >>> halve = BlockResampling([8], [4])
        >>> halve.needed(Block((2,), (4,)))
        Block(start=(3,), stop=(8,))
        >>> halve(torch.tensor([[3.0, 4, 5, 6, 7]]), Block((3,), (8,)), Block((2,), (4,)))
        tensor([[4.5000, 6.2857]])
    """

    def __init__(self, size: Sequence[int], new_size: Sequence[int]) -> None:
        self.size, self.new_size = tuple(size), tuple(new_size)
        self._matrices = [
            None if old == new else resampling_matrix(old, new) for old, new in zip(size, new_size, strict=True)
        ]

    def needed(self, block: Block) -> Block:
        """Return the box of the image that a block of the resampled image is made of."""
        spans = [
            (start, stop) if matrix is None else _columns(matrix, start, stop)
            for matrix, start, stop in zip(self._matrices, block.start, block.stop, strict=True)
        ]
        return Block(tuple(start for start, _ in spans), tuple(stop for _, stop in spans))

    def __call__(self, pixels: torch.Tensor, window: Block, block: Block) -> torch.Tensor:
        """Compute a block of the resampled image.

        Args:
            pixels: (C, *S), floating point, the pixels of `window`.
            window: a box of the image that holds all that is `needed`.
            block: a box of the resampled image.

        Returns:
            (C, *block.shape), of the same dtype.
        """
        for axis, matrix in enumerate(self._matrices):
            rows, origin = slice(block.start[axis], block.stop[axis]), window.start[axis]
            if matrix is None:
                pixels = pixels.narrow(axis + 1, rows.start - origin, rows.stop - rows.start)
            else:
                pixels = _along(pixels, axis + 1, matrix[rows, origin : window.stop[axis]])
        return pixels


def _columns(matrix: sparse.csr_array, start: int, stop: int) -> tuple[int, int]:
    """Tell which columns the rows from `start` up to `stop` have weights in: the first, and the one after the last."""
    columns = matrix.indices[matrix.indptr[start] : matrix.indptr[stop]]
    return int(columns.min()), int(columns.max()) + 1


def _along(pixels: torch.Tensor, axis: int, matrix: sparse.csr_array) -> torch.Tensor:
    lines = pixels.float().movedim(axis, 0)
    made = torch.as_tensor(matrix @ lines.reshape(len(lines), -1).numpy()).reshape(-1, *lines.shape[1:])
    return made.movedim(0, axis).to(pixels.dtype)
