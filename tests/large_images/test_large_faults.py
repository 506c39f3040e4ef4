"""Bad files, mistaken settings, rights and full disks, through the config for images larger than memory."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
import torch
import zarr
from monai.bundle import ConfigWorkflow
from unet_monai.bundle.errors import first_cause, says_all
from unet_monai.large_images import export_tiff

from tests.bundle.conftest import REPOSITORY, run_bundle
from tests.bundle.test_small_disk import PAGE
from tests.bundle.test_small_disk import small_disk as small_disk  # a fixture
from tests.large_images.images import make_finding_network
from tests.large_images.pairs import write_zarr
from tests.large_images.test_segmenter import draw_nuclei, read
from tests.rights import needs_rights, rights

CONFIG = REPOSITORY / "bundle" / "configs" / "inference_large.json"
CELLS = draw_nuclei(90, 100)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with weights and a good image."""
    torch.save(make_finding_network().state_dict(), tmp_path / "model.pt")
    torch.save(make_finding_network(3).state_dict(), tmp_path / "volumes.pt")
    tifffile.imwrite(tmp_path / "good.tif", CELLS, tile=(32, 32))
    return tmp_path


def infer(folder: Path, image: Path, **settings: Any) -> None:
    """Run the config in this process."""
    checkpoint = "volumes.pt" if settings.get("spatial_dims") == 3 else "model.pt"
    places = {"input": str(image), "output_dir": str(folder / "out"), "checkpoint": str(folder / checkpoint)}
    settings = {**places, "bundle_root": str(folder), "chunk": 32, "reach": 16, "device": "cpu", **settings}
    workflow = ConfigWorkflow(str(CONFIG), logging_file=False, **settings)
    workflow.initialize()
    workflow.run()


def line_of(call: Callable[[], None]) -> str:
    """Return the one line that the command shows of an error, and nothing else."""
    with pytest.raises((RuntimeError, ValueError, OSError)) as error:
        call()
    cause = first_cause(error.value)
    assert says_all(cause), repr(cause)
    assert "\n" not in str(cause)
    return str(cause)


def cut(path: Path, **options: Any) -> None:
    """Write a TIFF whose second half is lost."""
    tifffile.imwrite(path, np.tile(CELLS, (3, 3)), **options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_stack(path: Path) -> None:
    """Write a volume of 6 pages; the file ends between two of them, so that the pages before can be read."""
    with tifffile.TiffWriter(path) as tif:
        for page in np.zeros((6, 64, 64), np.uint8):
            tif.write(page, contiguous=False, metadata=None, photometric="minisblack")
    with tifffile.TiffFile(path) as tif:
        end = tif.pages[3].offset
    path.write_bytes(path.read_bytes()[:end])


def cut_nifti(path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((30, 31, 9), np.uint8), np.eye(4)), path)
    path.write_bytes(path.read_bytes()[:900])


def with_number(path: Path, number: float) -> None:
    pixels = CELLS.astype(np.float32)
    pixels[70, 80] = number
    tifffile.imwrite(path, pixels, tile=(32, 32))


def cut_chunk(path: Path) -> None:
    zarr.create_array(path, data=CELLS, chunks=(32, 32))
    (path / "c" / "1" / "1").write_bytes(b"(")


def wrongly_named(path: Path) -> None:
    """Write an OME-Zarr that names two axes of an array of three."""
    write_zarr(path, CELLS)
    shutil.rmtree(path / "0")
    zarr.create_array(path / "0", data=np.zeros((2, 40, 40), np.uint8))


def write(path: Path, *shape: int, dtype: str = "uint8", photometric: str = "minisblack") -> None:
    tifffile.imwrite(path, np.zeros(shape, dtype), photometric=photometric)


