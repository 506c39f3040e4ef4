"""A disk that is really full: a tmpfs of a few pages, where this user may mount one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image
from unet_monai.handlers.checkpoints import save_atomically
from unet_monai.large_images import export_tiff
from unet_monai.large_images.ome_zarr import open_ome_zarr

from tests.bundle.test_faults import CELL, CELLS, CONFIGS, cause_of, infer, pairs, train
from tests.bundle.test_faults import folder as folder  # a fixture

PAGE = 4096


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mount a tmpfs of so many bytes, in whole pages."""
    place = tmp_path / "small disk"
    place.mkdir()

    def mount(size: int) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root may mount a tmpfs")
        return place

    yield mount
    subprocess.run(["umount", str(place)], capture_output=True)


def test_inference_keeps_what_it_wrote_and_names_what_it_could_not(
    folder: Path, small_disk: Callable[[int], Path]
) -> None:
    out = small_disk(3 * PAGE)
    lines = cause_of(lambda: infer(folder, output_dir=str(out))).splitlines()
    assert lines[0].endswith("failed, the others are done:")
    assert len(lines) > 1
    for line in lines[1:]:
        assert "No space left on device" in line
        assert str(out) in line
    assert (out / "a.png").exists(), "test invalid"
    assert not list(out.glob(".part-*"))
    for path in out.glob("*.png"):
        Image.open(path).load()


def test_a_checkpoint_leaves_the_one_before(tmp_path: Path, small_disk: Callable[[int], Path]) -> None:
    pairs(tmp_path, CELL, CELL)
    train(tmp_path, validation=0.5)
    disk = small_disk((tmp_path / "models" / "model.pt").stat().st_size * 3 // 2)
    before = shutil.copy(tmp_path / "models" / "model.pt", disk / "model.pt").read_bytes()
    line = cause_of(lambda: train(tmp_path, validation=0.5, ckpt_dir=str(disk), seed=1))
    assert line == f"{disk}/model.pt must be writable, got OSError: [Errno 28] No space left on device"
    assert (disk / "model.pt").read_bytes() == before
    assert not list(disk.glob(".part-*"))


@pytest.mark.parametrize("numbers", [1000, 3000, 100_000])
def test_weights_of_any_size_name_the_cause(small_disk: Callable[[int], Path], numbers: int) -> None:
    disk = small_disk(PAGE)
    with pytest.raises(OSError, match=r"^.*/model\.pt must be writable, got OSError: .* No space left on device$"):
        save_atomically({"weight": torch.zeros(numbers)}, disk / "model.pt")
    assert not list(disk.iterdir())


def test_a_large_tiff_does_not_appear_in_part(tmp_path: Path, small_disk: Callable[[int], Path]) -> None:
    noise = np.random.default_rng(0).integers(0, 2**31, (700, 600), dtype=np.uint32)
    cells = open_ome_zarr(tmp_path / "a.zarr", noise.shape, np.uint32, chunk=512, is_label=True)
    cells.array[:] = noise.T
    disk = small_disk(100 * PAGE)
    with pytest.raises(OSError, match="No space left on device"):
        export_tiff(tmp_path / "a.zarr", disk / "a.tif")
    assert not list(disk.iterdir())
    assert tifffile.imread(export_tiff(tmp_path / "a.zarr", tmp_path / "a.tif")).shape == (600, 700)


def test_a_large_image_goes_on_where_it_was(folder: Path, small_disk: Callable[[int], Path]) -> None:
    tifffile.imwrite(folder / "big.tif", np.tile(CELLS, (4, 4)), tile=(64, 64))

    def run(output_dir: Path) -> None:
        settings = {"bundle_root": str(folder), "input": str(folder / "big.tif"), "output_dir": str(output_dir)}
        settings |= {"chunk": 64, "memory_budget": 20_000_000, "save_scores": True, "device": "cpu"}
        workflow = ConfigWorkflow(str(CONFIGS / "inference_large.json"), logging_file=False, **settings)
        workflow.initialize()
        workflow.run()

    disk = small_disk(20 * PAGE)
    line = cause_of(lambda: run(disk / "out"))
    assert line == f"[Errno 28] No space left on device: '{disk}/out/.part-big'"
    assert not list((disk / "out").glob("big*"))
    subprocess.run(["mount", "-o", f"remount,size={1000 * PAGE}", str(disk)], check=True)
    for output in (disk / "out", folder / "undisturbed"):
        run(output)
    written = sorted(path.relative_to(folder / "undisturbed") for path in (folder / "undisturbed").rglob("*"))
    assert sorted(path.relative_to(disk / "out") for path in (disk / "out").rglob("*")) == written
    for path in written:
        if (disk / "out" / path).is_file():
            assert (disk / "out" / path).read_bytes() == (folder / "undisturbed" / path).read_bytes(), path
