"""Write OME-Zarr block by block, https://ngff.openmicroscopy.org/0.5: opens in napari and neuroglancer."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import DTypeLike
from unet_monai.extras import import_extra
from unet_monai.large_images.block_grid import Block
from unet_monai.large_images.lazy_image import PixelGrid

zarr = import_extra("zarr", "large")

AXES = "xyz"

RUN = "unet_monai_run"
"""Attribute of a group: what it was made by."""


class BlockArray:
    """A Zarr array (Y, X) or (Z, Y, X) on disk, seen as (X, Y[, Z]) like all images of the pipeline.

    Args:
        array: the stored array, a `zarr.Array`.
    """

    def __init__(self, array: Any) -> None:
        self.array = array

    def read(self, block: Block) -> np.ndarray:
        """Read a box of pixels (X, Y[, Z])."""
        return np.asarray(self.array[block.slices[::-1]]).transpose()

    def write(self, block: Block, pixels: np.ndarray) -> None:
        """Write a box of pixels (X, Y[, Z]); boxes of whole chunks may be written side by side."""
        self.array[block.slices[::-1]] = pixels.transpose()


def open_ome_zarr(
    path: str | Path,
    image_size: Sequence[int],
    dtype: DTypeLike,
    *,
    chunk: int,
    grid: PixelGrid | None = None,
    is_label: bool = False,
    run: str | None = None,
) -> BlockArray:
    """Create an OME-Zarr image of one resolution, filled with 0, or open it again where it was created before.

    Of several processes that do so at the same time, one creates it; nobody sees it half-made.

    Args:
        path: folder to write, such as ``cells.zarr``; the folder above it must exist.
        image_size: (X, Y[, Z]).
        dtype: type of the pixels.
        chunk: side of the chunks, pixels.
        grid: size and place of the pixels; None for 1 without a unit.
        is_label: whether the values are the numbers of instances.
        run: what it was made by, kept in its attributes; None for nothing.

    Raises:
        FileNotFoundError: if there is no such folder above it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cells = open_ome_zarr(f"{folder}/cells.zarr", (60, 40), "uint32", chunk=32, is_label=True)
        ...     cells.write(Block((0, 0), (2, 1)), np.array([[7], [8]]))
        ...     zarr.open(f"{folder}/cells.zarr")["0"][:2, :3].tolist()
        [[7, 8, 0], [0, 0, 0]]
    """
    if Path(path).exists():
        return BlockArray(zarr.open_group(path, mode="r+")["0"])
    draft = Path(path).with_name(f"{Path(path).name}-{uuid4().hex}")
    draft.mkdir()
    attributes = _ome_attributes(Path(path).stem, len(image_size), grid, is_label)
    group = zarr.open_group(draft, mode="a", zarr_format=3, attributes=attributes | ({} if run is None else {RUN: run}))
    stored = tuple(image_size)[::-1]
    chunks = tuple(min(chunk, n) for n in stored)
    names = AXES[: len(image_size)][::-1]
    group.create_array("0", shape=stored, dtype=np.dtype(dtype), chunks=chunks, dimension_names=list(names))
    try:
        os.rename(draft, path)
    except OSError:
        if not Path(path).exists():
            raise
        shutil.rmtree(draft)  # another process was faster
    return BlockArray(zarr.open_group(path, mode="r+")["0"])


def made_by(path: str | Path) -> str | None:
    """Return what an OME-Zarr image was made by; None if that is not known, or there is none."""
    file = Path(path) / "zarr.json"
    return json.loads(file.read_text(encoding="utf-8"))["attributes"].get(RUN) if file.is_file() else None


def _ome_attributes(name: str, spatial_dims: int, grid: PixelGrid | None, is_label: bool) -> dict[str, Any]:
    axes = AXES[:spatial_dims][::-1]
    size, offset, unit = grid or PixelGrid((1.0,) * len(axes), (0.0,) * len(axes), None)
    ome: dict[str, Any] = {
        "version": "0.5",
        "multiscales": [
            {
                "name": name,
                "axes": [{"name": axis, "type": "space"} | ({"unit": unit} if unit else {}) for axis in axes],
                "datasets": [
                    {
                        "path": "0",
                        "coordinateTransformations": [
                            {"type": "scale", "scale": list(size[::-1])},
                            {"type": "translation", "translation": list(offset[::-1])},
                        ],
                    }
                ],
            }
        ],
    }
    if is_label:
        ome["image-label"] = {"version": "0.5"}
    return {"ome": ome}
