"""The one reader and the one writer of image files, in MONAI's axis order on both sides.

A picture of H rows and W columns is an array (X = W, Y = H) here, a volume is (X, Y, Z); NIfTI files are stored so.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import tifffile
from monai.data import ImageReader
from monai.utils import ensure_tuple
from PIL import Image
from skimage.measure import label as connected_components
from skimage.segmentation import watershed
from unet_monai.data.image_formats import (
    JPEG_SUFFIXES,
    NIFTI_SUFFIXES,
    SUPPORTED_SUFFIXES,
    TIFF_SUFFIXES,
    Picture,
    read_picture,
    split_page,
    split_suffix,
)
from unet_monai.data.label_formats import ROI_SUFFIX, SEG_SUFFIX, file_of, lists_instances, read_label_picture
from unet_monai.data.writing import writing

logger = logging.getLogger(__name__)

IGNORE_LABEL = -1
"""The value of ignored pixels in every label map in memory; what a file says instead is the knob `ignore_label`."""

PERCENTILES = (1.0, 99.8)
"""Those of an image that become 0 and 1, as in the bundle's configs."""

FARTHEST = 1e5
"""Times the range from 0 to 1, beyond which no value may lie; an image of 16 bits never reaches it."""

LARGEST_EXACT_ID = 2**24 - 1
"""The deformation samples labels as float32, which tells integers apart up to here."""

_LUMINANCE = (0.2125, 0.7154, 0.0721)  # of skimage.color.rgb2gray
_FIRST_TIME = threading.Lock()  # of the module, because a reader that holds a lock cannot be pickled


def output_name(address: str) -> str:
    """Return the file name under which the instances of one image are written: a kind of file that holds instances.

    Example:
        >>> [output_name(name) for name in ("a.jpg", "a.png", "stack.tiff#3", "brain.nii.gz")]
        ['a.png', 'a.png', 'stack.tif', 'brain.nii.gz']
    """
    stem, suffix = split_suffix(Path(split_page(address)[0]).name)
    if suffix in NIFTI_SUFFIXES:
        return stem + suffix
    return stem + (".tif" if suffix in TIFF_SUFFIXES else ".png")


def check_outliers(extremes: Sequence[float], address: str) -> None:
    """Raise ValueError if a value lies `FARTHEST` times the range that becomes 0 to 1, or farther, outside of it.

    One such pixel would drown what a network sees around it, and a training altogether.

    Args:
        extremes: the lowest value of a channel, the percentiles that become 0 and 1, and the highest.
        address: what to name.

    Example:
        >>> check_outliers([0, 1, 60, 65535], "a.tif")
        >>> check_outliers([0, 1, 60, 1e30], "a.tif")
        Traceback (most recent call last):
        ...
        ValueError: a.tif must hold no values far outside of the others, nearly all 1 to 60, got 0 to 1e+30.
    """
    lowest, low, high, highest = extremes
    # MONAI does not scale an image whose percentiles are equal.
    if max(low - lowest, highest - high) >= FARTHEST * ((high - low) or 1):
        raise ValueError(
            f"{address} must hold no values far outside of the others, nearly all {low:.4g} to {high:.4g}, "
            f"got {lowest:.4g} to {highest:.4g}."
        )


def check_values(image: np.ndarray, address: str) -> None:
    """Raise ValueError as `check_outliers` does, if a channel of an image (C, *S) holds such a value."""
    if image.dtype not in (np.uint8, np.uint16):
        for channel in image:
            check_outliers(np.percentile(channel, (0, *PERCENTILES, 100)), address)


