from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from unet_monai.large_images import PairReader, lazy_cell_diameter, split_labelled_blocks
from unet_monai.large_images.lazy_pairs import find_lazy_pairs

from tests.large_images.pairs import write_tiff


def write_set(folder: Path, **cells: list[tuple[int, int]]) -> Path:
    """Write pairs of 1100 x 600 px (3 x 2 blocks) with cells of 20 x 10 px at the given pixels."""
    for name, places in cells.items():
        label = np.zeros((1100, 600), np.uint16)
        for number, (x, y) in enumerate(places, start=1):
            label[x : x + 20, y : y + 10] = number
        for kind in ("images", "labels"):
            write_tiff(folder / kind / f"{name}.tif", label, tile=512)
    return folder


def numbers(split: dict[str, list[dict[str, Any]]]) -> list[tuple[str, int]]:
    return [(Path(item["image"]).stem, item["block"]) for item in split["validation"]]


class TestSplit:
    def test_blocks_with_cells_validate_spread_over_the_files(self, tmp_path: Path) -> None:
        write_set(tmp_path, a=[(5, 5), (5, 550), (600, 5)], b=[(600, 550), (1050, 5), (1050, 550)])
        reader = PairReader()
        split = split_labelled_blocks(tmp_path, reader, validation=0.34)
        assert numbers(split) == [("a", 1), ("b", 4)]
        assert [item["held_out"] for item in split["training"]] == [[1], [4]]
        assert numbers(split_labelled_blocks(tmp_path, reader, validation=0.9, max_windows=1)) == [("b", 3)]
        assert len(numbers(split_labelled_blocks(tmp_path, reader, validation=0.01))) == 1
        assert len(numbers(split_labelled_blocks(tmp_path, reader, validation=0.99))) == 5

    def test_a_file_whose_only_cells_validate_does_not_train(self, tmp_path: Path) -> None:
        write_set(tmp_path, a=[(5, 5)], b=[(5, 5)])
        split = split_labelled_blocks(tmp_path, PairReader())
        assert numbers(split) == [("b", 0)]
        assert [Path(item["image"]).stem for item in split["training"]] == ["a"]

    def test_without_validation(self, tmp_path: Path) -> None:
        split = split_labelled_blocks(write_set(tmp_path, a=[(5, 5)]), PairReader(), validation=0)
        assert split["validation"] == []
        assert [item["held_out"] for item in split["training"]] == [[]]
        with pytest.raises(ValueError, match=r"labels must fill two blocks of 512 px for one to validate, got one in"):
            split_labelled_blocks(tmp_path, PairReader())

    @pytest.mark.parametrize("validation", [1, -0.1, "t0*", True])
    def test_other_shares(self, tmp_path: Path, validation: Any) -> None:
        with pytest.raises(ValueError, match=r"validation must be a share of the blocks, at least 0 and below 1, got"):
            split_labelled_blocks(tmp_path, PairReader(), validation=validation)

    @pytest.mark.parametrize("windows", [0, -3])
    def test_no_windows(self, tmp_path: Path, windows: int) -> None:
        with pytest.raises(ValueError, match=rf"max_windows must be at least 1, got {windows}: set validation to 0"):
            split_labelled_blocks(tmp_path, PairReader(), max_windows=windows)

    def test_a_margin_annotates_no_background(self, tmp_path: Path) -> None:
        (pair,) = find_lazy_pairs(write_set(tmp_path, a=[(605, 25)]))
        for margin in (0, 20):
            assert PairReader(margin=margin).places(pair)[0].tolist() == [2]

    def test_what_only_files_in_memory_have(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"training_images must be None .*, got 3\."):
            split_labelled_blocks(tmp_path, PairReader(), training_images=3)
        with pytest.raises(ValueError, match=r"label_source must be None .*, got 'GT'\."):
            split_labelled_blocks(tmp_path, PairReader(), label_source="GT")


def test_diameter_is_that_of_whole_cells(tmp_path: Path) -> None:
    """The cells at the edge of the image and of a block are left out."""
    write_set(tmp_path, a=[(5, 5), (600, 30), (600, 60), (500, 300), (0, 200)], b=[(0, 0)])
    reader = PairReader()
    data = split_labelled_blocks(tmp_path, reader, validation=0)["training"]
    assert lazy_cell_diameter(data, reader) == pytest.approx(2 * np.sqrt(200 / np.pi))
    assert isnan(lazy_cell_diameter(data[1:], reader))
