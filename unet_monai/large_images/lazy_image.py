"""Images that are read window by window: tiled TIFF and OME-TIFF, Zarr and OME-Zarr, uncompressed NIfTI."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import nibabel
import numpy as np
import tifffile
from unet_monai.data.image_formats import (
    NIFTI_SUFFIXES,
    TIFF_SUFFIXES,
    Picture,
    RefusedFileError,
    channel_first,
    check_last_page,
    check_pixels,
    naming,
)
from unet_monai.data.image_io import CellImageReader
from unet_monai.extras import import_extra

zarr = import_extra("zarr", "large")


POWERS: dict[str | None, int] = {
    **{"angstrom": -10, "nanometer": -9, "micrometer": -6},
    **{"millimeter": -3, "centimeter": -2, "meter": 0},
}
"""Units of length as OME-Zarr names them, and their power of ten in metres."""

OME_XML_UNITS = {
    **{"\u00c5": "angstrom", "nm": "nanometer", "\u00b5m": "micrometer"},
    **{"mm": "millimeter", "cm": "centimeter", "m": "meter"},
}
"""What OME-XML calls them."""


class PixelGrid(NamedTuple):
    """Where an image's pixels lie: size of a pixel and position of the first one, (X, Y[, Z]), in `unit`."""

    pixel_size: tuple[float, ...]
    offset: tuple[float, ...]
    unit: str | None


class LazyImage:
    """An image (C, X, Y[, Z]) on disk whose windows are read on demand, values as `CellImageReader` gives them.

    Use :func:`open_image`.

    Args:
        path: the file or folder, for messages.
        array: what holds the pixels; slices of it are arrays.
        axes: name of each of its axes: X, Y, Z, S (channels), and others that must have length 1.
        grid: size and place of the pixels; None if unknown.
        spatial_dims: 2 or 3.
        in_channels: 1 or 3; RGB and grey are converted into each other.

    Attributes:
        shape: (X, Y[, Z]).
        dtype: type of the stored values.
        grid: as given.
        in_channels: as given.

    Raises:
        ValueError: if the axes are not those of one grey or RGB image, or it holds no pixel, or no real numbers.
    """

    def __init__(
        self, path: str, array: Any, axes: str, grid: PixelGrid | None, *, spatial_dims: int = 2, in_channels: int = 1
    ) -> None:
        check_pixels(array, axes, path)
        wanted = "XYZ"[:spatial_dims]
        sizes = dict(zip(axes, array.shape, strict=False))
        extra = [axis for axis, size in sizes.items() if axis not in wanted + "S" and size > 1]
        if len(axes) != len(array.shape) or extra or not set(wanted) <= set(sizes):
            raise ValueError(
                f"{path} must be one image of {spatial_dims} spatial axes, got axes {axes} of shape {array.shape}."
            )
        self.path, self.grid, self.in_channels = path, grid, in_channels
        self.shape = tuple(sizes[axis] for axis in wanted)
        self.dtype = np.dtype(array.dtype).newbyteorder("=")
        self._array, self._axes = array, axes
        self._reader = CellImageReader(spatial_dims, in_channels)

    def read(self, window: Sequence[slice]) -> np.ndarray:
        """Read a window.

        Args:
            window: slices along X, Y[, Z], within the image.

        Returns:
            (C, X, Y[, Z]).

        Raises:
            ValueError: if the file cannot be decoded there, or holds NaN or infinity.
        """
        along = dict(zip("XYZ"[: len(self.shape)], window, strict=True))
        index = tuple(along.get(axis, slice(None) if axis == "S" else 0) for axis in self._axes)
        with naming(self.path):
            pixels = np.asarray(self._array[index])
        axes = "".join(axis for axis in self._axes if axis in along or axis == "S")
        pixels = channel_first(pixels, axes, len(self.shape), self.path)
        return self._reader.convert(Picture(self.path, pixels, np.eye(len(self.shape) + 1), 0, 1))


def open_image(path: str | Path, *, spatial_dims: int = 2, in_channels: int = 1) -> LazyImage:
    """Open an image without reading its pixels.

    - TIFF, OME-TIFF: the first series, its full resolution; tiles or strips are decoded as they are needed. One that is
      compressed as a single strip is decoded whole.
    - a folder: OME-Zarr (0.4, 0.5), its full resolution, or a Zarr array (formats 2, 3) whose axes are named or are
      the image's own, (Y, X) or (Z, Y, X).
    - NIfTI (.nii), memory-mapped; a compressed one is refused, for it can only be read from its start.

    Sizes of pixels are taken from OME-TIFF, OME-Zarr and NIfTI.

    Args:
        path: file, or folder of a Zarr store.
        spatial_dims: 2 or 3.
        in_channels: 1 or 3.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file, for another kind of file or one that is not one such image.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tifffile.imwrite(f"{folder}/a.tif", np.arange(64 * 48, dtype=np.uint16).reshape(48, 64), tile=(16, 16))
        ...     image = open_image(f"{folder}/a.tif")
        ...     image.shape, image.dtype, image.read((slice(10, 12), slice(0, 3))).tolist()
        ((64, 48), dtype('uint16'), [[[10, 74, 138], [11, 75, 139]]])
    """
    path = str(path)
    name = path.lower()
    if Path(path).is_dir():
        with naming(path):
            array, axes, grid = _open_zarr(path)
    elif name.endswith(TIFF_SUFFIXES):
        array, axes, grid = _open_tiff(path, spatial_dims)
    elif name.endswith(NIFTI_SUFFIXES):
        array, axes, grid = _open_nifti(path)
    elif not Path(path).exists():
        raise FileNotFoundError(f"image must exist, got {path}.")
    else:
        raise ValueError(f"image must be a TIFF, a Zarr folder or a NIfTI file to be read by windows, got {path}.")
    if grid is not None:
        grid = PixelGrid(grid.pixel_size[:spatial_dims], grid.offset[:spatial_dims], grid.unit)
    return LazyImage(path, array, axes, grid, spatial_dims=spatial_dims, in_channels=in_channels)


