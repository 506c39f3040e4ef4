"""Put an image and its corrected labels into a data set, where training finds them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from skimage.measure import label as connected_components
from skimage.segmentation import relabel_sequential
from unet_monai.data import CellImageReader, write_instances
from unet_monai.data.image_formats import SUPPORTED_SUFFIXES, Picture, split_suffix
from unet_monai.data.image_io import output_name
from unet_monai.data.writing import writing
from unet_monai.napari_plugin.planes import picture_of

REPLACED = "replaced_labels"


class LabelExistsError(FileExistsError):
    """The image has a label already, which only an explicit wish replaces."""


class SavedPair(NamedTuple):
    """What was written: the files, whether the image is a new one, the cells, and those of several parts."""

    image: Path
    label: Path
    new_image: bool
    num_cells: int
    in_parts: list[int]


def save_pair(dataset_dir: str | Path, name: str, image: Any, instances: Any, *, replace: bool = False) -> SavedPair:
    """Write an image and its labels into ``images/`` and ``labels/`` of a data set.

    An image that is there already is left as it is; a new one is written as TIFF, its values unchanged. The cells are
    numbered 1, 2, ... in the order of their numbers. Each file appears whole or not at all, a new image only after its
    label. A label that is replaced moves to ``replaced_labels/`` of the data set, under a name with a number.

    Args:
        dataset_dir: the data set; made if missing. One with ``masks/`` in place of ``labels/`` keeps it.
        name: name of the image in the data set, without a suffix.
        image: plane (H, W), or (H, W, C) of a colour image.
        instances: its labels (H, W), integers, 0 background.
        replace: whether to replace the label that the image has.

    Returns:
        What was written. `in_parts` are the new numbers of cells that are not in one piece (8-connected).

    Raises:
        LabelExistsError: when the image has a label and `replace` is off.
        ValueError: when the labels do not fit the image or hold no cell, for a name that is none, when another image
            has the name, and when the data set is of another layout.
    """
    picture, labels = picture_of(image, name), np.asarray(instances)
    if labels.shape != picture.array.shape[:0:-1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels must be integers of the image's {picture.array.shape[:0:-1]}, got {labels.dtype} {labels.shape}."
        )
    if labels.min() < 0 or labels.max() == 0:
        raise ValueError(f"labels must hold cells numbered from 1, got {labels.min()} to {labels.max()}.")
    if not re.fullmatch(r"[^/\\:*?\"<>|#.][^/\\:*?\"<>|#]*", name) or name != name.strip():
        raise ValueError(f"name must be that of a file, without folder and suffix, got {name!r}.")
    image_dir, label_dir = _folders(Path(dataset_dir).expanduser().absolute())
    found = _image_called(image_dir, name, picture)
    earlier = _labels_of(label_dir, name)
    if earlier and not replace:
        raise LabelExistsError(f"replace must be on, since {name} has a label already, got {earlier[0]}.")
    numbered = relabel_sequential(labels)[0]
    target = found or image_dir / f"{name}.tif"
    label = label_dir / output_name(target.name)
    _write_pair(picture.array, numbered, target, label, new_image=found is None, earlier=earlier)
    return SavedPair(target, label, found is None, int(numbered.max()), cells_in_parts(numbered))


def cells_in_parts(instances: np.ndarray) -> list[int]:
    """List the cells that are not in one piece, as an eraser may leave them: training takes each for one cell.

    Args:
        instances: (H, W), integers, 0 background.

    Example:
        >>> cells_in_parts(np.array([[1, 0, 1], [2, 2, 0]]))
        [1]
    """
    parts = connected_components(instances, background=0, connectivity=2)
    _, first = np.unique(parts, return_index=True)
    owners = instances.ravel()[first]  # the cell of each part
    ids, counts = np.unique(owners[owners > 0], return_counts=True)
    return [int(i) for i in ids[counts > 1]]


def _folders(root: Path) -> tuple[Path, Path]:
    """Find or make the two folders; never beside another layout, whose labels would no longer be read."""
    image_dir = root / "images"
    names = [name for name in ("labels", "masks") if (root / name).is_dir()]
    others = [entry.name for entry in root.iterdir() if not entry.name.startswith(".")] if root.exists() else []
    if others and not image_dir.is_dir():
        raise ValueError(
            f"dataset_dir must hold images/ and labels/, or nothing yet, got {sorted(others)[0]} in {root}."
        )
    label_dir = root / (names[0] if names else "labels")
    for folder in (image_dir, label_dir):
        folder.mkdir(parents=True, exist_ok=True)
    return image_dir, label_dir


def _image_called(image_dir: Path, name: str, picture: Picture) -> Path | None:
    """Find the image of a name in the data set; another image of that name must not get these labels."""
    files = [file for file in image_dir.iterdir() if file.name.lower().endswith(SUPPORTED_SUFFIXES)]
    found = [file for file in files if split_suffix(file.name)[0] == name]
    if not found:
        return None
    reader = CellImageReader(2, len(picture.array))
    there, _ = reader.get_data(reader.read(str(found[0])))
    if there.shape != picture.array.shape or (there != picture.array).any():
        raise ValueError(f"name must be that of no other image in the data set, got {name}, as {found[0]} has.")
    return found[0]


def _labels_of(label_dir: Path, name: str) -> list[Path]:
    """List the labels of an image, in all the forms that `layouts.paired_files` reads."""
    stem = re.escape(name)
    kinds = "|".join(re.escape(suffix) for suffix in SUPPORTED_SUFFIXES)
    form = re.compile(
        rf"{stem}(_cp_masks|_masks)?({kinds})|{stem}_seg\.npy|(RoiSet_{stem}|{stem}(_rois|_RoiSet)?)\.zip",
        re.IGNORECASE,
    )
    return sorted(file for file in label_dir.iterdir() if form.fullmatch(file.name))


def _write_pair(
    pixels: np.ndarray, instances: np.ndarray, image: Path, label: Path, *, new_image: bool, earlier: list[Path]
) -> None:
    for file in earlier:
        _keep(file)
    if new_image:
        with writing(image) as part:
            _write_tiff(part, pixels)
            write_instances(label, instances.T)
    else:
        write_instances(label, instances.T)
    # Another form of label would be read in place of the new one.
    for file in earlier:
        if file != label:
            file.unlink()


def _write_tiff(path: Path, pixels: np.ndarray) -> None:
    rows_first = pixels.transpose()
    if len(pixels) == 1:
        tifffile.imwrite(path, rows_first[..., 0], photometric="minisblack", compression="zlib", metadata=None)
    else:
        tifffile.imwrite(path, rows_first, photometric="rgb", compression="zlib", metadata=None)


def _keep(label: Path) -> None:
    """Copy a label to where the replaced ones are, under the first number that is free."""
    folder = label.parent.parent / REPLACED
    folder.mkdir(exist_ok=True)
    number = 1
    while (copy := folder / f"{number}_{label.name}").exists():
        number += 1
    shutil.copy2(label, copy)