UNREADABLE = "must be a readable image file, got"
FOLDER = "must be a Zarr array or an OME-Zarr image, got a folder of other files."
BAD_FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "tiles.tif": (lambda path: cut(path, tile=(64, 64)), f"{UNREADABLE} TiffFileError: corrupted tile .*"),
    "zlib.tif": (lambda path: cut(path, tile=(64, 64), compression="zlib"), f"{UNREADABLE} DeflateError: .*"),
    "strip.tif": (cut, f"{UNREADABLE} TiffFileError: corrupted strip .*"),
    "empty.tif": (Path.touch, f"{UNREADABLE} TiffFileError: not a TIFF file(: header=| )b''"),
    "text.tif": (lambda path: path.write_text("no picture"), f"{UNREADABLE} TiffFileError: not a TIFF .*"),
    "text.nii": (lambda path: path.write_text("no picture"), f"{UNREADABLE} ImageFileError: .*"),
    "folder": (Path.mkdir, re.escape(FOLDER)),
    "folder.zarr": (Path.mkdir, re.escape(FOLDER)),
    "chunk.zarr": (cut_chunk, f"{UNREADABLE} RuntimeError: .*"),
    "nan.tif": (lambda path: with_number(path, np.nan), "must hold finite numbers, got NaN or infinity .*"),
    "infinity.tif": (lambda path: with_number(path, -np.inf), "must hold finite numbers, got NaN or infinity .*"),
    "huge.tif": (lambda path: tifffile.imwrite(path, np.full((50, 60), 1e300)), "must hold numbers of at most .*"),
    "outlier.tif": (lambda path: with_number(path, 1e30), "must hold no values far outside of the others, .*"),
    "rows.tif": (lambda path: write(path, 0, 60), r"must hold at least one pixel, got shape \(0, 60\)\."),
    "columns.tif": (lambda path: write(path, 50, 0), r"must hold at least one pixel, got shape \(50, 0\)\."),
    "zero.nii": (
        lambda path: nibabel.save(nibabel.Nifti1Image(np.zeros((0, 7), np.uint8), np.eye(4)), path),
        r"must hold at least one pixel, got shape \(0, 7\)\.",
    ),
    "channels.tif": (lambda path: write(path, 50, 60, 5, photometric="rgb"), r"must be grey or RGB, got axes YXS .*"),
    "complex.tif": (lambda path: write(path, 50, 60, dtype="complex64"), "must hold real numbers, got complex64 .*"),
    "stack.tif": (lambda path: write(path, 5, 50, 60), r"must be one image of 2 .* got axes \w+ .*\(5, 50, 60\)\."),
    "four.tif": (lambda path: write(path, 2, 3, 50, 60), r"must be one image of 2 .*\(2, 3, 50, 60\)\."),
    "four.zarr": (
        lambda path: zarr.create_array(path, data=np.zeros((2, 3, 50, 60), np.uint8)),
        r"must be one image of 2 spatial axes, got axes ZYX of shape \(2, 3, 50, 60\)\.",
    ),
    "axes.zarr": (wrongly_named, r"must be one image of 2 spatial axes, got axes YX of shape \(2, 40, 40\)\."),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_one_line_with_its_cause(folder: Path, name: str) -> None:
    make, message = BAD_FILES[name]
    make(folder / name)
    assert re.fullmatch(f"{folder}/{re.escape(name)} {message}", line_of(lambda: infer(folder, folder / name)))
    assert not [path.name for path in (folder / "out").glob("*") if not path.name.startswith(".part-")]


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        (
            "pages.tif",
            cut_stack,
            r"must hold all its pages, got \d+ bytes, with a further page at \d+: it is cut off\.",
        ),
        ("cut.nii", cut_nifti, f"{UNREADABLE} OSError: Expected .*"),
        ("flat.tif", lambda path: write(path, 50, 60), r"must be one image of 3 spatial axes, got axes YX .*"),
        (
            "four.nii",
            lambda path: nibabel.save(nibabel.Nifti1Image(np.zeros((9, 8, 7, 2), np.uint8), np.eye(4)), path),
            r"must be one image of 3 spatial axes, got axes XYZT of shape \(9, 8, 7, 2\)\.",
        ),
    ],
)
def test_a_bad_volume_is_one_line_with_its_cause(
    folder: Path, name: str, make: Callable[[Path], Any], message: str
) -> None:
    make(folder / name)
    line = line_of(lambda: infer(folder, folder / name, spatial_dims=3, reach=4, chunk=8))
    assert re.fullmatch(f"{folder}/{re.escape(name)} {message}", line)
    assert not [path.name for path in (folder / "out").glob("*") if not path.name.startswith(".part-")]


