"""Write OME-Zarr block by block, https://ngff.openmicroscopy.org/0.5: opens in napari and neuroglancer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from unet_monai.extras import import_extra
from unet_monai.large_images.block_grid import Block
from unet_monai.large_images.lazy_image import PixelGrid

zarr = import_extra("zarr", "large")


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
) -> BlockArray:
    """Create an OME-Zarr image of one resolution, filled with 0, or open it again where it was created before.

    Args:
        path: folder to write, such as ``cells.zarr``.
        image_size: (X, Y[, Z]).
        dtype: type of the pixels.
        chunk: side of the chunks, pixels.
        grid: size and place of the pixels; None for 1 without a unit.
        is_label: whether the values are the numbers of instances.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cells = open_ome_zarr(f"{folder}/cells.zarr", (60, 40), "uint32", chunk=32, is_label=True)
        ...     cells.write(Block((0, 0), (2, 1)), np.array([[7], [8]]))
        ...     zarr.open(f"{folder}/cells.zarr")["0"][:2, :3].tolist()
        [[7, 8, 0], [0, 0, 0]]
    """
    if (Path(path) / "0" / "zarr.json").is_file():
        return BlockArray(zarr.open_group(path, mode="r+")["0"])
    axes = "xyz"[: len(image_size)][::-1]
    size, offset, unit = grid or PixelGrid((1.0,) * len(axes), (0.0,) * len(axes), None)
    ome: dict[str, Any] = {
        "version": "0.5",
        "multiscales": [
            {
                "name": Path(path).stem,
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
    group = zarr.open_group(path, mode="w", zarr_format=3, attributes={"ome": ome})
    stored = tuple(image_size)[::-1]
    chunks = tuple(min(chunk, n) for n in stored)
    return BlockArray(
        group.create_array("0", shape=stored, dtype=np.dtype(dtype), chunks=chunks, dimension_names=list(axes))
    )
