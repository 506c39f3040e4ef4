"""Pairs of image and label files in a folder, and their split into training and validation."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from unet_monai.data.image_formats import (
    SUPPORTED_SUFFIXES,
    RefusedFileError,
    count_pages,
    image_stem,
    picture_size,
    split_page,
    split_suffix,
)
from unet_monai.data.image_io import output_name
from unet_monai.data.label_formats import ROI_SUFFIX, roi_set_address
from unet_monai.data.layouts import (
    LABEL_SOURCES,
    OVERLAY_ENDING,
    ROIS_ENDING,
    TABLE_ENDING,
    image_files,
    labelled_files,
)

logger = logging.getLogger(__name__)


def find_pairs(
    dataset_dir: str | Path, *, label_source: str | None = None, spatial_dims: int = 2
) -> list[dict[str, str]]:
    """List the images of a dataset folder with their labels, in natural order (t2 before t10).

    The layouts are listed in `unet_monai.data.layouts`: two folders `images/` + `labels/` or `masks/`, one folder as
    Cellpose and ImageJ leave it, and the official ones of the Cell Tracking Challenge, the ISBI 2012 challenge, BBBC038
    (Data Science Bowl 2018) and Usiigaci. In 2-D every page of a multi-page TIFF is an item of its own. Where a file of
    a pair cannot be read they are listed as one item: reading it says what is wrong.

    Args:
        dataset_dir: the folder.
        label_source: "GT" or "ST" for the challenge's layout; None = the only one there is.
        spatial_dims: 2 or 3; in 3-D a multi-page TIFF is one volume.

    Returns:
        `{"image": address, "label": address}` with absolute addresses, see `image_formats.split_page` and
        `label_formats.read_label_picture`.

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
    files = labelled_files(root, label_source)
    return [pair for image, label in files for pair in _pages(image, label, spatial_dims)]


def split_pairs(
    pairs: Sequence[dict[str, str]],
    validation: float | str | Sequence[str] = 0.2,
    *,
    label_source: str | None = None,
    spatial_dims: int = 2,
) -> dict[str, list[dict[str, str]]]:
    """Split pairs into training and validation.

    The name of an image is its stem ("t000"), that of a page of a stack its file's stem and the page, counted from 0
    ("train-volume#29"). Names may have the suffix ("train-volume.tif#29") and the folder before them ("02/t000",
    "set46/raw"); a name or pattern that fits several images stands for all of them. `::` means the same as # before a
    page: MONAI's configs turn every # into it. On the command line, where Python Fire takes the end of "stack#3" for a
    comment, "stack.tif#3" or "stack::3" must be written.

    Args:
        pairs: what `find_pairs` returns.
        validation: which images are for validation. A number: the last contiguous share of them, at least one image
            and not all of them unless it is 0 or 1. A string: a glob pattern for the stem ("t1[0-9][0-9]"), with a
            suffix in it for the file name ("train-volume.tif#2[4-9]"), with a slash for the folder too ("02/*"); or an
            existing folder, which is a dataset of its own. A list: names.
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
    training_images: int | None = None,
    label_source: str | None = None,
    spatial_dims: int = 2,
) -> dict[str, list[dict[str, str]]]:
    """List and split a dataset folder (see `find_pairs` and `split_pairs`) and log the split in one line.

    Args:
        dataset_dir: the folder.
        validation: which images are for validation.
        training_images: how many of the others train, spread evenly over them; None for all.
        label_source: "GT" or "ST" for the challenge's layout; None = the only one there is.
        spatial_dims: 2 or 3.

    Returns:
        The lists "training" and "validation".

    Raises:
        FileNotFoundError: as `find_pairs`.
        ValueError: as `find_pairs` and `split_pairs`, and for more `training_images` than there are, or none.
        TypeError: as `split_pairs`.

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
    if training_images is not None:
        split["training"] = _spread(split["training"], training_images)
    names = _short_names([*split["training"], *split["validation"]])[len(split["training"]) :]
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

    A file that cannot be read is listed, as one image: reading it says what is wrong, and the others are not lost. So
    are the files whose results would overwrite each other, `a.png` and `a.tif` for instance: each such item says so as
    its "error" (see `FaultTolerantDataset`).

    Args:
        path: file or folder. Of a folder, hidden files and those of other kinds are left out, and so are masks and
            other pictures that Cellpose or inference wrote beside an image (see `layouts.image_files`).
        spatial_dims: 2 or 3. In 2-D every page of a multi-page TIFF is an item of its own.

    Returns:
        `{"image": address}` with absolute addresses, see `image_formats.split_page`; `{"image": path, "error": line}`
        for a file that must not be segmented.

    Raises:
        FileNotFoundError: for a missing path or a folder without images.
        ValueError: for a file of another kind.

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
    items: list[dict[str, str]] = []
    for file, rivals in zip(files, _of_the_same_results(files), strict=True):
        if rivals:
            names = ", ".join(sorted(rival.name for rival in rivals))
            line = f"{file} must not share the name of a result with another image, got {names} beside it."
            items.append({"image": str(file), "error": line})
        else:
            items += [{"image": address} for address in _addresses_to_read(file, spatial_dims)]
    return items