def name_of(path: str | Path) -> str:
    """Name an image by its file or folder, without the suffixes of its format.

    Example:
        >>> name_of("scans/exp.1.ome.tif"), name_of("a.zarr"), name_of("b.nii.gz")
        ('exp.1', 'a', 'b')
    """
    return re.sub(r"(\.ome)?\.(tiff?|zarr|nii(\.gz)?)$", "", Path(path).name, flags=re.IGNORECASE)


def _open_tiff(path: str, spatial_dims: int) -> tuple[Any, str, PixelGrid | None]:
    with naming(path):
        tif = tifffile.TiffFile(path)
        check_last_page(tif, path)
        series = tif.series[0]
        array = zarr.open_array(series.aszarr(level=0), mode="r")
    axes = series.axes if "S" in series.axes else series.axes.replace("C", "S")
    pages = [axis for axis, size in zip(axes, series.shape, strict=True) if axis not in "XYZS" and size > 1]
    if spatial_dims == 3 and "Z" not in axes and len(pages) == 1:
        axes = axes.replace(pages[0], "Z")
    return array, axes, None if tif.ome_metadata is None else _ome_xml_grid(tif.ome_metadata)


def _ome_xml_grid(xml: str) -> PixelGrid | None:
    """Read the size of a pixel from the metadata of an OME-TIFF, in the unit of X.

    The planes' positions are those of the microscope's stage, in a frame of its own: they are no offset.

    Example:
        >>> sizes = 'PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="0.5"'
        >>> _ome_xml_grid(f"<OME><Image><Pixels {sizes}/></Image></OME>").pixel_size
        (250.0, 500.0, 1.0)
    """
    pixels = ElementTree.fromstring(xml).find("{*}Image/{*}Pixels")
    if pixels is None or "PhysicalSizeX" not in pixels.attrib:
        return None
    sides, default = [f"PhysicalSize{axis}" for axis in "XYZ"], "\u00b5m"
    units = [OME_XML_UNITS.get(pixels.get(side + "Unit", default)) if side in pixels.attrib else None for side in sides]
    return _pixel_grid([float(pixels.get(side, 1)) for side in sides], [0.0] * 3, units)


def _pixel_grid(size: Sequence[float], offset: Sequence[float], units: Sequence[str | None]) -> PixelGrid:
    """Give a grid the unit of X, into which lengths along axes of other known units are converted."""
    first = units[0]
    factors = [10.0 ** (POWERS[unit] - POWERS[first]) if {unit, first} <= set(POWERS) else 1.0 for unit in units]
    return PixelGrid(
        tuple(length * factor for length, factor in zip(size, factors, strict=True)),
        tuple(length * factor for length, factor in zip(offset, factors, strict=True)),
        first,
    )


def _open_nifti(path: str) -> tuple[Any, str, PixelGrid]:
    if path.lower().endswith(".gz"):
        raise ValueError(f"{path} must not be compressed to be read by windows, got .nii.gz.")
    with naming(path):
        image: Any = nibabel.load(path)
        sizes, offset = image.header.get_zooms(), image.affine[:3, 3]
    units = {"mm": "millimeter", "micron": "micrometer", "meter": "meter"}
    grid = PixelGrid(
        tuple(float(size) for size in sizes[:3]),
        tuple(float(place) for place in offset),
        units.get(image.header.get_xyzt_units()[0]),
    )
    return image.dataobj, "XYZTUVW"[: len(image.shape)], grid


def _open_zarr(path: str) -> tuple[Any, str, PixelGrid | None]:
    if not any(Path(path, name).exists() for name in ("zarr.json", ".zarray", ".zgroup")):
        raise RefusedFileError(f"{path} must be a Zarr array or an OME-Zarr image, got a folder of other files.")
    store = zarr.open(path, mode="r")
    if isinstance(store, zarr.Array):
        names = getattr(store.metadata, "dimension_names", None)
        return store, "".join(names).upper() if names and all(names) else "ZYX"[-store.ndim :], None
    attributes = dict(store.attrs)
    scales: Any = attributes.get("ome", attributes).get("multiscales")
    if not scales:
        raise RefusedFileError(f"{path} must be a Zarr array or an OME-Zarr image, got a group without multiscales.")
    axes = [axis["name"].upper() for axis in scales[0]["axes"]]
    first = scales[0]["datasets"][0]
    grid = _ome_zarr_grid(axes, scales[0]["axes"], [first, scales[0]])
    return store[first["path"]], "".join(axes).replace("C", "S"), grid


def _ome_zarr_grid(names: Sequence[str], axes: Sequence[Mapping], transformed: Sequence[Mapping]) -> PixelGrid:
    """Compose the scales and translations of a level and of all levels, in this order; only these two are defined.

    Sizes and offsets are in the unit of X.
    """
    size, offset = np.ones(len(names)), np.zeros(len(names))
    for transform in (t for level in transformed for t in level.get("coordinateTransformations", [])):
        if transform["type"] == "scale":
            size, offset = size * transform["scale"], offset * transform["scale"]
        elif transform["type"] == "translation":
            offset = offset + transform["translation"]
    spatial = [names.index(axis) for axis in "XYZ" if axis in names]
    return _pixel_grid(size[spatial].tolist(), offset[spatial].tolist(), [axes[i].get("unit") for i in spatial])
