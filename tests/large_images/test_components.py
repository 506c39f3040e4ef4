from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage, special
from unet_monai.large_images.block_grid import Block, block_grid
from unet_monai.large_images.block_instances import CORE, BlockInstances, marks_of
from unet_monai.large_images.components import Table, merge_pieces, painted, piece_table
from unet_monai.large_images.ome_zarr import BlockArray, open_ome_zarr
from unet_monai.transforms import LogitsToInstances

from tests.drawings import draw


def smooth_scores(seed: int, size: tuple[int, ...], classes: int, sigma: float) -> np.ndarray:
    """Draw scores of blobs with holes, bridges and nested pieces."""
    noise = np.random.default_rng(seed).normal(size=(classes, *size))
    smoothed = np.stack([ndimage.gaussian_filter(each, sigma) for each in noise])
    return (smoothed / smoothed.std() * 2).astype(np.float32)


def by_blocks(
    folder: Path, scores: np.ndarray, block: tuple[int, ...], knobs: LogitsToInstances, reach: int = 1000
) -> np.ndarray:
    size = scores.shape[1:]
    everything = Block((0,) * len(size), size)
    folder.mkdir(exist_ok=True)
    marks = open_ome_zarr(folder / "marks.zarr", size, "uint8", chunk=64)
    marks.write(everything, marks_of(special.softmax(scores, axis=0), knobs))
    found = open_ome_zarr(folder / "found.zarr", size, "uint32", chunk=64)
    grid = block_grid(size, block)
    work = BlockInstances(folder, size, grid, knobs, reach=reach, chunk=64)
    count = work.find(marks, found, ridges=len(scores) == 2)
    instances = found.read(everything)
    assert count == instances.max()
    return instances