def result_names(address: str) -> list[str]:
    """List the names of all files that inference may write for one image.

    Example:
        >>> result_names("a.jpg")
        ['a.png', 'a_cells.csv', 'a_overlay.png', 'a_rois.zip']
    """
    name = output_name(address)
    return [name, *(split_suffix(name)[0] + ending for ending in (TABLE_ENDING, OVERLAY_ENDING, ROIS_ENDING))]


def _of_the_same_results(files: Sequence[Path]) -> list[set[Path]]:
    """Return for each image the others for which inference would write a file of the same name."""
    results = [set(result_names(file.name)) for file in files]
    images: dict[str, set[Path]] = {}
    for file, names in zip(files, results, strict=True):
        for name in names:
            images.setdefault(name, set()).add(file)
    return [
        {other for name in names for other in images[name]} - {file} for file, names in zip(files, results, strict=True)
    ]


def _addresses(file: Path, spatial_dims: int) -> list[str]:
    pages = count_pages(str(file)) if spatial_dims == 2 else 1
    return [f"{file}#{page}" for page in range(pages)] if pages > 1 else [str(file)]


def _addresses_to_read(file: Path, spatial_dims: int) -> list[str]:
    try:
        return _addresses(file, spatial_dims)
    except (RefusedFileError, FileNotFoundError):
        return [str(file)]


def _pages(image: Path, label: Path, spatial_dims: int) -> list[dict[str, str]]:
    images = [str(image)]
    try:
        images = _addresses(image, spatial_dims)
        if label.name.lower().endswith(ROI_SUFFIX):
            size = picture_size(str(image))
            labels = [roi_set_address(label, size, split_page(address)[1]) for address in images]
        else:
            labels = _addresses(label, spatial_dims)
    except (RefusedFileError, FileNotFoundError):
        return [{"image": images[0], "label": str(label)}]
    if len(images) != len(labels):
        raise ValueError(f"label {label} must have as many pages as its image ({len(images)}), got {len(labels)}.")
    return [{"image": one, "label": other} for one, other in zip(images, labels, strict=True)]


def _files(pairs: Iterable[dict[str, str]]) -> set[Path]:
    return {Path(split_page(pair["image"])[0]).resolve() for pair in pairs}


def _folder_of(address: str) -> str:
    return Path(split_page(address)[0]).parent.name


def _short_names(pairs: Sequence[dict[str, str]]) -> list[str]:
    """Return the stems of the images, or folder and stem where stems alone do not tell them apart."""
    images = [pair["image"] for pair in pairs]
    stems = [image_stem(image) for image in images]
    return stems if len(set(stems)) == len(stems) else [f"{_folder_of(image)}/{image_stem(image)}" for image in images]


def _pick(pairs: Sequence[dict[str, str]], validation: float | str | Sequence[str]) -> set[int]:
    """Return the positions of the validation images."""
    if isinstance(validation, str):
        validation = _with_number_sign(validation)
        picked = {i for i, pair in enumerate(pairs) if _fits(pair["image"], validation)}
        if not picked:
            raise ValueError(
                f"validation must be an existing folder or match the name of an image, "
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


def _spread(pairs: Sequence[dict[str, str]], count: int) -> list[dict[str, str]]:
    """Take the middle one of each of `count` equal parts."""
    if not 1 <= count <= len(pairs):
        raise ValueError(f"training_images must be between 1 and {len(pairs)}, got {count}.")
    return [pairs[(2 * i + 1) * len(pairs) // (2 * count)] for i in range(count)]


def _with_number_sign(name: str) -> str:
    """Return a name as `split_page` spells it: MONAI's ConfigParser replaces # in every string of a config by ::."""
    return name.replace("::", "#")


def _fits(address: str, pattern: str) -> bool:
    name = (
        Path(address).name if any(suffix in pattern.lower() for suffix in SUPPORTED_SUFFIXES) else image_stem(address)
    )
    return fnmatchcase(f"{_folder_of(address)}/{name}" if "/" in pattern else name, pattern)


def _named(pairs: Sequence[dict[str, str]], name: str) -> list[int]:
    if not isinstance(name, str):
        raise TypeError(f"validation must list strings, got {name!r}.")
    name = _with_number_sign(name)
    folder, _, file = name.rpartition("/")
    images = [pair["image"] for pair in pairs]
    picked = [i for i, image in enumerate(images) if file in (image_stem(image), Path(image).name)]
    picked = [i for i in picked if folder in ("", _folder_of(images[i]))]
    if not picked:
        raise ValueError(f"validation must list images by stem or file name, got {name!r}{_nearest(pairs, name)}.")
    return picked


def _nearest(pairs: Sequence[dict[str, str]], name: str) -> str:
    near = difflib.get_close_matches(name, _short_names(pairs), n=1, cutoff=0)
    return f" (nearest: {near[0]!r})" if near else ""
