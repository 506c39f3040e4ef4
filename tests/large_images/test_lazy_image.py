from __future__ import annotations

import math
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
import zarr
from unet_monai.data.image_io import CellImageReader
from unet_monai.large_images import open_image
from unet_monai.large_images.block_grid import Block
from unet_monai.large_images.ome_zarr import open_ome_zarr

WINDOW = (slice(30, 50), slice(5, 21))


def pixels(*shape: int, dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, shape).astype(dtype)


def in_memory(path: Path, **options: int) -> np.ndarray:
    reader = CellImageReader(**options)
    return reader.get_data(reader.read(str(path)))[0]


class TestTiff:
    @pytest.mark.parametrize("options", [{"tile": (16, 32)}, {"rowsperstrip": 7}, {"tile": (32, 32), "bigtiff": True}])
    def test_windows_are_those_of_the_image_in_memory(self, tmp_path: Path, options: dict) -> None:
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, pixels(50, 70), compression="deflate", **options)
        image = open_image(path)
        assert (image.shape, image.dtype, image.grid) == ((70, 50), np.uint16, None)
        np.testing.assert_array_equal(image.read(WINDOW), in_memory(path)[:, 30:50, 5:21])

    @pytest.mark.parametrize("channels", [1, 3])
    def test_rgb(self, tmp_path: Path, channels: int) -> None:
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, pixels(50, 70, 3, dtype="uint8"), tile=(16, 16), photometric="rgb")
        found = open_image(path, in_channels=channels).read(WINDOW)
        np.testing.assert_array_equal(found, in_memory(path, in_channels=channels)[:, 30:50, 5:21])

    def test_pages_are_z_in_3d(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, pixels(6, 50, 70), tile=(16, 16), photometric="minisblack")
        found = open_image(path, spatial_dims=3).read((*WINDOW, slice(2, 4)))
        np.testing.assert_array_equal(found, in_memory(path, spatial_dims=3)[:, 30:50, 5:21, 2:4])
        with pytest.raises(
            ValueError, match=r"must be one image of 2 spatial axes, got axes \w+ of shape \(6, 50, 70\)"
        ):
            open_image(path)

    def test_of_a_pyramid_the_full_resolution_and_of_ome_the_pixel_size(self, tmp_path: Path) -> None:
        path, image = tmp_path / "a.ome.tif", pixels(64, 96)
        size = {"axes": "YX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5, "PhysicalSizeXUnit": "µm"}
        with tifffile.TiffWriter(path) as tif:
            tif.write(image, tile=(16, 16), subifds=1, metadata=size)
            tif.write(image[::2, ::2], tile=(16, 16), subfiletype=1)
        opened = open_image(path)
        assert opened.shape == (96, 64)
        assert opened.grid == ((0.25, 0.5), (0.0, 0.0), "micrometer")
        np.testing.assert_array_equal(opened.read(WINDOW)[0], image.T[WINDOW])

    @pytest.mark.parametrize(
        ("units", "grid"),
        [
            (("nm", "µm"), ((0.25, 500.0), (0.0, 0.0), "nanometer")),
            (("cm", "mm"), ((0.25, 0.05), (0.0, 0.0), "centimeter")),
            (("pixel", "pixel"), ((0.25, 0.5), (0.0, 0.0), None)),
        ],
    )
    def test_axes_in_units_of_their_own(self, tmp_path: Path, units: tuple[str, str], grid: tuple) -> None:
        size = {"axes": "YX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}
        size |= {"PhysicalSizeXUnit": units[0], "PhysicalSizeYUnit": units[1]}
        tifffile.imwrite(tmp_path / "a.ome.tif", pixels(64, 96), metadata=size)
        opened = open_image(tmp_path / "a.ome.tif").grid
        assert opened is not None
        assert opened.pixel_size == pytest.approx(grid[0])
        assert opened[1:] == grid[1:]

    def test_only_the_tiles_of_the_window_are_read(self, tmp_path: Path) -> None:
        """All tiles but one are overwritten with what no decoder takes."""
        path, image = tmp_path / "a.tif", pixels(64, 64)
        tifffile.imwrite(path, image, tile=(32, 32), compression="deflate")
        with tifffile.TiffFile(path) as tif:
            places = list(zip(tif.pages[0].dataoffsets, tif.pages[0].databytecounts, strict=True))
        with path.open("r+b") as file:
            for offset, count in places[1:]:
                file.seek(offset)
                file.write(b"\xff" * count)
        lazy = open_image(path)
        np.testing.assert_array_equal(lazy.read((slice(0, 32), slice(0, 32)))[0], image[:32, :32].T)
        with pytest.raises(ValueError, match=r"a\.tif must be a readable image file"):
            lazy.read((slice(0, 33), slice(0, 32)))


class TestZarr:
    def test_ome_zarr_comes_back_with_its_grid(self, tmp_path: Path) -> None:
        path, image = tmp_path / "a.zarr", pixels(70, 50)
        grid = ((0.3, 0.2), (5.0, 7.0), "micrometer")
        written = open_ome_zarr(path, image.shape, "uint16", chunk=32, grid=grid)
        written.write(Block((0, 0), (70, 50)), image)
        opened = open_image(path)
        assert (opened.shape, opened.dtype, opened.grid) == ((70, 50), np.uint16, grid)
        np.testing.assert_array_equal(opened.read(WINDOW)[0], image[WINDOW])

    def test_version_4_with_time_channel_and_the_scale_of_all_levels(self, tmp_path: Path) -> None:
        image = pixels(1, 3, 50, 70, dtype="uint8")
        group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
        group.create_array("full", shape=image.shape, dtype="uint8", chunks=(1, 1, 20, 20))[:] = image
        axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
        axes += [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
        level = [{"type": "scale", "scale": [1, 1, 2, 3]}, {"type": "translation", "translation": [0, 0, 4, 5]}]
        above = [{"type": "scale", "scale": [1, 1, 10, 10]}]
        datasets = [{"path": "full", "coordinateTransformations": level}]
        group.attrs["multiscales"] = [{"axes": axes, "datasets": datasets, "coordinateTransformations": above}]
        opened = open_image(tmp_path / "a.zarr", in_channels=3)
        assert opened.grid == ((30.0, 20.0), (50.0, 40.0), "micrometer")
        np.testing.assert_array_equal(opened.read(WINDOW), image[0].transpose(0, 2, 1)[(slice(None), *WINDOW)])

    @pytest.mark.parametrize(
        ("units", "grid"),
        [
            (("millimeter", "micrometer"), ((0.25, 500.0), (4.0, 5000.0), "micrometer")),
            (("micrometer", None), ((0.25, 0.5), (4.0, 5.0), None)),
            (("furlong", "micrometer"), ((0.25, 0.5), (4.0, 5.0), "micrometer")),
        ],
    )
    def test_axes_in_units_of_their_own(self, tmp_path: Path, units: tuple[str, str | None], grid: tuple) -> None:
        group = zarr.open_group(tmp_path / "a.zarr", mode="w")
        group.create_array("0", shape=(50, 70), dtype="uint8")
        axes = [{"name": name, "type": "space", "unit": unit} for name, unit in zip("yx", units, strict=True)]
        level = [{"type": "scale", "scale": [0.5, 0.25]}, {"type": "translation", "translation": [5, 4]}]
        datasets = [{"path": "0", "coordinateTransformations": level}]
        group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
        opened = open_image(tmp_path / "a.zarr").grid
        assert opened is not None
        for lengths, expected in zip(opened[:2], grid[:2], strict=True):
            assert lengths == pytest.approx(expected)
        assert opened.unit == grid[2]

    def test_plain_arrays_with_and_without_named_axes(self, tmp_path: Path) -> None:
        image = pixels(50, 70)
        zarr.create_array(tmp_path / "plain.zarr", data=image, chunks=(16, 16))
        zarr.create_array(tmp_path / "named.zarr", data=image.T, chunks=(16, 16), dimension_names=["x", "y"])
        for name in ("plain", "named"):
            np.testing.assert_array_equal(open_image(tmp_path / f"{name}.zarr").read(WINDOW)[0], image.T[WINDOW])

    @pytest.mark.parametrize(
        ("damage", "cause"),
        [
            (lambda path: (path / "c" / "0" / "0").write_bytes(b"no chunk"), "RuntimeError: .*"),
            (lambda path: (path / "zarr.json").write_text("{"), "JSONDecodeError: .*"),
        ],
    )
    def test_damage_names_the_folder(self, tmp_path: Path, damage: Callable[[Path], Any], cause: str) -> None:
        zarr.create_array(tmp_path / "a.zarr", data=pixels(50, 70), chunks=(16, 16))
        damage(tmp_path / "a.zarr")
        with pytest.raises(ValueError, match=rf"^\S+/a\.zarr must be a readable image file, got {cause}$"):
            open_image(tmp_path / "a.zarr").read((slice(0, 70), slice(0, 50)))

    @pytest.mark.parametrize("chunks", [False, True])
    def test_a_folder_of_other_files(self, tmp_path: Path, chunks: bool) -> None:
        """Be it empty, or an array whose description is lost."""
        (tmp_path / "a.zarr").mkdir()
        if chunks:
            zarr.create_array(tmp_path / "a.zarr", data=pixels(50, 70), chunks=(16, 16))
            (tmp_path / "a.zarr" / "zarr.json").unlink()
        with pytest.raises(ValueError, match=r"a\.zarr must be a Zarr array or an OME-Zarr image, got a folder"):
            open_image(tmp_path / "a.zarr")

    def test_an_array_without_pixels(self, tmp_path: Path) -> None:
        zarr.create_array(tmp_path / "a.zarr", shape=(0, 70), dtype="uint8", chunks=(16, 16))
        with pytest.raises(ValueError, match=r"^\S+/a\.zarr must hold at least one pixel, got shape \(0, 70\)\.$"):
            open_image(tmp_path / "a.zarr")

    def test_a_group_without_an_image(self, tmp_path: Path) -> None:
        zarr.open_group(tmp_path / "a.zarr", mode="w")
        with pytest.raises(ValueError, match=r"must be a Zarr array or an OME-Zarr image"):
            open_image(tmp_path / "a.zarr")


class TestNifti:
    def test_windows_and_voxel_size(self, tmp_path: Path) -> None:
        volume = pixels(60, 40, 9, dtype="int16")
        affine = np.diag([0.5, 0.6, 2.0, 1.0])
        affine[:3, 3] = 1, 2, 3
        nifti = nibabel.Nifti1Image(volume, affine)
        nifti.header.set_xyzt_units("mm")
        nibabel.save(nifti, tmp_path / "a.nii")
        opened = open_image(tmp_path / "a.nii", spatial_dims=3)
        np.testing.assert_array_equal(opened.read((*WINDOW, slice(1, 5)))[0], volume[30:50, 5:21, 1:5])
        np.testing.assert_allclose(opened.grid.pixel_size, (0.5, 0.6, 2.0), rtol=1e-6)
        assert (opened.grid.offset, opened.grid.unit) == ((1.0, 2.0, 3.0), "millimeter")

    def test_of_four_gigabytes_only_the_window_is_read(self, tmp_path: Path) -> None:
        size = (2000, 2000, 500)
        header = nibabel.Nifti1Header()
        header.set_data_dtype(np.int16)
        header.set_data_shape(size)
        header["vox_offset"] = 352
        (tmp_path / "a.nii").write_bytes(header.binaryblock + bytes(4))
        os.truncate(tmp_path / "a.nii", 352 + 2 * math.prod(size))  # without a block of the disk
        tracemalloc.start()
        window = open_image(tmp_path / "a.nii", spatial_dims=3).read((*WINDOW, slice(490, 494)))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert window.shape == (1, 20, 16, 4)
        assert peak < 50e6

    def test_compressed_is_refused(self, tmp_path: Path) -> None:
        nibabel.save(nibabel.Nifti1Image(pixels(4, 4, 4), np.eye(4)), tmp_path / "a.nii.gz")
        with pytest.raises(ValueError, match=r"a\.nii\.gz must not be compressed"):
            open_image(tmp_path / "a.nii.gz", spatial_dims=3)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match=r"image must be a TIFF, a Zarr folder or a NIfTI file .*a\.png"):
        open_image(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match=r"image must exist, got .*missing"):
        open_image(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match=r"must exist, got .*missing\.tif"):
        open_image(tmp_path / "missing.tif")


def test_not_a_number_is_refused(tmp_path: Path) -> None:
    image = np.ones((50, 70), np.float32)
    image[20, 40] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", image, tile=(16, 16))
    opened = open_image(tmp_path / "a.tif")
    assert opened.read((slice(0, 40), slice(0, 50))).shape == (1, 40, 50)
    with pytest.raises(ValueError, match=r"a\.tif must hold finite numbers"):
        opened.read((slice(0, 41), slice(0, 50)))
