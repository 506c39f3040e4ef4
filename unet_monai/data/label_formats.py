"""Label maps that are no picture, as pictures like any other: Cellpose's `_seg.npy`, ImageJ's ROIs, folders of masks.

A set of ROIs does not know the size of its image, so its address says it, as columns x rows: `cells_rois.zip#640x512`.
The ROIs of one page of a stack, which ImageJ numbers from 1, are `cells_rois.zip#640x512#0` and so on. A folder of
masks holds one picture for each instance, as in BBBC038, the Data Science Bowl 2018.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any, cast

import numpy as np
from roifile import ImagejRoi
from unet_monai.data.image_formats import (
    JPEG_SUFFIXES,
    SUPPORTED_SUFFIXES,
    Picture,
    channel_first,
    naming,
    read_picture,
    split_page,
)
from unet_monai.data.imagej_rois import instances_from_rois

SEG_SUFFIX = "_seg.npy"
ROI_SUFFIX = ".zip"

_ROI_SET = re.compile(r"(.+\.zip)(?:#(\d+)x(\d+)(?:#(\d+))?)?", flags=re.IGNORECASE)
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_SCALAR = np.float64(0).__reduce__()[0]
_NUMPY: dict[tuple[str, str], Any] = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # of NumPy 1 and 2
    _NUMPY |= {(_module, "_reconstruct"): _RECONSTRUCT, (_module, "scalar"): _SCALAR}
_BROKEN = (pickle.UnpicklingError, AttributeError, IndexError, KeyError, TypeError)  # what wrong bytes lead to


class _ArrayUnpickler(pickle.Unpickler):
    """Builds NumPy's arrays and numbers and Python's plain containers, and calls nothing else that a pickle names."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NUMPY:
            raise pickle.UnpicklingError(f"it wants to call {module}.{name}, and calling is not allowed")
        return _NUMPY[module, name]


def roi_set_address(path: str | Path, size: tuple[int, int], page: int | None = None) -> str:
    """Return the address of a set of ROIs for an image of `size` = (columns, rows), or for a page of a stack of such.

    Example:
        >>> roi_set_address("cells_rois.zip", (640, 512)), roi_set_address("cells_rois.zip", (640, 512), 3)
        ('cells_rois.zip#640x512', 'cells_rois.zip#640x512#3')
    """
    return f"{path}#{size[0]}x{size[1]}" + ("" if page is None else f"#{page}")


def file_of(address: str) -> str:
    """Return the path of the file at the address of an image or a label map.

    Example:
        >>> file_of("cells_rois.zip#640x512#3"), file_of("stack.tif#3"), file_of("cell_seg.npy")
        ('cells_rois.zip', 'stack.tif', 'cell_seg.npy')
    """
    match = _ROI_SET.fullmatch(address)
    return split_page(address)[0] if match is None else match[1]


def lists_instances(address: str) -> bool:
    """Tell whether a label map lists its instances: the kinds of this module do, a picture may be only foreground.

    Example:
        >>> lists_instances("cells_rois.zip#640x512"), lists_instances("cell_seg.npy"), lists_instances("cell.png")
        (True, True, False)
    """
    return file_of(address).lower().endswith((SEG_SUFFIX, ROI_SUFFIX)) or Path(address).is_dir()


