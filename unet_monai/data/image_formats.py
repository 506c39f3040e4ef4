"""What an image file holds: addresses and suffixes of images, and their pixels as one array (C, X, Y[, Z])."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import nibabel
import numpy as np
import tifffile
from PIL import Image

NIFTI_SUFFIXES = (".nii.gz", ".nii")
TIFF_SUFFIXES = (".tif", ".tiff")
JPEG_SUFFIXES = (".jpg", ".jpeg")
_LARGEST_NUMBER = np.finfo(np.float32).max / 2  # the difference of two images' values is a float32 too
SUPPORTED_SUFFIXES = (*NIFTI_SUFFIXES, *TIFF_SUFFIXES, *JPEG_SUFFIXES, ".png", ".bmp")


def split_page(address: str) -> tuple[str, int | None]:
    """Split the address of one image into its file and its page.

    Args:
        address: path of an image file; one page of a multi-page TIFF as `path.tif#page`, counted from zero.

    Returns:
        The path, and the page or None. A file that exists under the whole address wins over the reading as a page.

    Example:
        >>> split_page("/data/stack.tif#3"), split_page("/data/cells#3.tif")
        (('/data/stack.tif', 3), ('/data/cells#3.tif', None))
    """
    match = re.fullmatch(r"(.+\.tiff?)#(\d+)", address, flags=re.IGNORECASE)
    if match is None or Path(address).is_file():
        return address, None
    return match[1], int(match[2])


def split_suffix(name: str) -> tuple[str, str]:
    """Split a file name into its stem and its lower-case suffix (one of `SUPPORTED_SUFFIXES`).

    Raises:
        ValueError: for any other suffix.

    Example:
        >>> split_suffix("brain.NII.gz")
        ('brain', '.nii.gz')
    """
    for suffix in SUPPORTED_SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)], suffix
    raise ValueError(f"file name must end in one of {' '.join(SUPPORTED_SUFFIXES)}, got {name!r}.")


def image_stem(address: str) -> str:
    """Return the name of one image: its file's without folder and suffix, with the page if it is one.

    Example:
        >>> image_stem("/data/cell.png"), image_stem("/data/train-volume.tif#3")
        ('cell', 'train-volume#3')
    """
    path, page = split_page(address)
    stem, _ = split_suffix(Path(path).name)
    return stem if page is None else f"{stem}#{page}"


class Picture(NamedTuple):
    """One image or volume as its file holds it: `array` (C, X, Y[, Z]) with 1 or 3 channels, and where it lies."""

    address: str
    array: np.ndarray
    affine: np.ndarray
    page: int
    num_pages: int


class RefusedFileError(ValueError):
    """A file does not hold what it must; the message names it and fills one line."""


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Let the errors of the libraries that decode a file, which wrong bytes lead to any of, say which file it was.

    A Zarr store's file is its folder.

    Raises:
        RefusedFileError: naming the file, in place of any other error in the block.
        FileNotFoundError: if there is no such file.
    """
    if not Path(path).exists():
        link = " (a link that leads nowhere)" if Path(path).is_symlink() else ""
        raise FileNotFoundError(f"image file must exist, got {path}{link}.")
    try:
        yield
    except RefusedFileError:
        raise
    except Exception as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        # Without its origin: `explain_errors` ends with the first cause, and this line is the one that helps.
        raise RefusedFileError(f"{path} must be a readable image file, got {cause}") from None


def _read_pillow(path: str, palette: str) -> tuple[np.ndarray, str]:
    with naming(path):
        with open(path, "rb") as file:
            header = file.read(25)
        if header.startswith(b"\x89PNG") and header[24:] == b"\x10":  # 16 bits a channel, which Pillow cuts to 8 in RGB
            array = imagecodecs.png_decode(Path(path).read_bytes())
        else:
            with Image.open(path) as image:
                as_mode = {"P": palette, "PA": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}.get(image.mode, image.mode)
                array = np.asarray(image.convert(as_mode))
    return array, "YXS"[: array.ndim]


