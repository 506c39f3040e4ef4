"""Pairs of image and label files in a folder, and their split into training and validation."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from unet_monai.data.image_formats import count_pages, image_stem, picture_size, split_page, split_suffix
from unet_monai.data.label_formats import ROI_SUFFIX, roi_set_address
from unet_monai.data.layouts import (
    LABEL_SOURCES,
    challenge_files,
    challenge_sources,
    files_side_by_side,
    image_files,
    paired_files,
)

logger = logging.getLogger(__name__)


def find_pairs(
    dataset_dir: str | Path, *, label_source: str | None = None, spatial_dims: int = 2
) -> list[dict[str, str]]:
    """List the images of a dataset folder with their labels, in natural order (t2 before t10).

    Three layouts are known. `images/` + `labels/`: files of one stem are a pair, and every file must have its partner;
    the names that Cellpose and ImageJ give (`a_cp_masks.png`, `a_seg.npy`, `a_rois.zip` for `a.png`) count as that
    stem, see `layouts.paired_files`. One folder: images with labels of such names beside them. The Cell Tracking
    Challenge's (http://celltrackingchallenge.net/datasets/): frames `01/t000.tif` with labels
    `01_GT/SEG/man_seg000.tif` (gold) or `01_ST/SEG/...` (silver), in any number of sequences `01`, `02`, ... In the
    last two, images without a label are left out and counted in the log. In 2-D every page of a multi-page TIFF is an
    item of its own.

    Args:
        dataset_dir: the folder.
        label_source: "GT" or "ST" for the challenge's layout; None = the only one there is.
        spatial_dims: 2 or 3; in 3-D a multi-page TIFF is one volume.

    Returns:
        `{"image": address, "label": address}` with absolute addresses, see `image_formats.split_page` and
        `label_formats.roi_set_address`.

    Raises:
        FileNotFoundError: for a folder that is missing, empty or of no such layout, and for a missing partner.
        ValueError: for two files of one stem, different numbers of pages, labels of single slices, label maps beside
            what else inference wrote, and a `label_source` that is missing or has no meaning here.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for file in ("images/b10.png", "images/b9.jpg", "labels/b9.png", "labels/b10.bmp"):
        ...         (Path(folder) / file).parent.mkdir(exist_ok=True)
        ...         (Path(folder) / file).touch()
        ...     [(Path(pair["image"]).name, Path(pair["label"]).name) for pair in find_pairs(folder)]
        [('b9.jpg', 'b9.png'), ('b10.png', 'b10.bmp')]
    """
    root = Path(dataset_dir).expanduser().absolute()
    if not root.is_dir():
        raise FileNotFoundError(f"dataset_dir must be an existing folder, got {root}.")
    if label_source not in (None, *LABEL_SOURCES):
        raise ValueError(f"label_source must be GT, ST or None, got {label_source!r}.")
    two_folders = (root / "images").is_dir() and (root / "labels").is_dir()
    if challenge_sources(root) and not two_folders:
        files = challenge_files(root, label_source)
    else:
        files = paired_files(root / "images", root / "labels") if two_folders else files_side_by_side(root)
        if label_source is not None:
            raise ValueError(f"label_source must be None outside the challenge's layout, got {label_source!r}.")
    return [pair for image, label in files for pair in _pages(image, label, spatial_dims)]


def split_pairs(
    pairs: Sequence[dict[str, str]],
    validation: float | str | Sequence[str] = 0.2,
    *,
    label_source: str | None = None,
    spatial_dims: int = 2,
) -> dict[str, list[dict[str, str]]]:
    """Split pairs into training and validation.

    Args:
        pairs: what `find_pairs` returns.
        validation: which images are for validation. A number: the last contiguous share of them, at least one image
            and not all of them unless it is 0 or 1. A string: a glob pattern for the stem ("t1[0-9][0-9]"), with a
            slash for folder and stem ("02/*"); or an existing folder, which is a dataset of its own. A list: stems or
            file names, or folder and stem ("02/t000").
        label_source: as in `find_pairs`, for a validation folder.
        spatial_dims: likewise.

    Returns:
        The lists "training" and "validation", each in the order of `pairs`, with no image in both.

    Raises:
        ValueError: for a share outside [0, 1], a pattern or name that no image has, and a folder that shares images.
        TypeError: for any other kind of `validation`.

    Example:
        >>> pairs = [{"image": f"/images/t{i}.png", "label": f"/labels/t{i}.png"} for i in range(5)]
        >>> [pair["image"] for pair in split_pairs(pairs)["validation"]]
        ['/images/t4.png']
        >>> [pair["image"] for pair in split_pairs(pairs, "t[01]")["validation"]]
        ['/images/t0.png', '/images/t1.png']
    """
    if isinstance(validation, str) and validation and Path(validation).expanduser().is_dir():
        chosen = find_pairs(validation, label_source=label_source, spatial_dims=spatial_dims)
        both = _files(pairs) & _files(chosen)
        if both:
            raise ValueError(f"validation must be a folder of other images than training's, got {min(both)} in both.")
        return {"training": list(pairs), "validation": chosen}
    picked = _pick(pairs, validation)
    return {
        "training": [pair for i, pair in enumerate(pairs) if i not in picked],
        "validation": [pair for i, pair in enumerate(pairs) if i in picked],
    }


def load_split(
    dataset_dir: str | Path,
    *,
    validation: float | str | Sequence[str] = 0.2,
    label_source: str | None = None,
    spatial_dims: int = 2,
) -> dict[str, list[dict[str, str]]]:
    """List and split a dataset folder (see `find_pairs` and `split_pairs`) and log the split in one line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for file in ("images/a.png", "labels/a.png", "images/b.png", "labels/b.png"):
        ...         (Path(folder) / file).parent.mkdir(exist_ok=True)
        ...         (Path(folder) / file).touch()
        ...     split = load_split(folder)
        >>> [(part, len(pairs)) for part, pairs in split.items()]
        [('training', 1), ('validation', 1)]
    """
    pairs = find_pairs(dataset_dir, label_source=label_source, spatial_dims=spatial_dims)
    split = split_pairs(pairs, validation, label_source=label_source, spatial_dims=spatial_dims)
    names = [image_stem(pair["image"]) for pair in split["validation"]]
    logger.info(
        "%s: %d training, %d validation images (validation=%r%s).",
        dataset_dir,
        len(split["training"]),
        len(names),
        validation,
        f": {names[0]}..{names[-1]}" if names else "",
    )
    return split


def find_images(path: str | Path, *, spatial_dims: int = 2) -> list[dict[str, str]]:
    """List the images to segment: one file, or the files of a folder in natural order, without its sub-folders.

    Args:
        path: file or folder. Of a folder, hidden files and those of other kinds are left out, and so are masks and
            other pictures that Cellpose or inference wrote beside an image (see `layouts.image_files`).
        spatial_dims: 2 or 3. In 2-D every page of a multi-page TIFF is an item of its own.

    Returns:
        `{"image": address}` with absolute addresses, see `image_formats.split_page`.

    Raises:
        FileNotFoundError: for a missing path or a folder without images.
        ValueError: for a file of another kind, and for two files of one stem, whose results would overwrite each other.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("t10.png", "t9.jpg", "notes.txt"):
        ...         (Path(folder) / name).touch()
        ...     [Path(item["image"]).name for item in find_images(folder)]
        ['t9.jpg', 't10.png']
    """
    path = Path(path).expanduser().absolute()
    if not path.exists():
        raise FileNotFoundError(f"path must be an existing image or folder of images, got {path}.")
    if path.is_file():
        split_suffix(path.name)
    files = image_files(path) if path.is_dir() else [path]
    stems: dict[str, Path] = {}
    for file in files:
        other = stems.setdefault(split_suffix(file.name)[0], file)
        if other != file:
            raise ValueError(f"images must have different stems, got {other.name} and {file.name} in {path}.")
    return [{"image": address} for file in files for address in _addresses(file, spatial_dims)]


def _addresses(file: Path, spatial_dims: int) -> list[str]:
    pages = count_pages(str(file)) if spatial_dims == 2 else 1
    return [f"{file}#{page}" for page in range(pages)] if pages > 1 else [str(file)]


def _pages(image: Path, label: Path, spatial_dims: int) -> list[dict[str, str]]:
    images = _addresses(image, spatial_dims)
    if label.name.lower().endswith(ROI_SUFFIX):
        size = picture_size(str(image))
        labels = [roi_set_address(label, size, split_page(address)[1]) for address in images]
    else:
        labels = _addresses(label, spatial_dims)
    if len(images) != len(labels):
        raise ValueError(f"label {label} must have as many pages as its image ({len(images)}), got {len(labels)}.")
    return [{"image": one, "label": other} for one, other in zip(images, labels, strict=True)]


def _files(pairs: Iterable[dict[str, str]]) -> set[Path]:
    return {Path(split_page(pair["image"])[0]).resolve() for pair in pairs}


def _folder_and_stem(address: str) -> str:
    return f"{Path(split_page(address)[0]).parent.name}/{image_stem(address)}"


def _pick(pairs: Sequence[dict[str, str]], validation: float | str | Sequence[str]) -> set[int]:
    """Return the positions of the validation images."""
    if isinstance(validation, str):
        picked = {i for i, pair in enumerate(pairs) if _fits(pair["image"], validation)}
        if not picked:
            raise ValueError(
                f"validation must be an existing folder or match the stem of an image, "
                f"got {validation!r}{_nearest(pairs, validation)}."
            )
        return picked
    if isinstance(validation, Sequence):
        return {i for name in validation for i in _named(pairs, name)}
    if isinstance(validation, bool) or not isinstance(validation, (int, float)):
        raise TypeError(f"validation must be a number, a string or a list of strings, got {validation!r}.")
    if not 0 <= validation <= 1:
        raise ValueError(f"validation must be a share between 0 and 1, got {validation}.")
    size = round(validation * len(pairs))
    if 0 < validation < 1:
        size = min(max(size, 1), len(pairs) - 1)
    return set(range(len(pairs) - size, len(pairs)))


def _fits(address: str, pattern: str) -> bool:
    return fnmatchcase(_folder_and_stem(address) if "/" in pattern else image_stem(address), pattern)


def _named(pairs: Sequence[dict[str, str]], name: str) -> list[int]:
    if not isinstance(name, str):
        raise TypeError(f"validation must list strings, got {name!r}.")
    images = [pair["image"] for pair in pairs]
    picked = [i for i, im in enumerate(images) if name in (image_stem(im), Path(im).name, _folder_and_stem(im))]
    if not picked:
        raise ValueError(f"validation must list images by stem or file name, got {name!r}{_nearest(pairs, name)}.")
    return picked


def _nearest(pairs: Sequence[dict[str, str]], name: str) -> str:
    near = difflib.get_close_matches(name, [image_stem(pair["image"]) for pair in pairs], n=1, cutoff=0)
    return f" (nearest: {near[0]!r})" if near else ""
