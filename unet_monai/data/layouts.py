"""Which files of a folder are images, which are their labels, and which belong to neither.

The layouts of a dataset folder; the first one that fits counts:

| layout | images | labels | images without a label |
|---|---|---|---|
| two folders | `images/a.png` | `labels/a.png`, or `masks/a.png` where there is no `labels/` | an error |
| Cell Tracking Challenge [1] | `01/t000.tif`, `02/...` | `01_GT/SEG/man_seg000.tif`, `01_ST/...` | left out |
| ISBI 2012 challenge [2] | `train-volume.tif` | `train-labels.tif`, with as many pages | left out |
| one folder (Cellpose, ImageJ) | `a.png` | `a_seg.npy`, `a_cp_masks.png`, `a_rois.zip`, ... beside it | left out |
| a folder each, Usiigaci [3] | `set1/raw.tif` | `set1/instances_ids.png` | an error |
| a folder each, BBBC038 [4] | `<id>/images/<id>.png` | `<id>/masks/`, one file for each instance | an error |

In two folders labels may also have the names that Cellpose and ImageJ give. The last two layouts count where no image
lies in the dataset folder itself. "Left out" is said in the log, with their number.

[1] http://celltrackingchallenge.net/datasets/
[2] https://imagej.net/events/isbi-2012-segmentation-challenge
[3] https://github.com/oist/Usiigaci, folders `Mask R-CNN/train` and `Mask R-CNN/val`
[4] https://bbbc.broadinstitute.org/BBBC038, `stage1_train`: the Data Science Bowl 2018
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from unet_monai.data.image_formats import SUPPORTED_SUFFIXES, split_suffix
from unet_monai.data.label_formats import ROI_SUFFIX, SEG_SUFFIX

logger = logging.getLogger(__name__)

LABEL_SOURCES = ("GT", "ST")

# What inference writes beside a label map.
OVERLAY_ENDING = "_overlay.png"
TABLE_ENDING = "_cells.csv"
ROIS_ENDING = "_rois.zip"

# What is written beside an image "cell.png" under its stem: labels, and pictures of interest to people only.
_MASKS = ("_cp_masks", "_masks")
_CELLPOSE_PICTURES = ("_cp_output", "_outlines", "_dP", "_cellprob", "_flows", "_flows_0", "_flows_1", "_flows_2")
_COMPANIONS = (*_MASKS, *_CELLPOSE_PICTURES, *(ending + "_cp_masks" for ending in _CELLPOSE_PICTURES))
_ROI_SET = re.compile(r"RoiSet_(?P<after>.+)|(?P<before>.+)_(?:rois|RoiSet)", flags=re.IGNORECASE)

_EM_CHALLENGE = ("train-volume.tif", "train-labels.tif")
_FOLDER_EACH = (("raw.tif", "instances_ids.png"), ("images", "masks"))
_KNOWN = (
    "images/ with labels/ or masks/, 01/ with 01_GT/SEG/ or 01_ST/SEG/, train-volume.tif with train-labels.tif, images "
    "with labels beside them (as a.png with a_seg.npy), or folders with raw.tif and instances_ids.png or with images/ "
    "and masks/"
)


def labelled_files(root: Path, label_source: str | None = None) -> list[tuple[Path, Path]]:
    """Pair the images of a dataset folder with their labels, by the first layout of the module's table that fits.

    Args:
        root: the folder.
        label_source: "GT" or "ST" for the Cell Tracking Challenge's layout; None = the only one there is.

    Returns:
        Image and label of each pair, in natural order (t2 before t10). A label is a file, or a folder of masks.

    Raises:
        FileNotFoundError: if no layout fits, and for a missing partner.
        ValueError: for a `label_source` that is missing or has no meaning here, and as the layouts' own functions do.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("set10/raw.tif", "set10/instances_ids.png", "set9/raw.tif", "set9/instances_ids.png"):
        ...         Path(folder, name).parent.mkdir(exist_ok=True)
        ...         Path(folder, name).touch()
        ...     [label.relative_to(folder).as_posix() for _, label in labelled_files(Path(folder))]
        ['set9/instances_ids.png', 'set10/instances_ids.png']
    """
    label_dirs = [root / name for name in ("labels", "masks") if (root / name).is_dir()]
    two_folders = (root / "images").is_dir() and bool(label_dirs)
    if challenge_sources(root) and not two_folders:
        return challenge_files(root, label_source)
    if label_source is not None:
        raise ValueError(f"label_source must be None outside the challenge's layout, got {label_source!r}.")
    if two_folders:
        if len(label_dirs) > 1:
            logger.info("%s: labels/ is read, not masks/.", root)
        return paired_files(root / "images", label_dirs[0])
    volume, labels = (root / name for name in _EM_CHALLENGE)
    if volume.is_file() and labels.is_file():
        others = len(image_files(root)) - 2
        logger.info("%s: %s with %s; %d other images are left out.", root, *_EM_CHALLENGE, others)
        return [(volume, labels)]
    alone = not any(file.name.lower().endswith(SUPPORTED_SUFFIXES) for file in _visible(root))
    return (alone and files_in_a_folder_each(root)) or files_side_by_side(root)


def image_files(folder: Path) -> list[Path]:
    """List the images of a folder in natural order (t2 before t10).

    Hidden files and other kinds of files are left out, and so are the masks and other pictures that Cellpose writes
    beside an image (`cell_cp_masks.png`, `cell_flows.tif` beside `cell.png`) and the overlays of inference
    (`cell_overlay.png` beside `cell_cells.csv`).

    Raises:
        FileNotFoundError: if there is none.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("b10.png", "b9.png", "b9_cp_masks.png", "b9_seg.npy"):
        ...         (Path(folder) / name).touch()
        ...     [file.name for file in image_files(Path(folder))]
        ['b9.png', 'b10.png']
    """
    files = [file for file in _visible(folder) if file.name.lower().endswith(SUPPORTED_SUFFIXES)]
    stems = {split_suffix(file.name)[0] for file in files}
    images = [file for file in files if not (_companion_of(file, stems, _COMPANIONS) or _is_overlay(file))]
    if not images:
        raise FileNotFoundError(f"{folder} must hold images ({' '.join(SUPPORTED_SUFFIXES)}), got none.")
    return images


def paired_files(image_dir: Path, label_dir: Path) -> list[tuple[Path, Path]]:
    """Pair the images of one folder with the labels of another; every file must have its partner.

    A label has its image's name: `cell.png`, or `cell_cp_masks.png`, `cell_masks.tif`, `cell_seg.npy` (Cellpose),
    `cell_rois.zip`, `cell_RoiSet.zip`, `RoiSet_cell.zip`, `cell.zip` (ImageJ). Of several kinds for one image,
    `_seg.npy` goes before pictures, and these before ROIs.

    Raises:
        FileNotFoundError: for a missing partner or an empty folder.
        ValueError: for two files of one stem.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     images, labels = Path(folder, "images"), Path(folder, "labels")
        ...     for file in (images / "a.png", labels / "a_masks.tif", images / "b.png", labels / "RoiSet_b.zip"):
        ...         file.parent.mkdir(exist_ok=True)
        ...         file.touch()
        ...     [(image.name, label.name) for image, label in paired_files(images, labels)]
        [('a.png', 'a_masks.tif'), ('b.png', 'RoiSet_b.zip')]
    """
    images = _by_key((split_suffix(file.name)[0], file) for file in image_files(image_dir))
    labels, orphans = _labels(_visible(label_dir), set(images))
    if not labels and not orphans:
        raise FileNotFoundError(f"{label_dir} must hold labels of the images in {image_dir}, got none.")
    unlabelled = [file.name for stem, file in images.items() if stem not in labels]
    for alone, kinds, folder in (
        (unlabelled, ("image", "a label"), label_dir),
        (orphans, ("label", "an image"), image_dir),
    ):
        if alone:
            raise FileNotFoundError(
                f"every {kinds[0]} must have {kinds[1]} of the same name, got none for {_some(alone)} in {folder}."
            )
    return [(images[stem], labels[stem]) for stem in images]


def files_side_by_side(folder: Path) -> list[tuple[Path, Path]]:
    """Pair the images of a folder with the labels beside them, as Cellpose and ImageJ leave them.

    The names are those of `paired_files`, without the plain one. Images without a label are left out and counted in the
    log, and a zip file of another name is no label.

    Returns:
        Image and label of each pair.

    Raises:
        FileNotFoundError: for a label without an image, and if there is no label.
        ValueError: for two images of one stem, two labels of one kind, and for label maps of inference taken as images.
    """
    files = _visible(folder)
    pictures = any(file.name.lower().endswith(SUPPORTED_SUFFIXES) for file in files)
    of_images = set(image_files(folder)) if pictures else set()
    stems = {split_suffix(file.name)[0] for file in of_images}
    labels, orphans = _labels([file for file in files if file not in of_images], stems)
    orphans = [name for name in orphans if not name.lower().endswith(ROI_SUFFIX)]
    orphans += [file.name for file in files if file in of_images and split_suffix(file.name)[0].endswith(_MASKS[0])]
    if orphans:
        raise FileNotFoundError(f"every label must have an image in {folder}, got none for {_some(orphans)}.")
    if not labels:
        raise FileNotFoundError(
            f"dataset_dir must hold {_KNOWN}, got {_some(_contents(folder)) or 'nothing'} in {folder}."
        )
    results = [s for s in labels if all((folder / (s + ending)).exists() for ending in (OVERLAY_ENDING, TABLE_ENDING))]
    if results:
        raise ValueError(
            f"dataset_dir must hold images with labels, got label maps with overlays and tables, as inference writes "
            f"them, in {folder} ({_some(results)}): put the images into images/ and the label maps into labels/."
        )
    images = _by_key((split_suffix(file.name)[0], file) for file in files if file in of_images)
    pairs = [(file, labels[stem]) for stem, file in images.items() if stem in labels]
    logger.info("%s: %d images with labels, %d without one are left out.", folder, len(pairs), len(images) - len(pairs))
    return pairs


def files_in_a_folder_each(root: Path) -> list[tuple[Path, Path]]:
    """Pair image and label where each image has a folder of its own, with `raw.tif` or with `images/` and `masks/`.

    Folders without any of these names, and hidden ones, are left alone.

    Returns:
        Image and label (or folder of masks) of each pair; nothing if no folder has both.

    Raises:
        FileNotFoundError: for a folder with one of the two only, and for an empty `images/`.
        ValueError: for several images in one `images/`.
    """
    folders = [root / name.rstrip("/") for name in _contents(root) if name.endswith("/")]
    for kinds in _FOLDER_EACH:
        found = [folder for folder in folders if any((folder / kind).exists() for kind in kinds)]
        incomplete = [folder.name for folder in found if not all((folder / kind).exists() for kind in kinds)]
        if len(incomplete) == len(found):
            continue
        if incomplete:
            raise FileNotFoundError(
                f"every folder in {root} must hold both {kinds[0]} and {kinds[1]}, got one only in {_some(incomplete)}."
            )
        return [(_only_image(folder / kinds[0]), folder / kinds[1]) for folder in found]
    return []


def challenge_sources(root: Path) -> list[str]:
    """List the kinds of labels (GT, ST) of a folder in the Cell Tracking Challenge's layout; none = another layout."""
    return [s for s in LABEL_SOURCES if any(_label_dir(folder, s).is_dir() for folder in _sequences(root))]


