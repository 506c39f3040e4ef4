"""Files of which a part is missing or wrong: the error names the file in one line, whatever the decoder says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import nibabel
import numpy as np
import pytest
import tifffile
from monai.transforms import Compose
from PIL import Image
from unet_monai import segment
from unet_monai.data import (
    CellImageReader,
    LabelReader,
    ReadableDataset,
    find_images,
    find_pairs,
    load_split,
    write_instances,
)
from unet_monai.data.fault_tolerant_dataset import FailedFilesError, first_cause
from unet_monai.data.image_formats import count_pages, picture_size
from unet_monai.networks import ValidUNet
from unet_monai.transforms import LoadCellImaged

from tests.rights import rights

NOISE = np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8)
RGB_16 = np.stack([NOISE * np.uint16(200)] * 3, axis=-1)


def read(path: Path | str, reader: Any = None) -> np.ndarray:
    reader = reader or CellImageReader()
    return reader.get_data(reader.read(str(path)))[0]


def write(path: Path) -> None:
    """Write the noise as the kind of file that the name says."""
    if path.name == "stack.tif":
        tifffile.imwrite(path, np.stack([NOISE] * 3), photometric="minisblack", compression="zlib", metadata=None)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, NOISE, compression=None if path.stem == "raw" else "lzw", rowsperstrip=8)
    elif path.name == "rgb16.png":
        path.write_bytes(imagecodecs.png_encode(RGB_16))
    elif ".nii" in path.name:
        nibabel.save(nibabel.Nifti1Image(NOISE, np.eye(4)), path)
    else:
        Image.fromarray(NOISE).save(path)


def error_of(ask: Callable[[str], Any], path: str) -> str | None:
    try:
        ask(path)
    except ValueError as error:
        return str(error)
    return None


KINDS = ["a.png", "rgb16.png", "a.jpg", "a.bmp", "raw.tif", "lzw.tif", "stack.tif", "a.nii", "a.nii.gz"]


@pytest.mark.parametrize("name", KINDS)
def test_files_cut_off_anywhere(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write(path)
    whole = path.read_bytes()
    address = f"{path}#2" if name == "stack.tif" else path
    assert read(address).size == 2000 if name != "rgb16.png" else True
    for length in np.linspace(0, len(whole) - 30, 12).astype(int):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=rf"^{path} must .*, got [^\n]+$"):
            read(address)


@pytest.mark.parametrize("name", KINDS)
def test_wrong_bytes_are_read_or_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write(path)
    whole, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(30):
        broken = bytearray(whole)
        for place in random.integers(min(len(broken), 600), size=3):
            broken[place] = random.integers(256)
        path.write_bytes(bytes(broken))
        for ask in (read, count_pages, picture_size):
            line = error_of(ask, str(path))
            assert line is None or re.fullmatch(rf"{path} must .*", line), line


def test_a_cut_stack_does_not_lose_its_last_pages_in_silence(tmp_path: Path) -> None:
    write(tmp_path / "stack.tif")
    with tifffile.TiffFile(tmp_path / "stack.tif") as tif:
        second = tif.pages[1].offset
    whole = (tmp_path / "stack.tif").read_bytes()
    (tmp_path / "stack.tif").write_bytes(whole[: second - 10])
    with pytest.raises(
        ValueError, match=rf"stack.tif must hold all its pages, got {second - 10} bytes, with .* {second}:"
    ):
        count_pages(str(tmp_path / "stack.tif"))
    assert find_images(tmp_path) == [{"image": str(tmp_path / "stack.tif")}], "one item, whose reading fails"


def test_an_image_too_large_to_decode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(
        ValueError, match=r"a\.png must be a readable image file, got DecompressionBombError: .*2000 pixels"
    ):
        read(tmp_path / "a.png")


def test_an_image_without_pixels(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((0, 5), np.uint8), np.eye(4)), tmp_path / "a.nii")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((0, 5), np.uint8))
    for name in ("a.nii", "a.tif"):
        with pytest.raises(ValueError, match=rf"{name} must .*, got .*shape \(0, 5\)"):
            read(tmp_path / name)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, -1e300, 3e38])
def test_numbers_that_float32_cannot_hold(tmp_path: Path, value: float) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0.0, value]]))
    with pytest.raises(
        ValueError, match=r"a\.tif must hold (finite numbers|numbers of at most 1\.7e\+38 either side of 0)"
    ):
        read(tmp_path / "a.tif")


def test_large_numbers_are_read(tmp_path: Path) -> None:
    for value in (np.float64(1e38), np.int64(2**62), np.uint64(2**63)):
        tifffile.imwrite(tmp_path / "a.tif", np.array([[0, value]], dtype=value.dtype))
        assert read(tmp_path / "a.tif").max() == value


@pytest.mark.parametrize("value", [1e8, -1e8, 1e38])
def test_a_value_far_outside_of_the_others(tmp_path: Path, value: float) -> None:
    pixels = np.random.default_rng(0).uniform(0, 200, (40, 30, 3)).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    CellImageReader(in_channels=3).read(str(tmp_path / "a.tif"))
    pixels[5, 6, 1] = value
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    with pytest.raises(ValueError, match=r"a\.tif must hold no values far outside of the others, nearly all .* to .*"):
        CellImageReader(in_channels=3).read(str(tmp_path / "a.tif"))
    with pytest.raises(ValueError, match=r"^image must hold no values far outside of the others"):
        segment(pixels[..., 1], ValidUNet(features=(2, 4)))
    tifffile.imwrite(tmp_path / "ids.tif", np.where(pixels[..., 0] > 0.1, 0, 2**31).astype(np.uint32))
    LabelReader().read(str(tmp_path / "ids.tif"))  # ids may be any


@pytest.mark.parametrize("target", ["a.png", "nowhere.png"])
def test_links_that_lead_nowhere_are_listed_and_named(tmp_path: Path, target: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").symlink_to(target)
    (item,) = find_images(tmp_path / "images")
    with pytest.raises(FileNotFoundError, match=r"must exist, got .*a\.png \(a link that leads nowhere\)\.$"):
        read(item["image"])
    (tmp_path / "labels").symlink_to("labels")
    with pytest.raises(FileNotFoundError, match=r"path must be an existing image or folder of images, got .*labels"):
        find_images(tmp_path / "labels")
    with pytest.raises(FileNotFoundError, match=r"dataset_dir must be an existing folder, got .*labels"):
        find_pairs(tmp_path / "labels")


@pytest.mark.parametrize("bad", ["images", "labels"])
def test_a_bad_file_is_one_pair_whose_reading_says_what_is_wrong(tmp_path: Path, bad: str) -> None:
    """Of a stack as well: its partner's first page can be read, and does not say something else."""
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "stack.tif")
    assert len(find_pairs(tmp_path)) == 3, "test invalid"
    (tmp_path / bad / "stack.tif").write_bytes(b"")
    (pair,) = find_pairs(tmp_path)
    both = LoadCellImaged(("image", "label"), CellImageReader())
    with pytest.raises(RuntimeError) as error:
        Compose([both])(pair)
    assert str(first_cause(error.value)).startswith(f"{tmp_path}/{bad}/stack.tif must be a readable image file, got ")