class _CellReader(ImageReader):
    """What the two readers share: one address in, a channel-first array and its metadata out."""

    suffixes: tuple[str, ...] = SUPPORTED_SUFFIXES

    def __init__(self, spatial_dims: int = 2) -> None:
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}.")
        self.spatial_dims = spatial_dims

    def verify_suffix(self, filename: Sequence[Any] | Any) -> bool:
        """Tell whether all files are of a kind that can be read."""
        return all(file_of(str(name)).lower().endswith(self.suffixes) for name in ensure_tuple(filename))

    def read(self, data: Sequence[Any] | Any, **kwargs: Any) -> Picture:
        """Read the file at one address (see `split_page`), or at a sequence of one address; there are no options.

        Raises:
            ValueError: naming the file, if it cannot be read as one picture of `spatial_dims` axes.
            FileNotFoundError: if it does not exist.
            TypeError: for any option.
        """
        addresses = ensure_tuple(data)
        if kwargs:
            raise TypeError(f"read must be called without options, got {sorted(kwargs)}.")
        if len(addresses) != 1:
            raise ValueError(f"data must be one file, got {len(addresses)}.")
        return self.open(str(addresses[0]))

    def get_data(self, img: Picture) -> tuple[np.ndarray, dict]:
        """Return the array (C, X, Y[, Z]) and its metadata.

        The metadata holds `filename_or_obj` (the address), `affine`, `spatial_shape`, `original_channel_dim` (0),
        `page` and `num_pages`, the number of pictures in the file (a file of one picture: 0 and 1).
        """
        array = self.convert(img)
        return array, {
            "filename_or_obj": img.address,
            "affine": img.affine,
            "spatial_shape": np.asarray(array.shape[1:]),
            "original_channel_dim": 0,
            "page": img.page,
            "num_pages": img.num_pages,
        }

    def open(self, address: str) -> Picture:
        """Read what the file at an address holds."""
        return read_picture(address, self.spatial_dims, palette="RGB")

    def convert(self, picture: Picture) -> np.ndarray:
        """Turn what the file holds into what the reader promises."""
        raise NotImplementedError


class CellImageReader(_CellReader):
    """Read a microscope's image: PNG, JPEG, BMP, TIFF or NIfTI, grey or RGB, values as in the file.

    An image of another number of channels is converted: RGB to its luminance (the weights of skimage's `rgb2gray`, in
    the file's value range, float32), grey to three equal channels. An alpha channel is dropped, the palette of a PNG
    replaced by its colours. In 2-D, one page of a multi-page TIFF is addressed as `path.tif#page`; in 3-D its pages
    are Z. Trailing axes of length 1 of a NIfTI file are dropped.

    Args:
        spatial_dims: 2 or 3.
        in_channels: 1 or 3.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.fromarray(np.array([[1, 2, 3], [4, 5, 6]], dtype=np.uint8)).save(f"{folder}/cell.png")
        ...     reader = CellImageReader()
        ...     array, meta = reader.get_data(reader.read(f"{folder}/cell.png"))
        >>> array.shape, array[0, 2].tolist(), meta["num_pages"]
        ((1, 3, 2), [3, 6], 1)
    """

    def __init__(self, spatial_dims: int = 2, in_channels: int = 1) -> None:
        super().__init__(spatial_dims)
        if in_channels not in (1, 3):
            raise ValueError(f"in_channels must be 1 (grey) or 3 (RGB), got {in_channels}.")
        self.in_channels = in_channels

    def open(self, address: str) -> Picture:
        """Read what the file at an address holds, but no image with single values far outside of the others."""
        picture = super().open(address)
        check_values(picture.array, address)
        return picture

    def convert(self, picture: Picture) -> np.ndarray:
        """Return the image (in_channels, X, Y[, Z])."""
        if len(picture.array) == self.in_channels:
            return picture.array
        if self.in_channels == 3:
            return np.repeat(picture.array, 3, axis=0)
        return np.tensordot(_LUMINANCE, picture.array, axes=1)[None].astype(np.float32)