def challenge_files(root: Path, label_source: str | None) -> list[tuple[Path, Path]]:
    """Pair the frames of all sequences in the Cell Tracking Challenge's layout.

    Raises:
        FileNotFoundError: for a label without a frame, and if there are no labels.
        ValueError: for two files of one number, for labels of single slices, and if both kinds of labels are there and
            `label_source` does not say which.
    """
    sources = challenge_sources(root)
    if label_source is None and len(sources) > 1:
        raise ValueError(f"label_source must be GT or ST where both are present, got None for {root}.")
    source = label_source or sources[0]
    pairs, unlabelled = [], 0
    for folder in _sequences(root):
        frames = _numbered(folder, r"t(\d+)\.tif")
        labels = _numbered(_label_dir(folder, source), r"man_seg(\d+)\.tif")
        orphans = [labels[number].name for number in labels if number not in frames]
        if orphans:
            raise FileNotFoundError(f"every label must have a frame in {folder}, got none for {_some(orphans)}.")
        pairs += [(frames[number], labels[number]) for number in frames if number in labels]
        unlabelled += len(frames) - sum(number in labels for number in frames)
    if not pairs:
        raise FileNotFoundError(f"dataset_dir must hold {source} labels man_seg*.tif, got none in {root}.")
    logger.info(
        "%s: %d frames with %s labels, %d frames without one are left out.", root, len(pairs), source, unlabelled
    )
    return pairs


