"""Write an OME-Zarr image as one tiled BigTIFF, tile by tile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid4, uuid5

import numpy as np
import tifffile
from unet_monai.extras import import_extra
from unet_monai.large_images.lazy_image import OME_XML_UNITS, PixelGrid, open_image
from unet_monai.large_images.ome_zarr import made_by

zarr = import_extra("zarr", "large")

TILE = 512
"""Side of the tiles, pixels."""

BUFFER = 2**26
"""Bytes of tiles that are read before they are compressed and written."""

UNIT_SYMBOLS = {None: "pixel"} | {name: symbol for symbol, name in OME_XML_UNITS.items()}
"""What OME-XML calls the units of OME-Zarr."""


def export_tiff(source: str | Path, target: str | Path) -> Path:
    """Write an OME-Zarr image as a BigTIFF: tiles of 512 px, zlib, with the size of a pixel as OME-XML.

    Axes are as in the OME-Zarr, so tifffile reads (rows, columns), or (pages, rows, columns) of several pages. Tiles
    are read while they are written, `BUFFER` bytes of them at a time, whatever the image's size. The file appears under
    its name when it is complete, and has the same bytes each time. It holds no offset, and no size of a pixel in a unit
    that is not in `UNIT_SYMBOLS`. Of a volume, every chunk is read once for each of its pages.

    Args:
        source: folder that `open_ome_zarr` made, such as ``big_cells.zarr``.
        target: file to write, such as ``big_cells.tif``; one of this name is replaced.

    Returns:
        `target`.

    Raises:
        FileNotFoundError: if there is no such image, or no folder for the file.
        OSError: naming the file, if it cannot be written, such as on a full disk; nothing of it stays.

    Example:
        >>> import tempfile
        >>> from unet_monai.large_images.block_grid import Block
        >>> from unet_monai.large_images.ome_zarr import open_ome_zarr
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cells = open_ome_zarr(f"{folder}/cells.zarr", (6, 4), "uint32", chunk=32)
        ...     cells.write(Block((5, 0), (6, 1)), np.array([[7]]))
        ...     tifffile.imread(export_tiff(f"{folder}/cells.zarr", f"{folder}/cells.tif"))[0].tolist()
        [0, 0, 0, 0, 0, 7]
    """
    array = zarr.open_group(source, mode="r")["0"]
    grid = open_image(source, spatial_dims=array.ndim).grid
    target = Path(target)
    identity = str(uuid5(NAMESPACE_OID, f"{target.name} {made_by(source)}"))  # by default one of the time and machine
    draft = target.with_name(f"{target.name}-{uuid4().hex}.partial")
    try:
        tifffile.imwrite(
            draft,
            _tiles(array),
            shape=array.shape,
            dtype=array.dtype,
            bigtiff=True,
            ome=True,
            tile=(TILE, TILE),
            compression="zlib",
            buffersize=BUFFER,
            metadata={"axes": "ZYX"[-array.ndim :], "UUID": identity, **_pixel_size(grid)},
        )
        os.replace(draft, target)
    except FileNotFoundError:  # of the folder; `LargeImageSegmenter` tells by it that others were faster
        raise
    except OSError as error:
        raise OSError(f"{target} must be writable, got {type(error).__name__}: {error}") from None
    finally:
        draft.unlink(missing_ok=True)
    return target


def _tiles(array: Any) -> Iterator[np.ndarray]:
    """Read the tiles in the order of the file: page by page, row by row; those at the far edges are cut off."""
    *pages, rows, columns = array.shape
    for *page, row, column in product(*map(range, pages), range(0, rows, TILE), range(0, columns, TILE)):
        yield np.asarray(array[*page, row : row + TILE, column : column + TILE])


def _pixel_size(grid: PixelGrid | None) -> dict[str, Any]:
    if grid is None or grid.unit not in UNIT_SYMBOLS:
        return {}
    sizes = {f"PhysicalSize{axis}": size for axis, size in zip("XYZ", grid.pixel_size, strict=False)}
    return sizes | {f"{name}Unit": UNIT_SYMBOLS[grid.unit] for name in sizes}