@pytest.mark.parametrize("name", ["missing.tif", "missing.zarr", "link.tif", "link.zarr"])
def test_a_file_that_is_not_there(folder: Path, name: str) -> None:
    if name.startswith("link"):
        (folder / name).symlink_to(folder / name)
    line = line_of(lambda: infer(folder, folder / name))
    assert re.fullmatch(rf"image( file)? must exist, got {folder}/{name}( \(a link that leads nowhere\))?\.", line)
    assert not (folder / "out").exists()


def test_names_with_blanks_and_of_any_script(folder: Path) -> None:
    out = folder / "my ä 結果"
    tifffile.imwrite(folder / "z ä 细胞.tif", CELLS)
    zarr.create_array(folder / "ö 2.zarr", data=CELLS, chunks=(32, 32))
    for name in ("good.tif", "z ä 细胞.tif", "ö 2.zarr"):
        infer(folder, folder / name, output_dir=str(out), save_tiff=True)
    assert len(list(out.iterdir())) == 6
    good = read(out / "good_cells.zarr")
    assert good.max() > 3, "test invalid"
    for name in ("z ä 细胞", "ö 2"):
        np.testing.assert_array_equal(read(out / f"{name}_cells.zarr"), good)
        np.testing.assert_array_equal(tifffile.imread(out / f"{name}_cells.tif"), good.T)


@pytest.mark.parametrize("shape", [(50, 60), (1, 1)])
def test_a_constant_image_is_one_without_cells(folder: Path, shape: tuple[int, int]) -> None:
    tifffile.imwrite(folder / "constant.tif", np.full(shape, 7, np.uint16))
    infer(folder, folder / "constant.tif")
    cells = read(folder / "out" / "constant_cells.zarr")
    assert cells.shape == shape[::-1]
    assert cells.max() == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"roi_size": [124, 124, 124]},
            r"roi_size must be one side, or one for each of 2 axes, got \[124, 124, 124\]\.",
        ),
        ({"roi_size": [124]}, r"roi_size must be one side, or one for each of 2 axes, got \[124\]\."),
        ({"memory_budget": -5}, r"memory_budget must be at least \d+ bytes, .*, got -5\."),
        ({"mask": "missing.png"}, r"image file must exist, got missing\.png\."),
        ({"in_channels": 2}, r"in_channels must be 1 \(grey\) or 3 \(RGB\), got 2\."),
        ({"output_dir": "{folder}/good.tif"}, r"\[Errno 20\] Not a directory: '.*/good\.tif/\.part-good'"),
        (
            {"checkpoint": "{folder}/good.tif"},
            r"weights must be a file of weights such as model\.pt, got .*/good\.tif .*",
        ),
    ],
)
def test_mistaken_settings_stop_before_the_first_block(folder: Path, settings: dict[str, Any], message: str) -> None:
    settings = {k: v.format(folder=folder) if isinstance(v, str) else v for k, v in settings.items()}
    assert re.fullmatch(message, line_of(lambda: infer(folder, folder / "good.tif", **settings)))
    assert not (folder / "out").exists()


def test_two_numbers_for_the_tiles_of_a_volume(folder: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((9, 8, 7), np.uint8), np.eye(4)), folder / "volume.nii")
    line = line_of(lambda: infer(folder, folder / "volume.nii", spatial_dims=3, reach=4, chunk=8, roi_size=[28, 28]))
    assert line == "roi_size must be one side, or one for each of 3 axes, got [28, 28]."
    assert not (folder / "out").exists()


