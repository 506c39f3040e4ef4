from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from unet_monai.large_images import export_tiff, open_image, tiff_export
from unet_monai.large_images.block_grid import Block
from unet_monai.large_images.lazy_image import PixelGrid
from unet_monai.large_images.ome_zarr import open_ome_zarr

from tests.bundle.conftest import REPOSITORY


def write_cells(folder: Path, size: tuple[int, ...], grid: PixelGrid | None = None, chunk: int = 64) -> np.ndarray:
    """Write random instances (X, Y[, Z]); those of some chunks are left out."""
    cells = np.random.default_rng(0).integers(0, 2**32, size, dtype=np.uint32)
    cells[:chunk] = 0
    array = open_ome_zarr(folder / "cells.zarr", size, np.uint32, chunk=chunk, grid=grid, is_label=True, run="7")
    array.write(Block((chunk,) + (0,) * (len(size) - 1), size), cells[chunk:])
    return cells


@pytest.mark.parametrize("size", [(1100, 700), (512, 512), (70, 30), (1, 1), (90, 600, 7)])
def test_the_pixels_are_those_of_the_zarr(tmp_path: Path, size: tuple[int, ...]) -> None:
    cells = write_cells(tmp_path, size)
    assert export_tiff(tmp_path / "cells.zarr", tmp_path / "cells.tif") == tmp_path / "cells.tif"
    with tifffile.TiffFile(tmp_path / "cells.tif") as tif:
        assert (tif.is_bigtiff, tif.is_ome, tif.series[0].axes) == (True, True, "ZYX"[-len(size) :])
        page = tif.pages[0].keyframe
        assert (page.tilelength, page.tilewidth, page.compression) == (512, 512, 8)
        assert tif.series[0].dtype == np.uint32
        np.testing.assert_array_equal(tif.asarray(), cells.T)
    image = open_image(tmp_path / "cells.tif", spatial_dims=len(size))
    assert (image.shape, image.grid) == (size, PixelGrid((1.0,) * len(size), (0.0,) * len(size), None))


@pytest.mark.parametrize("unit", ["angstrom", "nanometer", "micrometer", "millimeter", None])
def test_the_size_of_a_pixel_is_kept(tmp_path: Path, unit: str | None) -> None:
    grid = PixelGrid((0.25, 0.5, 2.0), (0.0, 0.0, 0.0), unit)
    write_cells(tmp_path, (20, 30, 4), grid, chunk=16)
    export_tiff(tmp_path / "cells.zarr", tmp_path / "cells.tif")
    assert open_image(tmp_path / "cells.tif", spatial_dims=3).grid == grid
    assert set(tiff_export.UNIT_SYMBOLS) >= {unit}


def test_a_size_in_a_unit_that_has_no_symbol_is_left_out(tmp_path: Path) -> None:
    write_cells(tmp_path, (20, 30), PixelGrid((3.0, 3.0), (0.0, 0.0), "parsec"), chunk=16)
    export_tiff(tmp_path / "cells.zarr", tmp_path / "cells.tif")
    assert open_image(tmp_path / "cells.tif").grid is None


def test_tiles_are_read_as_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never more than the buffer holds: the file has grown by the time that later tiles are asked for."""
    write_cells(tmp_path, (5 * 512, 512), chunk=512)
    tiles, sizes = tiff_export._tiles, []

    def watched(array: object) -> Iterator[np.ndarray]:
        for tile in tiles(array):
            sizes.append(sum(draft.stat().st_size for draft in tmp_path.glob("*.partial")))
            yield tile

    monkeypatch.setattr(tiff_export, "_tiles", watched)
    monkeypatch.setattr(tiff_export, "BUFFER", 4 * 512**2)
    export_tiff(tmp_path / "cells.zarr", tmp_path / "cells.tif")
    assert len(sizes) == 5
    assert sizes[-1] > 0.3 * (tmp_path / "cells.tif").stat().st_size


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    write_cells(tmp_path, (600, 90))
    first = export_tiff(tmp_path / "cells.zarr", tmp_path / "cells.tif").read_bytes()
    assert export_tiff(tmp_path / "cells.zarr", tmp_path / "cells.tif").read_bytes() == first


def test_an_error_half_way_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cells(tmp_path, (1100, 700))
    (tmp_path / "cells.tif").write_bytes(b"of before")
    tiles = tiff_export._tiles

    def failing(array: object) -> Iterator[np.ndarray]:
        yield next(tiles(array))
        raise OSError("No space left on device")

    monkeypatch.setattr(tiff_export, "_tiles", failing)
    with pytest.raises(OSError, match="No space left on device"):
        export_tiff(tmp_path / "cells.zarr", tmp_path / "cells.tif")
    assert (tmp_path / "cells.tif").read_bytes() == b"of before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells.tif", "cells.zarr"]


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.zarr"):
        export_tiff(tmp_path / "nothing.zarr", tmp_path / "cells.tif")
    write_cells(tmp_path, (20, 30), chunk=16)
    with pytest.raises(FileNotFoundError, match=r"nowhere/cells\.tif"):
        export_tiff(tmp_path / "cells.zarr", tmp_path / "nowhere" / "cells.tif")


@pytest.mark.slow
def test_a_kill_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    cells = write_cells(tmp_path, (6000, 5000), chunk=512)
    call = "import sys; from unet_monai.large_images import export_tiff; export_tiff(*sys.argv[1:])"
    paths = [str(tmp_path / name) for name in ("cells.zarr", "cells.tif")]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", call, *paths], cwd=REPOSITORY, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    while not list(tmp_path.glob("*.partial")) and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "test invalid"
    assert not (tmp_path / "cells.tif").exists()
    np.testing.assert_array_equal(tifffile.imread(export_tiff(*paths)), cells.T)
