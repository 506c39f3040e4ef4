"""Volumes from file to file: place and size of the voxels, and the instances of the whole volume in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import zarr
from scipy import ndimage
from unet_monai import segment
from unet_monai.large_images import BlockSettings, LargeImageSegmenter, open_image
from unet_monai.large_images.lazy_image import PixelGrid
from unet_monai.large_images.segmenter import BYTES_PER_PIXEL
from unet_monai.transforms import LogitsToInstances

from tests.drawings import random_discs
from tests.large_images.images import make_finding_network
from tests.large_images.pairs import write_zarr

GRID = PixelGrid((0.5, 0.25, 2.0), (10.0, -20.0, 30.0), "millimeter")


def draw_volume() -> np.ndarray:
    """Draw bright balls of several blocks' size, some touching: uint16 (X, Y, Z)."""
    label = random_discs(11, (48, 40, 24), count=12, radius=(4, 9))
    light = ndimage.gaussian_filter(900.0 * (label > 0), 1) + 200
    return np.random.default_rng(3).normal(light, 20).clip(0).astype(np.uint16)


def write_nifti(path: Path, volume: np.ndarray) -> None:
    affine = np.diag([*GRID.pixel_size, 1.0])
    affine[:3, 3] = GRID.offset
    image = nibabel.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


def write_ome_zarr(path: Path, volume: np.ndarray) -> None:
    write_zarr(path, volume, GRID)


@pytest.mark.parametrize(("name", "write"), [("a.nii", write_nifti), ("a.zarr", write_ome_zarr)])
def test_place_and_instances_of_a_volume(tmp_path: Path, name: str, write: Callable[[Path, np.ndarray], Any]) -> None:
    volume, network = draw_volume(), make_finding_network(3)
    expected = segment(volume.T, network).T
    boxes = ndimage.find_objects(expected)
    assert len(boxes) > 3, "test invalid"
    assert any(box[0].stop - box[0].start > 17 for box in boxes), "test invalid: no cell lies in three blocks of a row"
    write(tmp_path / name, volume)
    budget = BYTES_PER_PIXEL * (16 + 2 * 16 + 1) ** 3
    image = open_image(tmp_path / name, spatial_dims=3)
    settings = BlockSettings(reach=16, chunk=16, memory_budget=budget)
    segmenter = LargeImageSegmenter(image, network, LogitsToInstances(), tmp_path / "out", settings, save_scores=True)
    assert len(segmenter.blocks) == 3 * 3 * 2
    segmenter.run()
    for output in ("a_cells.zarr", "a_scores.zarr"):
        level = zarr.open(tmp_path / "out" / output).attrs["ome"]["multiscales"][0]
        assert [axis["name"] for axis in level["axes"]] == ["z", "y", "x"]
        assert {axis["unit"] for axis in level["axes"]} == {"millimeter"}
        assert level["datasets"][0]["coordinateTransformations"] == [
            {"type": "scale", "scale": [2.0, 0.25, 0.5]},
            {"type": "translation", "translation": [30.0, -20.0, 10.0]},
        ]
    assert open_image(tmp_path / "out" / "a_cells.zarr", spatial_dims=3).grid == GRID
    np.testing.assert_array_equal(zarr.open(tmp_path / "out" / "a_cells.zarr")["0"][:].T, expected)