@pytest.mark.parametrize(
    "names", [("a.jpg", "a.png"), ("a.png", "a.tif"), ("a.nii.gz", "a.png"), ("a.png", "a_overlay.jpg")]
)
def test_images_of_the_same_results_are_listed_as_errors(tmp_path: Path, names: tuple[str, str]) -> None:
    """Of a.png and a.tif the label images differ in their names, the tables do not."""
    for name in (*names, "b.png", "a_b.png"):
        (tmp_path / name).touch()
    errors = {item["image"]: item["error"] for item in find_images(tmp_path) if "error" in item}
    assert errors == {
        f"{tmp_path}/{one}": f"{tmp_path}/{one} must not share the name of a result with another image, "
        f"got {other} beside it."
        for one, other in (names, names[::-1])
    }


def test_of_three_images_of_the_same_results_none_is_done(tmp_path: Path) -> None:
    for name in ("a.bmp", "a.png", "a.TIF"):
        (tmp_path / name).touch()
    lines = [item["error"] for item in find_images(tmp_path)]
    assert [line.partition(", got ")[2] for line in lines] == [
        "a.bmp, a.png beside it.",
        "a.TIF, a.png beside it.",
        "a.TIF, a.bmp beside it.",
    ]


def test_readable_items_are_kept_and_the_others_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "stack.tif")
    write(tmp_path / "b.png")
    write(tmp_path / "c.png")
    (tmp_path / "b.png").write_bytes(b"")
    transform = Compose([LoadCellImaged("image", CellImageReader())])
    items = ReadableDataset(find_images(tmp_path), transform, progress=False)
    assert [Path(item["image"].meta["filename_or_obj"]).name for item in items.data] == [
        "c.png",
        "stack.tif#0",
        "stack.tif#1",
        "stack.tif#2",
    ]
    assert list(items.failed) == [f"{tmp_path}/b.png"]
    assert [record.message for record in caplog.records] == [f"skipped: {line}" for line in items.failed.values()]
    with pytest.raises(FailedFilesError, match=r"^no image could be read with its label:\n.*/b\.png must be [^\n]+$"):
        ReadableDataset([{"image": f"{tmp_path}/b.png"}], transform, progress=False)


