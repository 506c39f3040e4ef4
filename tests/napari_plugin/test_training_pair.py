"""Saved pairs are found and read by training, and nothing that was there is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from unet_monai.data import CellImageReader, LabelReader, draw_cells, find_pairs
from unet_monai.napari_plugin import training_pair
from unet_monai.napari_plugin.training_pair import LabelExistsError, cells_in_parts, save_pair

IMAGE, LABELS = draw_cells(7, (50, 70))


def read_back(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the only pair of a data set, rows first."""
    (pair,) = find_pairs(root)
    image, label = CellImageReader(2, 1), LabelReader()
    return (image.get_data(image.read(pair["image"]))[0][0].T, label.get_data(label.read(pair["label"]))[0][0].T)


def contents(root: Path) -> list[str]:
    return sorted(file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, ">u2"])
def test_a_new_pair_is_read_as_it_was_saved(tmp_path: Path, dtype: str) -> None:
    image = (IMAGE * 3.0).astype(dtype)
    saved = save_pair(tmp_path / "new set", "cells 1", image, LABELS)
    assert contents(tmp_path / "new set") == ["images/cells 1.tif", "labels/cells 1.tif"]
    assert (saved.new_image, saved.num_cells, saved.in_parts) == (True, LABELS.max(), [])
    pixels, labels = read_back(tmp_path / "new set")
    assert pixels.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(pixels, image)
    np.testing.assert_array_equal(labels, LABELS)


def test_colours_are_kept(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (50, 70, 4), dtype=np.uint8)
    saved = save_pair(tmp_path, "a", colours, LABELS)
    reader = CellImageReader(2, 3)
    np.testing.assert_array_equal(reader.get_data(reader.read(str(saved.image)))[0], colours[..., :3].transpose())


def test_numbers_become_consecutive_and_unedited_ones_stay(tmp_path: Path) -> None:
    gaps = np.array([[5, 5, 0], [0, 9, 70_000], [5, 0, 70_000]])
    saved = save_pair(tmp_path, "a", np.zeros((3, 3), np.uint8), gaps)
    np.testing.assert_array_equal(read_back(tmp_path)[1], [[1, 1, 0], [0, 2, 3], [1, 0, 3]])
    assert saved.num_cells == 3
    assert saved.in_parts == [1], "a cell in two parts must be told"


def test_parts_that_touch_at_a_corner_are_one() -> None:
    assert cells_in_parts(np.array([[1, 0, 2], [0, 1, 0], [2, 0, 0]])) == [2]


def test_the_image_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.fromarray(IMAGE).save(tmp_path / "images" / "a.png")
    before = (tmp_path / "images" / "a.png").stat()
    saved = save_pair(tmp_path, "a", IMAGE, LABELS)
    assert not saved.new_image
    assert contents(tmp_path) == ["images/a.png", "labels/a.png"]
    assert (tmp_path / "images" / "a.png").stat().st_mtime_ns == before.st_mtime_ns
    np.testing.assert_array_equal(read_back(tmp_path)[1], LABELS)


def test_another_image_of_the_name_is_refused(tmp_path: Path) -> None:
    save_pair(tmp_path, "a", IMAGE, LABELS)
    with pytest.raises(ValueError, match=r"^name must be that of no other image in the data set, got a, as .*a\.tif"):
        save_pair(tmp_path, "a", IMAGE + 1, LABELS, replace=True)
    np.testing.assert_array_equal(read_back(tmp_path)[0], IMAGE)


def test_a_label_is_replaced_on_demand_only_and_kept(tmp_path: Path) -> None:
    save_pair(tmp_path, "a", IMAGE, LABELS)
    with pytest.raises(LabelExistsError, match=r"^replace must be on, since a has a label already, got .*a\.tif\.$"):
        save_pair(tmp_path, "a", IMAGE, np.ones_like(LABELS))
    np.testing.assert_array_equal(read_back(tmp_path)[1], LABELS)
    for edited in (np.where(LABELS == 1, 0, LABELS), np.where(LABELS == 2, 0, LABELS)):
        save_pair(tmp_path, "a", IMAGE, edited, replace=True)
        assert (read_back(tmp_path)[1] > 0).sum() == (edited > 0).sum()
    assert contents(tmp_path / "replaced_labels") == ["1_a.tif", "2_a.tif"]
    first = LabelReader().read(str(tmp_path / "replaced_labels" / "1_a.tif")).array[0].T
    np.testing.assert_array_equal(first, LABELS)


@pytest.mark.parametrize("form", ["a_seg.npy", "a_cp_masks.png", "a_masks.tif", "a.bmp"])
def test_a_label_of_another_form_does_not_hide_the_new_one(tmp_path: Path, form: str) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    Image.fromarray(IMAGE).save(tmp_path / "images" / "a.png")
    if form.endswith(".npy"):
        np.save(tmp_path / "labels" / form, {"masks": np.minimum(LABELS, 2)})
    else:
        Image.fromarray(np.minimum(LABELS, 2).astype(np.uint8)).save(tmp_path / "labels" / form)
    assert read_back(tmp_path)[1].max() == 2, "test invalid"
    with pytest.raises(LabelExistsError, match=f"got .*{form}"):
        save_pair(tmp_path, "a", IMAGE, LABELS)
    save_pair(tmp_path, "a", IMAGE, LABELS, replace=True)
    np.testing.assert_array_equal(read_back(tmp_path)[1], LABELS)
    assert f"replaced_labels/1_{form}" in contents(tmp_path)


def test_masks_stay_in_use(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    assert save_pair(tmp_path, "a", IMAGE, LABELS).label == tmp_path / "masks" / "a.tif"


def test_another_layout_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "01_GT" / "SEG").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"^dataset_dir must hold images/ and labels/, or nothing yet, got 01_GT in "):
        save_pair(tmp_path, "a", IMAGE, LABELS)
    assert [entry.name for entry in tmp_path.iterdir()] == ["01_GT"]


@pytest.mark.parametrize("name", ["", "a/b", "..", ".a", " a", "stack#3", "a\\b"])
def test_a_name_that_is_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"^name must be that of a file, without folder and suffix, got "):
        save_pair(tmp_path, name, IMAGE, LABELS)
    assert contents(tmp_path) == []


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS.T, r"labels must be integers of the image's \(50, 70\), got uint16 \(70, 50\)\."),
        (LABELS / 2, r"labels must be integers of the image's \(50, 70\), got float64 "),
        (LABELS * 0, r"labels must hold cells numbered from 1, got 0 to 0\."),
        (LABELS.astype(int) - 1, r"labels must hold cells numbered from 1, got -1 to "),
    ],
)
def test_labels_that_do_not_fit(tmp_path: Path, labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        save_pair(tmp_path, "a", IMAGE, labels)
    assert contents(tmp_path) == []


def test_a_label_that_cannot_be_written_leaves_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("full disk")

    monkeypatch.setattr(training_pair, "write_instances", fail)
    with pytest.raises(OSError, match="full disk"):
        save_pair(tmp_path, "a", IMAGE, LABELS)
    assert contents(tmp_path) == []
