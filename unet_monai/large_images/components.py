"""Connected components and holes across blocks: a small table for each block, merged by union-find.

Each block is labelled alone, in a window of the block and one pixel more along every axis where the image goes on: so
every pair of neighbouring pixels lies in some window, diagonal ones too. A plane of pixels that two windows share has
labels in both; they name the same pixels, and so tell which components are one. All functions here are exact: the
result is that of labelling the whole image, however far a component reaches.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from unet_monai.large_images.block_grid import Block
from unet_monai.transforms.touching_ridge import box_extreme

Position = tuple[int, ...]
Table = Mapping[str, np.ndarray]


def label_gaps(instances: np.ndarray) -> np.ndarray:
    """Number the pieces of background, connected also along diagonals, as `fill_component_holes` does."""
    return ndimage.label(instances == 0, ndimage.generate_binary_structure(instances.ndim, instances.ndim))[0]


def piece_table(name: str, pieces: np.ndarray, block: Block, window: Block, image_size: tuple[int, ...]) -> Table:
    """Describe the pieces of one window.

    Args:
        name: prefix of the table's keys.
        pieces: labels 1 ... n of the window, 0 nothing.
        block: the block itself, the part of the window whose pixels are counted.
        window: the block with one pixel more along each axis where the image goes on.
        image_size: the image's size.

    Returns:
        `<name>_sizes` (n,): pixels in the block. `<name>_first` (n,): the first one in raster order, X fastest, as a
        flat index into the image, where there is one.
        `<name>_low<axis>` and `<name>_high<axis>`: the labels of the first and last plane.

    Example:
        >>> block, window = Block((2, 0), (4, 2)), Block((2, 0), (5, 2))
        >>> table = piece_table("core", np.array([[1, 0], [0, 2], [3, 2]]), block, window, (9, 2))
        >>> table["core_sizes"].tolist(), table["core_first"][:2].tolist(), table["core_high0"].tolist()
        ([1, 1, 0], [2, 12], [3, 2])
    """
    own = pieces[block.within(window)]
    count = int(pieces.max(initial=0))
    starts_run = own > 0
    starts_run[1:] &= own[1:] != own[:-1]
    places = np.nonzero(starts_run)
    in_image = tuple(axis + start for axis, start in zip(places, block.start, strict=True))
    first = np.full(count + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, own[places], np.ravel_multi_index(in_image, image_size, order="F"))
    planes = {}
    for axis in range(pieces.ndim):
        planes[f"{name}_low{axis}"] = np.take(pieces, 0, axis)
        planes[f"{name}_high{axis}"] = np.take(pieces, -1, axis)
    sizes = np.bincount(own.ravel(), minlength=count + 1)
    return {f"{name}_sizes": sizes[1:], f"{name}_first": first[1:], **planes}


def contacts(gaps: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """List which gaps touch which instances, also along diagonals: unique pairs (n, 2), int64.

    Example:
        >>> contacts(np.array([[1, 0, 0, 2]]), np.array([[0, 5, 7, 0]])).tolist()
        [[1, 5], [2, 7]]
    """
    padded = np.pad(instances, 1)
    rim = np.nonzero((gaps > 0) & (box_extreme(instances, 1, np.maximum) > 0))
    base = int(instances.max(initial=0)) + 1
    of_gap = gaps[rim].astype(np.int64) * base
    pairs = np.zeros(0, np.int64)
    for offset in product((0, 1, 2), repeat=gaps.ndim):
        near = padded[tuple(axis + o for axis, o in zip(rim, offset, strict=True))]
        pairs = np.union1d(pairs, (of_gap + near)[near > 0])
    return np.stack([pairs // base, pairs % base], axis=1)


class Pieces(NamedTuple):
    """The pieces of all blocks, merged.

    Attributes:
        start: for each block, the place in `merged` of its label 1.
        merged: for the labels of all blocks, one block after the other, the number 0, 1, ... of the whole piece.
        total: number of whole pieces.
    """

    start: dict[Position, int]
    merged: np.ndarray
    total: int

    def of_block(self, position: Position, labels: np.ndarray) -> np.ndarray:
        """Return the numbers of the whole pieces for labels >= 1 of one block."""
        return self.merged[self.start[position] + labels.astype(np.int64) - 1]

    def by_block(self, numbers: np.ndarray) -> dict[Position, np.ndarray]:
        """Hand each block the numbers of its labels 1 ... n, uint32, given one number for each whole piece.

        Example:
            >>> pieces = Pieces({(0,): 0, (1,): 2}, np.array([0, 1, 1]), total=2)
            >>> {position: own.tolist() for position, own in pieces.by_block(np.array([7, 9])).items()}
            {(0,): [7, 9], (1,): [9]}
        """
        parts = np.split(numbers.astype(np.uint32)[self.merged], list(self.start.values())[1:])
        return dict(zip(self.start, parts, strict=True))


def merge_pieces(name: str, tables: Mapping[Position, Table]) -> Pieces:
    """Find out which pieces of neighbouring blocks are one."""
    start: dict[Position, int] = {}
    labels = 0
    for position, table in tables.items():
        start[position] = labels
        labels += len(table[f"{name}_sizes"])
    pairs = [np.zeros((0, 2), np.int64)]
    for position, table in tables.items():
        for axis in range(len(position)):
            after = (*position[:axis], position[axis] + 1, *position[axis + 1 :])
            if after in tables:
                here, there = table[f"{name}_high{axis}"].ravel(), tables[after][f"{name}_low{axis}"].ravel()
                both = (here > 0) & (there > 0)
                here, there = here[both] + (start[position] - 1), there[both] + (start[after] - 1)
                pairs.append(np.unique(np.stack([here, there], axis=1).astype(np.int64), axis=0))
    one, other = np.concatenate(pairs).T
    graph = coo_array((np.ones(len(one), bool), (one, other)), shape=(labels, labels))
    total, merged = connected_components(graph, directed=False)
    return Pieces(start, merged, total)


def hole_owners(
    gaps: Pieces, tables: Mapping[Position, Table], touching: Mapping[Position, np.ndarray], name: str = "gap"
) -> np.ndarray:
    """Find the instance that encloses each gap, by the rule of `fill_component_holes`.

    Args:
        gaps: the merged gaps.
        tables: the gaps of each block. A gap on a plane without a neighbouring block reaches the edge.
        touching: for each block the pairs (n, 2) of its gaps and the instances > 0 they touch, numbered for the image.
        name: prefix of the gaps in `tables`.

    Returns:
        (count of whole gaps,) int64: the instance that alone touches it, 0 if there are several, none, or the edge.
    """
    lowest = np.full(gaps.total, np.iinfo(np.int64).max)
    highest = np.zeros(gaps.total, np.int64)
    is_open = np.zeros(gaps.total, bool)
    for position, table in tables.items():
        of_gap = gaps.of_block(position, touching[position][:, 0])
        np.minimum.at(lowest, of_gap, touching[position][:, 1])
        np.maximum.at(highest, of_gap, touching[position][:, 1])
        for axis, (side, step) in product(range(len(position)), (("low", -1), ("high", 1))):
            if (*position[:axis], position[axis] + step, *position[axis + 1 :]) not in tables:
                plane = table[f"{name}_{side}{axis}"]
                is_open[gaps.of_block(position, plane[plane > 0])] = True
    return np.where((lowest == highest) & ~is_open, highest, 0)


def instance_numbers(
    cores: Pieces, gaps: Pieces, tables: Mapping[Position, Table], min_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Number the cores 1, 2, ... in raster order, without the small ones, and give them their holes.

    Args:
        cores: the merged cores, of the prefix "core".
        gaps: the merged gaps, of the prefix "gap".
        tables: the cores and gaps of each block, and as "contacts" which of them touch.
        min_size: least size of a core in pixels, holes filled.

    Returns:
        The number of each whole core and that of the core that owns each whole gap; 0 for none.
    """
    sizes = np.zeros(cores.total + 1, np.int64)
    first = np.full(cores.total, np.iinfo(np.int64).max)
    touching = {}
    for position, table in tables.items():
        whole = cores.of_block(position, np.arange(1, len(table["core_sizes"]) + 1))
        np.add.at(sizes, whole + 1, table["core_sizes"])
        np.minimum.at(first, whole, table["core_first"])
        gap, core = table["contacts"].T
        touching[position] = np.stack([gap, cores.of_block(position, core) + 1], axis=1)
    owners = hole_owners(gaps, tables, touching)
    for position, table in tables.items():
        whole = gaps.of_block(position, np.arange(1, len(table["gap_sizes"]) + 1))
        np.add.at(sizes, owners[whole], table["gap_sizes"])
    stays = sizes[1:] >= max(min_size, 1)
    order = np.argsort(first, kind="stable")
    numbers = np.zeros(cores.total + 1, np.int64)
    numbers[order + 1] = np.where(stays[order], np.cumsum(stays[order]), 0)
    return numbers[1:], numbers[owners]


def painted(labels: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Replace the labels 1 ... n of a block by n numbers; 0 stays 0. uint32.

    Example:
        >>> painted(np.array([[0, 2, 1]]), np.array([7, 9])).tolist()
        [[0, 9, 7]]
    """
    return np.concatenate([[0], numbers]).astype(np.uint32)[labels]