class LabelReader(_CellReader):
    """Read a label map: int32, 0 = background, 1, 2, ... = instances, -1 = ignored.

    A map with one value besides 0 (and the ignored one) only tells cells from background: its 4-connected components
    (in 3-D 6-connected) become the instances, and the first such map of a reader is logged. Ids from 2**24 on, which
    float32 does not tell apart, are numbered anew in their order. Of RGB maps the channels must be equal, real numbers
    must be whole, and of a PNG with a palette the indices are the ids. JPEG is refused: it changes ids. Besides images
    it reads Cellpose's `_seg.npy`, ImageJ's sets of ROIs and folders of masks (`read_label_picture`): they list
    instances, which are never split into components, and none of their numbers means ignored or border pixels.

    With a `border_label`, maps are of classes instead, as a painting tool with one value for each class leaves them:
    background, cell (any one value) and border, where cells touch. The components of the cell pixels are the cores of
    the instances, which then take in the border pixels step by step, each the nearest (`grow_cores`); a border pixel
    that no cell reaches is background. This undoes `cell_classes`, but for instances so thin that they are all border.

    Args:
        spatial_dims: 2 or 3.
        ignore_label: value in the file of pixels that count nowhere, or None.
        border_label: value in the file of pixels where cells touch, for maps of classes; None for instances.

    Raises:
        ValueError: if `border_label` is below 1 or the `ignore_label`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.fromarray(np.array([[7, 0, 9], [7, 0, 255]], dtype=np.uint8)).save(f"{folder}/cell.png")
        ...     reader = LabelReader(ignore_label=255)
        ...     label, _ = reader.get_data(reader.read(f"{folder}/cell.png"))
        >>> label.tolist()
        [[[7, 7], [0, 0], [9, -1]]]
    """

    suffixes = (*SUPPORTED_SUFFIXES, SEG_SUFFIX, ROI_SUFFIX)

    def __init__(self, spatial_dims: int = 2, ignore_label: int | None = None, border_label: int | None = None) -> None:
        super().__init__(spatial_dims)
        if border_label is not None and (border_label < 1 or border_label == ignore_label):
            raise ValueError(
                f"border_label must be positive and differ from ignore_label ({ignore_label}), got {border_label}."
            )
        self.ignore_label = ignore_label
        self.border_label = border_label
        self._components_logged = False

    def verify_suffix(self, filename: Sequence[Any] | Any) -> bool:
        """Tell whether all files are of a kind that can be read; a folder is one of masks."""
        files = [name for name in ensure_tuple(filename) if not Path(str(name)).is_dir()]
        return super().verify_suffix(files)

    def open(self, address: str) -> Picture:
        """Read what the file at an address holds, of any kind that holds labels."""
        return read_label_picture(address, self.spatial_dims)

    def convert(self, picture: Picture) -> np.ndarray:
        """Return the label map (1, X, Y[, Z])."""
        array, where = picture.array, f"label map {picture.address}"
        if file_of(picture.address).lower().endswith(JPEG_SUFFIXES):
            raise ValueError(f"{where} must be of a lossless kind, such as PNG or TIFF, got JPEG.")
        if (array != array[:1]).any():
            raise ValueError(f"{where} must have equal channels, got different ones in shape {array.shape}.")
        if np.issubdtype(array.dtype, np.floating) and (array != np.rint(array)).any():
            raise ValueError(f"{where} must hold whole numbers, got {array[array != np.rint(array)][0]}.")
        of_instances = lists_instances(picture.address)
        ignored = np.zeros_like(array[0], dtype=bool)
        if self.ignore_label is not None and not of_instances:
            ignored = array[0] == self.ignore_label
        ids = np.where(ignored, 0, array[0])
        if ids.min() < 0:
            raise ValueError(f"{where} must hold ids of at least 0 besides ignore_label, got {ids.min()}.")
        if self.border_label is not None and not of_instances:
            return np.where(ignored, IGNORE_LABEL, self._instances_of_classes(ids, where))[None]
        cells = ids[ids > 0]
        if cells.size and cells.min() == cells.max() and not of_instances:
            self._log_components(picture.address, float(cells[0]))
            ids = connected_components(ids > 0, connectivity=1)
        elif cells.size and cells.max() > LARGEST_EXACT_ID:
            ids = np.searchsorted(np.unique(np.append(cells, 0)), ids)
        return np.where(ignored, IGNORE_LABEL, ids.astype(np.int32))[None]

    def _instances_of_classes(self, classes: np.ndarray, where: str) -> np.ndarray:
        border = classes == self.border_label
        cells = np.where(border, 0, classes)
        values = np.unique(cells[cells > 0])
        if values.size > 1:
            raise ValueError(
                f"{where} must hold one value besides 0 and the border_label {self.border_label}, "
                f"got {values.size} of them."
            )
        cores = connected_components(cells > 0, connectivity=1)
        # A watershed of a flat image is growth by steps: `grow_cores`, which this lower layer cannot import.
        return watershed(np.zeros(cores.shape, np.uint8), cores, mask=classes > 0).astype(np.int32)

    def _log_components(self, address: str, value: Any) -> None:
        with _FIRST_TIME:
            first, self._components_logged = not self._components_logged, True
        if first:
            logger.warning(
                "%s holds one value (%g) besides the background: its %d-connected components are the instances, "
                "as in every other such label map (said once).",
                address,
                value,
                2 * self.spatial_dims,
            )