def check_last_page(tif: tifffile.TiffFile, path: str) -> None:
    """Refuse a cut file: tifffile takes the pages that it still finds for all of them."""
    file, layout = tif.filehandle, tif.tiff
    file.seek(tif.pages[-1].offset)
    (tags,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
    file.seek(tags * layout.tagsize, 1)
    (following,) = struct.unpack(layout.offsetformat, file.read(layout.offsetsize))
    if following >= file.size:
        raise RefusedFileError(
            f"{path} must hold all its pages, got {file.size} bytes, with a further page at {following}: it is cut off."
        )


def _series(tif: tifffile.TiffFile, path: str) -> tuple[tifffile.TiffPageSeries, str, list[int]]:
    """Return the only series of a TIFF file, the axes of one page and the lengths of the axes along which pages lie."""
    check_last_page(tif, path)
    if len(tif.series) != 1:
        raise RefusedFileError(f"{path} must hold pages of one shape and type, got {len(tif.series)} different ones.")
    series = tif.series[0]
    axes = "".join(axis for axis in series.axes if axis in "YXS")
    sizes = list(zip(series.axes, series.shape, strict=True))
    many_channels = any(size > {"C": 1, "S": 2}.get(axis, size) for axis, size in sizes)
    rgb = series.keyframe.photometric in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)
    if not series.axes.endswith(axes) or (many_channels and not rgb):
        raise RefusedFileError(
            f"{path} must hold grey or RGB pictures, a stack's pages as axis Z or T, "
            f"got axes {series.axes} of shape {series.shape}."
        )
    return series, axes, [size for axis, size in sizes if axis not in "YXS"]


def count_pages(path: str) -> int:
    """Return the number of pictures in an image file: of a TIFF its pages, of every other kind 1."""
    if not path.lower().endswith(TIFF_SUFFIXES):
        return 1
    with naming(path), tifffile.TiffFile(path) as tif:
        return prod(_series(tif, path)[2])


def picture_size(path: str) -> tuple[int, int]:
    """Return the number of columns and of rows of the pictures in an image file, without reading their pixels."""
    suffix = split_suffix(Path(path).name)[1]
    with naming(path):
        if suffix in NIFTI_SUFFIXES:
            image: Any = nibabel.load(path)
            return image.shape[0], image.shape[1]
        if suffix not in TIFF_SUFFIXES:
            with Image.open(path) as picture:
                return picture.size
        with tifffile.TiffFile(path) as tif:
            series, _, _ = _series(tif, path)
            size = dict(zip(series.axes, series.shape, strict=True))
            return size["X"], size["Y"]


def _read_tiff(path: str, page: int | None, spatial_dims: int) -> tuple[np.ndarray, str, int]:
    with naming(path), tifffile.TiffFile(path) as tif:
        series, axes, stack = _series(tif, path)
        pages = prod(stack)
        if spatial_dims == 2 and page is None and pages > 1:
            raise RefusedFileError(
                f"{path} must be addressed by page as {Path(path).name}#0 to #{pages - 1} for 2-D images, "
                f"got a stack of shape {series.shape}."
            )
        if page is not None and (spatial_dims != 2 or page >= pages):
            raise RefusedFileError(f"{path} must be addressed by one of its {pages} pages, and in 2-D, got #{page}.")
        if spatial_dims == 3 and sum(size > 1 for size in stack) > 1:
            raise RefusedFileError(f"{path} must be one volume, got axes {series.axes} of shape {series.shape}.")
        one_page = page is not None and len(series.pages) == pages
        array = tif.asarray(key=page, series=0) if one_page else series.asarray()
        array = array.reshape(-1, *(series.shape[series.axes.index(axis)] for axis in axes))
        if page is not None:
            return array[0 if one_page else page], axes, pages
        return (array[0], axes, pages) if pages == 1 else (array, "Z" + axes, 1)