@pytest.mark.parametrize("name", ["zelle ä 1.png", "细胞 #2.tif", "a  b%20.nii.gz", "-x$y.png", "stack ü.tif"])
def test_names_of_any_kind(tmp_path: Path, name: str) -> None:
    instances = np.array([[0, 1], [2, 2], [0, 7]])
    write_instances(tmp_path / name, instances)
    (item,) = find_images(tmp_path)
    assert read(item["image"], LabelReader())[0].tolist() == instances.tolist()


def test_labels_of_few_and_tiny_cells(tmp_path: Path) -> None:
    rows = np.zeros((9, 9), np.uint16)
    tifffile.imwrite(tmp_path / "none.tif", rows)
    assert read(tmp_path / "none.tif", LabelReader()).max() == 0
    rows[2:5, 3] = 40
    tifffile.imwrite(tmp_path / "one.tif", rows)
    assert np.unique(read(tmp_path / "one.tif", LabelReader())).tolist() == [0, 1]
    rows[::2, ::2] = np.arange(1, 26).reshape(5, 5)
    rows[2:5, 3] = 0
    tifffile.imwrite(tmp_path / "pixels.tif", rows)
    assert read(tmp_path / "pixels.tif", LabelReader())[0].T.tolist() == rows.tolist()


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.nii.gz"])
def test_a_file_in_the_folders_place(tmp_path: Path, name: str) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(OSError, match=rf"^.*out/{name} must be writable, got NotADirectoryError: "):
        write_instances(tmp_path / "out" / name, np.ones((3, 4), int))


@pytest.fixture
def forbidden(tmp_path: Path) -> Iterator[Path]:
    """A data set with a folder that one may not look into; root, who may, is nobody meanwhile."""
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "a.tif", NOISE)
    with rights(tmp_path / "images", 0):
        yield tmp_path


@pytest.mark.parametrize(
    "ask",
    [lambda root: find_images(root / "images"), find_pairs, load_split, lambda root: read(root / "images" / "a.tif")],
)
def test_folders_without_the_right_to_read_them(forbidden: Path, ask: Callable[[Path], Any]) -> None:
    with pytest.raises(PermissionError, match=rf"^\[Errno 13\] Permission denied: '{re.escape(str(forbidden))}.*'$"):
        ask(forbidden)