@pytest.mark.parametrize("connectivity", [1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_merged_pieces_are_those_of_the_whole_image(seed: int, connectivity: int) -> None:
    size = (37, 29)
    mask = np.random.default_rng(seed).random(size) < 0.55
    structure = ndimage.generate_binary_structure(2, connectivity)
    expected, count = ndimage.label(mask, structure)
    grid, labels, tables = block_grid(size, (8, 16)), {}, {}
    for position, block in grid.items():
        window = block.widened(0, 1, size)
        labels[position] = ndimage.label(mask[window.slices], structure)[0]
        tables[position] = piece_table("core", labels[position], block, window, size)
    pieces = merge_pieces("core", tables)
    assert pieces.total == count
    found = np.zeros(size, int)
    numbers = pieces.by_block(np.arange(1, count + 1))
    for position, block in grid.items():
        window = block.widened(0, 1, size)
        numbered = painted(labels[position], numbers[position])
        found[block.slices] = numbered[block.within(window)]
    pairs = np.unique(np.stack([expected.ravel(), found.ravel()]), axis=1)
    assert pairs.shape[1] == count + 1, "each piece has one number, and each number one piece"
    check_sizes_and_first_pixels(tables, labels, grid, expected, found, pieces.merged)


def check_sizes_and_first_pixels(
    tables: Mapping[tuple, Table],
    labels: Mapping[tuple, np.ndarray],
    grid: Mapping[tuple, Block],
    expected: np.ndarray,
    found: np.ndarray,
    merged: np.ndarray,
) -> None:
    sizes, first = np.zeros(merged.max() + 2, int), np.full(merged.max() + 2, expected.size)
    np.add.at(sizes, merged + 1, np.concatenate([t["core_sizes"] for t in tables.values()]))
    np.minimum.at(first, merged + 1, np.concatenate([t["core_first"] for t in tables.values()]))
    np.testing.assert_array_equal(sizes[1:], np.bincount(found.ravel())[1:])
    np.testing.assert_array_equal(first[1:], np.unique(found.T, return_index=True)[1][1:])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(("sigma", "block"), [(1.0, (16, 16)), (2.0, (24, 8)), (1.5, (64, 24))])
def test_instances_are_those_of_the_whole_image(
    tmp_path: Path, seed: int, classes: int, sigma: float, block: tuple[int, int]
) -> None:
    scores = smooth_scores(seed, (61, 47), classes, sigma)
    knobs = LogitsToInstances(threshold=0.6, min_size=9)
    expected = knobs(scores)[0]
    assert expected.max() > 2, "test invalid"
    np.testing.assert_array_equal(by_blocks(tmp_path, scores, block, knobs), expected)


@pytest.mark.parametrize("classes", [2, 3])
def test_in_3d(tmp_path: Path, classes: int) -> None:
    scores = smooth_scores(0, (25, 20, 18), classes, 1.2)
    knobs = LogitsToInstances(threshold=0.6, min_size=5)
    np.testing.assert_array_equal(by_blocks(tmp_path, scores, (8, 16, 8), knobs), knobs(scores)[0])


def test_a_ring_over_all_blocks_is_one_cell_and_its_hole_is_filled(tmp_path: Path) -> None:
    """Its core is a thin ring of fewer pixels than min_size; a nested cell keeps the other ring's hole open."""
    cells = draw("""
        .........................
        .1111111111111..2222222..
        .1...........1..2.....2..
        .1...........1..2..3..2..
        .1...........1..2.....2..
        .1...........1..2222222..
        .1...........1...........
        .1111111111111...........
    """)
    classes = (cells > 0).astype(int)
    scores = np.moveaxis(9.0 * np.eye(3)[classes], -1, 0)
    knobs = LogitsToInstances(min_size=60)
    expected = np.zeros_like(cells)
    expected[1:8, 1:14] = 1
    np.testing.assert_array_equal(by_blocks(tmp_path / "a", scores, (4, 4), knobs), expected)
    nested = LogitsToInstances(min_size=1)
    np.testing.assert_array_equal(by_blocks(tmp_path / "b", scores, (4, 4), nested), nested(scores)[0])


def test_growth_ends_at_reach_wherever_blocks_begin(tmp_path: Path) -> None:
    scores = np.moveaxis(9.0 * np.eye(3)[np.array([[1, *[2] * 30, 0, 0, 0]])], -1, 0)
    knobs = LogitsToInstances(min_size=1)
    whole = knobs(scores)[0]
    np.testing.assert_array_equal(by_blocks(tmp_path / "far", scores, (8, 8), knobs, reach=30), whole)
    for side in (8, 16):
        near = by_blocks(tmp_path / str(side), scores, (side, side), knobs, reach=20)
        assert near[0].tolist() == [1] * 21 + [0] * 13


class Failing(BlockArray):
    """An array whose n-th write fails."""

    def __init__(self, array: BlockArray, writes: int) -> None:
        super().__init__(array.array)
        self.writes = writes

    def write(self, block: Block, pixels: np.ndarray) -> None:
        self.writes -= 1
        if self.writes == 0:
            raise KeyboardInterrupt
        super().write(block, pixels)


def test_a_run_that_was_cut_off_continues(tmp_path: Path) -> None:
    scores, knobs = smooth_scores(1, (40, 40), 3, 1.5), LogitsToInstances(threshold=0.6, min_size=9)
    size = scores.shape[1:]
    marks = open_ome_zarr(tmp_path / "marks.zarr", size, "uint8", chunk=64)
    everything = Block((0, 0), size)
    marks.write(everything, marks_of(special.softmax(scores, axis=0), knobs))
    found = open_ome_zarr(tmp_path / "found.zarr", size, "uint32", chunk=64)
    work = BlockInstances(tmp_path, size, block_grid(size, (16, 16)), knobs, reach=99, chunk=64)
    with pytest.raises(KeyboardInterrupt):
        work.find(marks, Failing(found, 4), ridges=False)
    marks.write(everything, np.zeros(size, np.uint8))  # not read again: all blocks were marked, labelled and grown
    continued = Failing(found, 99)
    work.find(marks, continued, ridges=False)
    assert continued.writes == 99 - 6, "the three blocks that were finished are not written again"
    np.testing.assert_array_equal(found.read(everything), knobs(scores)[0])


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="reach must be at least 1 px, got 0"):
        BlockInstances(tmp_path, (4, 4), {}, LogitsToInstances(), reach=0, chunk=8)
    with pytest.raises(ValueError, match=r"fill_holes must be True .* got False"):
        BlockInstances(tmp_path, (4, 4), {}, LogitsToInstances(fill_holes=False), reach=9, chunk=8)
    with pytest.raises(ValueError, match="neck_depth must be 0 for images larger than memory, got 2"):
        BlockInstances(tmp_path, (4, 4), {}, LogitsToInstances(neck_depth=2), reach=9, chunk=8)


def test_marks() -> None:
    assert CORE == 1
    probability = np.array([[0.69, 0.71, 0.3, 0.25], [0.31, 0.29, 0.7, 0.75]])
    assert marks_of(probability, LogitsToInstances()).tolist() == [2, 0, 2, 3]


@pytest.mark.parametrize("only", [0, 1])
def test_no_cell_and_no_background(tmp_path: Path, only: int) -> None:
    scores = np.moveaxis(9.0 * np.eye(3)[np.full((20, 20), only)], -1, 0)
    found = by_blocks(tmp_path, scores, (16, 16), LogitsToInstances())
    np.testing.assert_array_equal(found, np.full((20, 20), only))