def _read_nifti(path: str, spatial_dims: int) -> tuple[np.ndarray, str, np.ndarray]:
    with naming(path):
        image: Any = nibabel.load(path)
        array, affine = np.asanyarray(image.dataobj), np.asarray(image.affine, dtype=np.float64)
    while array.ndim > spatial_dims and array.shape[-1] == 1:
        array = array[..., 0]
    return array, "XYZTUVW"[: array.ndim], affine


def check_pixels(array: Any, axes: str, address: str) -> None:
    """Raise ValueError if an array with named axes, read or not, holds no pixel, no real numbers, or no grey or RGB."""
    if array.dtype.kind not in "buif":
        raise ValueError(f"{address} must hold real numbers, got {array.dtype} of shape {array.shape}.")
    if 0 in array.shape:
        raise ValueError(f"{address} must hold at least one pixel, got shape {array.shape}.")
    if dict(zip(axes, array.shape, strict=False)).get("S", 1) > 4:
        raise ValueError(f"{address} must be grey or RGB, got axes {axes} of shape {array.shape}.")


def channel_first(array: np.ndarray, axes: str, spatial_dims: int, address: str) -> np.ndarray:
    """Order an array with named axes as (C, X, Y[, Z]) with 1 or 3 channels; an alpha channel is dropped."""
    wanted = "SXYZ"[: spatial_dims + 1]
    if set(axes) | {"S"} != set(wanted):
        raise ValueError(f"{address} must have {spatial_dims} spatial axes, got axes {axes} of shape {array.shape}.")
    check_pixels(array, axes, address)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise ValueError(f"{address} must hold finite numbers, got NaN or infinity in shape {array.shape}.")
        if max(-array.min(), array.max()) > _LARGEST_NUMBER:
            raise ValueError(
                f"{address} must hold numbers of at most {_LARGEST_NUMBER:.2g} either side of 0, "
                f"got {array.min():.2g} to {array.max():.2g}."
            )
    if "S" not in axes:
        array, axes = array[None], "S" + axes
    array = array.transpose([axes.index(axis) for axis in wanted])
    colours = 3 if len(array) >= 3 else 1
    native = np.uint8 if array.dtype == bool else array.dtype.newbyteorder("=")
    return np.ascontiguousarray(array[:colours], dtype=native)


def read_picture(address: str, spatial_dims: int, palette: str) -> Picture:
    """Read one image or volume, its values unchanged.

    Args:
        address: see `split_page`. In 2-D a multi-page TIFF needs a page; in 3-D its pages are Z of one volume.
        spatial_dims: 2 or 3. Trailing axes of length 1 of a NIfTI file are dropped down to it.
        palette: what the palette of a PNG or BMP turns into: its colours ("RGB") or the indices into it ("P").

    Raises:
        ValueError: naming the file, the rule and the shape, if the file does not hold one such grey or RGB picture.
        FileNotFoundError: if there is no such file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tifffile.imwrite(f"{folder}/stack.tif", np.zeros((5, 2, 3), dtype=np.uint8), photometric="minisblack")
        ...     image = read_picture(f"{folder}/stack.tif#4", spatial_dims=2, palette="RGB")
        ...     volume = read_picture(f"{folder}/stack.tif", spatial_dims=3, palette="RGB")
        >>> image.array.shape, image.page, image.num_pages, volume.array.shape
        ((1, 3, 2), 4, 5, (1, 3, 2, 5))
    """
    path, page = split_page(address)
    suffix, pages, affine = split_suffix(Path(path).name)[1], 1, np.eye(spatial_dims + 1)
    if suffix in TIFF_SUFFIXES:
        array, axes, pages = _read_tiff(path, page, spatial_dims)
    elif suffix in NIFTI_SUFFIXES:
        array, axes, affine = _read_nifti(path, spatial_dims)
    else:
        array, axes = _read_pillow(path, palette)
    return Picture(address, channel_first(array, axes, spatial_dims, address), affine, page or 0, pages)