def test_tiles_of_two_sides_are_no_other_settings_after_a_restart(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are a tuple when they come from the command line as (28, 36), and a list in the record of the run."""

    def failing(source: Path, target: Path) -> Path:
        raise OSError(5, "Input/output error", str(target))

    with monkeypatch.context() as patch:
        patch.setattr("unet_monai.large_images.segmenter.export_tiff", failing)
        line = line_of(lambda: infer(folder, folder / "good.tif", save_tiff=True, roi_size=(28, 36)))
    assert line == f"[Errno 5] Input/output error: '{folder}/out/.part-good/good_cells.tif'"
    infer(folder, folder / "good.tif", save_tiff=True, roi_size=(28, 36))
    assert read(folder / "out" / "good_cells.zarr").max() > 3


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (["--memory_bugdet", "5"], r"ValueError: unknown setting '--memory_bugdet': did you mean '--memory_budget'\?"),
        *(
            pytest.param(words, line, marks=pytest.mark.slow)
            for words, line in (
                (["--chunk", "large"], "ValueError: --chunk must be a whole number, got 'large'."),
                (["--save_tiff", "yes"], "ValueError: --save_tiff must be True or False, .*, got 'yes'."),
                (["--roi_size", "[28,28,28]"], "ValueError: roi_size must be one side, or one for each of 2 axes, .*"),
                (["--input", "missing.tif"], "FileNotFoundError: image file must exist, got missing.tif."),
                (["--input", "{folder}/nan.tif"], r"ValueError: .*/nan\.tif must hold finite numbers, got NaN .*"),
            )
        ),
    ],
)
def test_the_command_ends_with_one_line_and_code_1(folder: Path, settings: list[str], line: str) -> None:
    with_number(folder / "nan.tif", np.nan)
    words = [word.format(folder=folder) for word in settings]
    places = ["--input", folder / "good.tif", "--output_dir", folder / "out", "--checkpoint", folder / "model.pt"]
    result = run_bundle(folder, "evaluating", "--config_file", CONFIG, *places, "--chunk", 32, *words)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert re.fullmatch(line, result.stderr.strip().splitlines()[-1])
    assert not list((folder / "out").glob("*.zarr"))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may read, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@needs_rights
def test_a_folder_that_may_not_be_written_to(folder: Path, open_folder: Path) -> None:
    for path in folder.iterdir():
        shutil.copy(path, open_folder)
        (open_folder / path.name).chmod(0o644)
    write_zarr(open_folder / "cells.zarr", CELLS)
    (open_folder / "out").mkdir()
    with rights(open_folder / "out", 0o555):
        line = line_of(lambda: infer(open_folder, open_folder / "good.tif"))
        export = line_of(lambda: _export(open_folder / "cells.zarr", open_folder / "out" / "cells.tif"))
    assert line == f"[Errno 13] Permission denied: '{open_folder}/out/.part-good'"
    assert export.startswith(f"{open_folder}/out/cells.tif must be writable, got PermissionError: [Errno 13] ")
    assert not list((open_folder / "out").iterdir())


def _export(source: Path, target: Path) -> None:
    export_tiff(source, target)


@pytest.mark.parametrize("pages", [0, 1, 20])
def test_a_full_disk_while_the_tiff_is_exported_leaves_the_one_before(
    tmp_path: Path, small_disk: Callable[[int], Path], pages: int
) -> None:
    """Full before the first byte, after the header, and in the midst of the tiles."""
    noise = np.random.default_rng(0).integers(0, 2**31, (700, 600), dtype=np.uint32)
    write_zarr(tmp_path / "cells.zarr", noise)
    disk = small_disk((1 + pages) * PAGE)
    (disk / "cells.tif").write_bytes(b"of before")
    line = line_of(lambda: _export(tmp_path / "cells.zarr", disk / "cells.tif"))
    assert line == f"{disk}/cells.tif must be writable, got OSError: [Errno 28] No space left on device"
    assert [path.name for path in disk.iterdir()] == ["cells.tif"]
    assert (disk / "cells.tif").read_bytes() == b"of before"


def test_a_full_disk_while_a_run_exports_its_tiff_can_be_continued(
    folder: Path, small_disk: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    infer(folder, folder / "good.tif", output_dir=str(folder / "whole"), save_tiff=True)
    disk = small_disk(PAGE)
    (disk / "others").write_bytes(bytes(PAGE))

    def export_to_full_disk(source: Path, target: Path) -> Path:
        return export_tiff(source, disk / target.name)

    with monkeypatch.context() as patch:
        patch.setattr("unet_monai.large_images.segmenter.export_tiff", export_to_full_disk)
        line = line_of(lambda: infer(folder, folder / "good.tif", save_tiff=True))
    assert line == f"{disk}/good_cells.tif must be writable, got OSError: [Errno 28] No space left on device"
    assert not list((folder / "out").glob("good*"))
    infer(folder, folder / "good.tif", save_tiff=True)
    assert (folder / "out" / "good_cells.tif").read_bytes() == (folder / "whole" / "good_cells.tif").read_bytes()