def write_instances(
    path: str | Path, instances: np.ndarray, *, affine: np.ndarray | None = None, page: tuple[int, int] | None = None
) -> None:
    """Write instances as uint16, or as uint32 where ids exceed 65,535 and the kind of file holds them.

    The file is written under a temporary name beside its own and then renamed, see `writing`.

    Args:
        path: file to write, of kind .png, .tif, .tiff (deflate), .nii or .nii.gz.
        instances: integers (X, Y[, Z]), 0 = background. PNG and TIFF hold them as rows = Y, TIFF volumes as pages = Z.
        affine: (4, 4), from voxels to millimetres; kept by NIfTI only. None = the identity.
        page: (i, n) = this is page i of a TIFF stack of n images. They come in order; the file appears with the last.

    Raises:
        ValueError: for another kind of file, shape, type of array or page, a negative id, or ids that PNG cannot hold.
        RuntimeError: for a page that is not the next one.
        OSError: naming the file, if it cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_instances(f"{folder}/cell.tif", np.array([[1, 0], [1, 70_000], [0, 2]]))
        ...     tifffile.imread(f"{folder}/cell.tif")
        array([[    1,     1,     0],
               [    0, 70000,     2]], dtype=uint32)
    """
    path = Path(path)
    suffix = split_suffix(path.name)[1]
    instances = _smallest_unsigned(instances, suffix)
    if page is not None and (suffix not in TIFF_SUFFIXES or instances.ndim != 2 or not 0 <= page[0] < page[1]):
        raise ValueError(f"page must be (i, n), i < n, of a 2-D TIFF stack, got {page} of {path.name}.")
    with writing(path, last=page is None or page[0] == page[1] - 1) as part:
        if suffix in NIFTI_SUFFIXES:
            nibabel.save(nibabel.Nifti1Image(instances, np.eye(4) if affine is None else affine), part)
        elif suffix == ".png":
            Image.fromarray(np.ascontiguousarray(instances.T)).save(part)
        elif page is None:
            _write_pages(part, instances.T if instances.ndim == 3 else instances.T[None])
        else:
            _add_page(part, instances.T, page[0])


def _smallest_unsigned(instances: np.ndarray, suffix: str) -> np.ndarray:
    if suffix not in (*NIFTI_SUFFIXES, *TIFF_SUFFIXES, ".png"):
        raise ValueError(f"path must end in .png, .tif, .tiff, .nii or .nii.gz, got {suffix}.")
    if not np.issubdtype(instances.dtype, np.integer) or instances.ndim not in ((2,) if suffix == ".png" else (2, 3)):
        rule = "(X, Y)" if suffix == ".png" else "(X, Y[, Z])"
        raise ValueError(f"instances must be integers {rule}, got {instances.dtype} of shape {instances.shape}.")
    if instances.min() < 0:
        raise ValueError(f"instances must be at least 0, got {instances.min()}.")
    if instances.max() <= np.iinfo(np.uint16).max:
        return instances.astype(np.uint16)
    if suffix == ".png":
        raise ValueError(f"instances must be at most 65535 in PNG (use TIFF), got {instances.max()}.")
    return instances.astype(np.uint32)


def _write_pages(part: Path, pages: np.ndarray, *, append: bool = False) -> None:
    with tifffile.TiffWriter(part, append=append) as writer:
        for rows in pages:
            writer.write(rows, photometric="minisblack", compression="zlib", contiguous=False, metadata=None)


def _add_page(part: Path, rows: np.ndarray, page: int) -> None:
    """Append one page to an unfinished stack; all its pages keep one type, the larger one if they differ."""
    written, dtype = 0, rows.dtype
    if page > 0 and part.is_file():
        with tifffile.TiffFile(part) as tif:
            written, dtype = len(tif.pages), tif.series[0].dtype
    if written != page:
        raise RuntimeError(f"page must follow the {written} pages written to {part} (start at page 0), got {page}.")
    if rows.dtype.itemsize > dtype.itemsize:
        _write_pages(part, tifffile.imread(part).astype(rows.dtype).reshape(-1, *rows.shape))
        dtype = rows.dtype
    _write_pages(part, rows[None].astype(dtype), append=page > 0)