def read_label_picture(address: str, spatial_dims: int) -> Picture:
    """Read one label map of any kind: a picture (see `read_picture`), `_seg.npy`, a set of ROIs, a folder of masks.

    From `_seg.npy`, a pickle, come only arrays, numbers and plain containers: a file that would run anything else is
    refused. Its masks are rows first, with planes before them in 3-D. ROIs are filled as by `instances_from_rois`; of a
    page, those count that are set to it or to no page. Of a folder of masks, the n-th file in the order of the names is
    instance n: where it is not 0, in any channel but alpha. Where masks overlap the last one counts, as with ROIs.

    Args:
        address: the path of a file or of a folder of masks; of a set of ROIs with the image's size, see
            `roi_set_address`.
        spatial_dims: 2 or 3; ROIs are 2-D.

    Raises:
        ValueError: naming the file, if it does not hold one such label map.
        FileNotFoundError: if there is no such file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/cell_seg.npy", {"masks": np.array([[0, 1, 1], [2, 2, 0]]), "filename": "cell.png"})
        ...     read_label_picture(f"{folder}/cell_seg.npy", spatial_dims=2).array.shape
        (1, 3, 2)
    """
    match = _ROI_SET.fullmatch(address)
    if Path(address).is_dir():
        return Picture(address, _read_masks(Path(address), spatial_dims), np.eye(spatial_dims + 1), 0, 1)
    if match is not None:
        array, axes = _read_rois(match, spatial_dims), "YX"
    elif address.lower().endswith(SEG_SUFFIX):
        array = _read_seg(address)
        while array.ndim > spatial_dims and len(array) == 1:
            array = array[0]
        axes = "ZYX"[-array.ndim :]
    else:
        return read_picture(address, spatial_dims, palette="P")
    return Picture(address, channel_first(array, axes, spatial_dims, address), np.eye(spatial_dims + 1), 0, 1)


def _read_masks(folder: Path, spatial_dims: int) -> np.ndarray:
    """Return the label map (1, X, Y[, Z]) of a folder of masks."""
    files = [file for file in folder.iterdir() if file.name.lower().endswith(SUPPORTED_SUFFIXES)]
    files = sorted((file for file in files if not file.name.startswith(".")), key=lambda file: file.name)
    if not files:
        raise FileNotFoundError(
            f"{folder} must hold a mask for each instance ({' '.join(SUPPORTED_SUFFIXES)}), got none."
        )
    instances = np.zeros(0, dtype=np.int32)
    for i, file in enumerate(files, start=1):
        if file.name.lower().endswith(JPEG_SUFFIXES):
            raise ValueError(f"mask {file} must be of a lossless kind, such as PNG or TIFF, got JPEG.")
        mask = read_picture(str(file), spatial_dims, palette="P").array
        if i == 1:
            instances = np.zeros((1, *mask.shape[1:]), dtype=np.int32)
        inside = (mask != 0).any(axis=0)
        if inside.shape != instances.shape[1:]:
            raise ValueError(
                f"mask {file} must have the shape of {files[0].name}, {instances.shape[1:]}, got {inside.shape}."
            )
        values = mask[:, inside]
        if (values != values[:, :1]).any():
            raise ValueError(f"mask {file} must hold one value besides 0, got {len(np.unique(values))} of them.")
        instances[0, inside] = i
    return instances


def _read_rois(match: re.Match[str], spatial_dims: int) -> np.ndarray:
    path, columns, rows, page = match.groups()
    if columns is None or spatial_dims != 2:
        raise ValueError(f"{path} must be addressed with its image's size, as {Path(path).name}#640x512, and in 2-D.")
    with naming(path):
        try:
            rois = cast("list[ImagejRoi]", ImagejRoi.fromfile(path))  # a single one only of a .roi file
        except _BROKEN as error:
            raise ValueError(f"it holds something else than ROIs ({error})") from error
        if page is not None:
            pages = [roi.position or roi.t_position or roi.z_position for roi in rois]
            rois = [roi for roi, of in zip(rois, pages, strict=True) if of in (0, int(page) + 1)]
        return instances_from_rois(rois, (int(rows), int(columns)))


def _read_seg(path: str) -> np.ndarray:
    with naming(path):
        try:
            with open(path, "rb") as file:
                version = np.lib.format.read_magic(file)
                read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                shape, _, dtype = read_header[version](file)
                if shape != () or not dtype.hasobject:
                    raise ValueError(f"it holds {dtype} of shape {shape} instead of a dictionary")
                content = _ArrayUnpickler(file).load().item()
        except _BROKEN as error:
            raise ValueError(f"{error}; save the masks as PNG or TIFF instead") from error
    masks = content.get("masks") if isinstance(content, dict) else None
    if not isinstance(masks, np.ndarray) or masks.ndim not in (2, 3):
        raise ValueError(f'{path} must hold an array of two or three axes under "masks", got {type(masks)}.')
    return masks
