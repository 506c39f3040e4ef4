"""Pairs of image and label for the tests of training on files larger than memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from unet_monai.large_images.block_grid import Block
from unet_monai.large_images.lazy_image import PixelGrid
from unet_monai.large_images.ome_zarr import open_ome_zarr

from tests.drawings import random_discs


def random_pair(seed: int, *size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw an image uint16 and instances uint16, (X, Y[, Z]): dark discs of noise on brighter noise."""
    label = random_discs(seed, size, count=30).astype(np.uint16)
    noise = np.random.default_rng(seed).integers(500, 900, size)
    return (noise - 300 * (label > 0)).astype(np.uint16), label


def write_tiff(path: Path, pixels: np.ndarray, tile: int = 64) -> Path:
    """Write (X, Y[, Z]) as a tiled TIFF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels.T, tile=(tile, tile), photometric="minisblack", compression="zlib")
    return path


def write_zarr(path: Path, pixels: np.ndarray, grid: PixelGrid | None = None) -> Path:
    """Write (X, Y[, Z]) as OME-Zarr."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = open_ome_zarr(path, pixels.shape, pixels.dtype, chunk=64, grid=grid)
    array.write(Block((0,) * pixels.ndim, pixels.shape), pixels)
    return path