def _natural(name: str) -> tuple[list[str | int], str]:
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", name))], name


def _visible(folder: Path) -> list[Path]:
    # A link that leads nowhere is listed too, so that reading it says so, instead of being left out without a word.
    entries = [file for file in folder.iterdir() if file.is_file() or (file.is_symlink() and not file.is_dir())]
    files = [file for file in entries if not file.name.startswith(".")]
    return sorted(files, key=lambda file: _natural(file.name))


def _contents(folder: Path) -> list[str]:
    """Return the names in a folder, those of folders with a slash, in natural order and without the hidden ones."""
    names = [entry.name + "/" * entry.is_dir() for entry in folder.iterdir() if not entry.name.startswith(".")]
    return sorted(names, key=_natural)


def _only_image(path: Path) -> Path:
    files = [path] if path.is_file() else image_files(path)
    if len(files) > 1:
        raise ValueError(
            f"{path} must hold one image where masks/ holds a file for each instance, "
            f"got {_some([file.name for file in files])}; for masks/ with a file for each image, "
            f"dataset_dir must be {path.parent}."
        )
    return files[0]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _by_key(files: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for key, file in files:
        other = found.setdefault(key, file)
        if other != file:
            raise ValueError(f"{file.parent} must hold one file for each image, got {other.name} and {file.name}.")
    return found


def _companion_of(file: Path, stems: set[str], endings: Sequence[str]) -> str | None:
    """Return the stem beside whose image a picture lies with one of the endings."""
    stem = split_suffix(file.name)[0]
    owners = [stem.removesuffix(ending) for ending in endings if stem.endswith(ending)]
    return next((owner for owner in owners if owner in stems), None)


def _is_overlay(file: Path) -> bool:
    stem = file.name.removesuffix(OVERLAY_ENDING)
    return stem != file.name and file.with_name(stem + TABLE_ENDING).exists()


def _label_kind(file: Path, stems: set[str]) -> tuple[int, str] | None:
    """Return the rank of a label file (the lowest goes first) and the stem of its image; None if it is no label."""
    name = file.name
    if name.lower().endswith(SEG_SUFFIX):
        return 0, name[: -len(SEG_SUFFIX)]
    if name.lower().endswith(ROI_SUFFIX):
        stem = name[: -len(ROI_SUFFIX)]
        match = _ROI_SET.fullmatch(stem)
        return 2, stem if match is None or stem in stems else match["after"] or match["before"]
    if not name.lower().endswith(SUPPORTED_SUFFIXES):
        return None
    stem = split_suffix(name)[0]
    owner = stem if stem in stems else _companion_of(file, stems, _MASKS)
    if owner is None and (_companion_of(file, stems, _COMPANIONS) or _is_overlay(file)):
        return None
    return 1, owner or stem


def _labels(files: Iterable[Path], stems: set[str]) -> tuple[dict[str, Path], list[str]]:
    """Return the label of each image by the image's stem, and the names of labels without an image."""
    ranked: dict[int, list[tuple[str, Path]]] = {0: [], 1: [], 2: []}
    for file in files:
        kind = _label_kind(file, stems)
        if kind is not None:
            ranked[kind[0]].append((kind[1], file))
    chosen: dict[str, Path] = {}
    passed_over = []
    for rank in sorted(ranked):
        for stem, file in _by_key(ranked[rank]).items():
            if chosen.setdefault(stem, file) != file:
                passed_over.append((chosen[stem].name, file.name))
    if passed_over:
        logger.info("%d images have several labels: %s is read, not %s, and so on.", len(passed_over), *passed_over[0])
    owned = {stem: file for stem, file in chosen.items() if stem in stems}
    return owned, [file.name for stem, file in chosen.items() if stem not in stems]


def _sequences(root: Path) -> list[Path]:
    return sorted(folder for folder in root.iterdir() if folder.is_dir() and re.fullmatch(r"\d\d", folder.name))


def _label_dir(sequence: Path, source: str) -> Path:
    return sequence.with_name(f"{sequence.name}_{source}") / "SEG"


def _numbered(folder: Path, pattern: str) -> dict[str, Path]:
    """Return the files of a folder by their number (without leading zeros), in its order."""
    files = sorted(folder.glob("*.tif"), key=lambda file: _natural(file.name))
    single = [file.name for file in files if re.fullmatch(r"man_seg_\d+_\d+\.tif", file.name)]
    if single:
        raise ValueError(f"labels in {folder} must be whole frames, got labels of single slices ({_some(single)}).")
    matches = [(re.fullmatch(pattern, file.name), file) for file in files]
    return _by_key((str(int(match[1])), file) for match, file in matches if match)
