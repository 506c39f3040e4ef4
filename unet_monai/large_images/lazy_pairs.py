"""Pairs of image and label on disk, read window by window: values, instances and ignored pixels as in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from math import ceil, prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.transforms import ScaleIntensityRange
from skimage.measure import label as connected_components
from tqdm import tqdm
from unet_monai.data.image_io import IGNORE_LABEL, LARGEST_EXACT_ID
from unet_monai.large_images.block_grid import Block
from unet_monai.large_images.lazy_image import LazyImage, name_of, open_image
from unet_monai.large_images.percentiles import intensity_range

BLOCK_SIDE = {2: 512, 3: 64}
"""Side of the blocks that labels are looked up by, pixels, for each number of axes."""


Item = Mapping[str, Any]


def find_lazy_pairs(dataset_dir: str | Path) -> list[dict[str, str]]:
    """List the images of a folder with their labels: `images/` and `labels/` with files or Zarr folders of one name.

    Args:
        dataset_dir: the folder.

    Returns:
        `{"image": path, "label": path}` in the order of the names, which count without `.tif`, `.ome.zarr` and so on.

    Raises:
        FileNotFoundError: for a missing or empty folder and for a missing partner.
        ValueError: for two files of one name.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("images/a.ome.tif", "labels/a.zarr"):
        ...         Path(folder, name).mkdir(parents=True)
        ...     [(Path(pair["image"]).name, Path(pair["label"]).name) for pair in find_lazy_pairs(folder)]
        [('a.ome.tif', 'a.zarr')]
    """
    root = Path(dataset_dir).expanduser().absolute()
    images, labels = (_by_name(root / folder) for folder in ("images", "labels"))
    for name in sorted(images.keys() ^ labels.keys()):
        alone = images.get(name) or labels[name]
        raise FileNotFoundError(
            f"every image in {root}/images must have a label of its name in labels/, and every label an image, "
            f"got {alone.name} alone."
        )
    return [{"image": str(images[name]), "label": str(labels[name])} for name in sorted(images)]


def _by_name(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"dataset_dir must hold images/ and labels/, got no {folder}.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        name = name_of(path)
        if not path.name.startswith(".") and found.setdefault(name, path) != path:
            raise ValueError(f"{folder} must hold one file of each name, got {found[name].name} and {path.name}.")
    if not found:
        raise FileNotFoundError(f"{folder} must hold TIFF, Zarr or NIfTI images, got none.")
    return found


def count_blocks(box: Block) -> int:
    """Count the blocks that a box is cut into.

    Example:
        >>> count_blocks(Block((0, 0), (600, 1024)))
        4
    """
    return prod(_blocks_along(box))


def numbered_block(box: Block, number: int) -> Block:
    """Return one of the blocks that a box is cut into, from its start on; the last ones along each axis are cut off.

    Example:
        >>> numbered_block(Block((10, 0), (610, 1024)), 3)
        Block(start=(522, 512), stop=(610, 1024))
    """
    side = BLOCK_SIDE[len(box.start)]
    position = np.unravel_index(number, _blocks_along(box))
    start = tuple(first + int(i) * side for first, i in zip(box.start, position, strict=True))
    return Block(start, tuple(min(first + side, last) for first, last in zip(start, box.stop, strict=True)))


def _blocks_along(box: Block) -> list[int]:
    return [ceil(n / BLOCK_SIDE[len(box.start)]) for n in box.shape]


def common_box(one: Block, other: Block) -> Block:
    """Return the pixels that two boxes share; where there are none, a box that stops where it starts.

    Example:
        >>> common_box(Block((0, 0), (9, 9)), Block((5, 12), (20, 15)))
        Block(start=(5, 12), stop=(9, 12))
    """
    start = tuple(map(max, one.start, other.start))
    return Block(start, tuple(map(max, start, map(min, one.stop, other.stop))))


class LazyPair(NamedTuple):
    """An opened image, its opened label, and the box of the image's pixels that the label covers."""

    image: LazyImage
    label: LazyImage
    extent: Block


class PairScan(NamedTuple):
    """What one pass over an image and its label tells.

    Attributes:
        intensity_range: (low, high) for each channel: the values that become 0 and 1.
        places: int64 (3, n), for each block to draw from: its number in the label's extent (`numbered_block`), its
            pixels of cells, its labelled pixels of background.
        foreground_only: whether all cells have one value, so that connected components are the instances.
    """

    intensity_range: list[list[float]]
    places: np.ndarray
    foreground_only: bool


class PairReader:
    """Reads windows of images and labels on disk as the bundle's transforms give them in memory.

    Nothing of the pixels is kept. A pair is scanned once, block by block: for the percentiles of the whole image, and
    for where the labels are. Blocks with a cell are drawn from; where the label tells what nobody annotated, by
    `ignore_label` or by covering part of the image only, so are those with annotated background.

    A label may be smaller than its image, if its file says where it lies: by the translation of an OME-Zarr or the
    offset of a NIfTI. Beyond it, pixels are ignored. A label with one value besides the background tells no cells
    apart; its connected components **in the window** are the instances then, so a cell that leaves a window and comes
    back counts as two. Ids above 2**24 are renumbered in each window.

    Args:
        spatial_dims: 2 or 3.
        in_channels: 1 or 3.
        ignore_label: value in the label files of pixels that count nowhere, or None.
        border_label: None; maps of classes are not read by windows.
        margin: background this near to the image's edge in X and Y, pixels, is ignored; see `ignore_margin`.

    Raises:
        ValueError: for a `border_label` or a negative `margin`.

    Example:
        >>> import tempfile, tifffile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pair = {key: f"{folder}/{key}.tif" for key in ("image", "label")}
        ...     tifffile.imwrite(pair["image"], np.arange(64 * 48, dtype=np.uint16).reshape(48, 64), tile=(16, 16))
        ...     tifffile.imwrite(pair["label"], np.eye(48, 64, dtype=np.uint16) * 5 + 1, tile=(16, 16))
        ...     PairReader(ignore_label=1).read_label(pair, Block((3, 2), (6, 5)))
        array([[[-1,  1, -1],
                [-1, -1,  2],
                [-1, -1, -1]]], dtype=int32)
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        *,
        ignore_label: int | None = None,
        border_label: int | None = None,
        margin: int = 0,
    ) -> None:
        if border_label is not None:
            raise ValueError(f"border_label must be None for labels that are read by windows, got {border_label}.")
        if margin < 0:
            raise ValueError(f"margin must be at least 0, got {margin}.")
        self.spatial_dims, self.in_channels = spatial_dims, in_channels
        self.ignore_label, self.margin = ignore_label, margin
        self._scans: dict[tuple[str, str], PairScan] = {}

    def open(self, item: Item) -> LazyPair:
        """Open the pair of an item, `{"image": path, "label": path}`.

        Raises:
            FileNotFoundError: as `open_image`.
            ValueError: as `open_image`, and for a label whose place in its image is not known.
        """
        image, label = item["image"], item["label"]
        times = tuple(Path(path).stat().st_mtime_ns for path in (image, label) if Path(path).exists())
        return _open_pair(image, label, self.spatial_dims, self.in_channels, (os.getpid(), *times))

    def scan(self, item: Item) -> PairScan:
        """Return what a pass over both files tells; they are read once, with a progress bar.

        Raises:
            ValueError: naming the file, if it cannot be read, holds no finite numbers, values far outside of
                the others, no label map, or no cell.
        """
        key = (item["image"], item["label"])
        if key not in self._scans:
            pair = self.open(item)
            ranges = [
                intensity_range(partial(_channel, pair.image, channel), pair.image.path)
                for channel in range(self.in_channels)
            ]
            self._scans[key] = PairScan(ranges, *self._find_labels(item, pair))
        return self._scans[key]

    def places(self, item: Item) -> np.ndarray:
        """Return where to draw from, `PairScan.places`, without the blocks that the item's `held_out` numbers."""
        places = self.scan(item).places
        return places[:, ~np.isin(places[0], item.get("held_out", []))]

    def read_image(self, item: Item, window: Block) -> np.ndarray:
        """Read a window (C, *S) of the image, float32; 0 and 1 are the percentiles of the whole image."""
        raw = self.open(item).image.read(window.slices).astype(np.float32)
        ranges = self.scan(item).intensity_range
        channels = [
            ScaleIntensityRange(low, high, b_min=0, b_max=1)(channel)
            for channel, (low, high) in zip(raw, ranges, strict=True)
        ]
        return np.stack([np.asarray(channel) for channel in channels])

    def read_label(self, item: Item, window: Block) -> np.ndarray:
        """Read a window (1, *S) of the instances, int32; -1 where nobody annotated and in blocks that are held out."""
        ids = self.read_ids(item, window)
        cells = np.where(ids > 0, ids, 0)
        if self.scan(item).foreground_only:
            cells = connected_components(cells > 0, connectivity=1)
        elif cells.max() > LARGEST_EXACT_ID:
            cells = np.searchsorted(np.unique(np.append(cells, 0)), cells)
        return np.where(ids < 0, IGNORE_LABEL, cells).astype(np.int32)[None]

    def read_ids(self, item: Item, window: Block) -> np.ndarray:
        """Read a window (*S) of the ids as the file has them, int64; -1 as in `read_label`.

        Raises:
            ValueError: naming the file, for numbers that are not whole and for negative ones.
        """
        return self._without_margin(item, window, self._annotated_ids(item, window))

    def _without_margin(self, item: Item, window: Block, ids: np.ndarray) -> np.ndarray:
        """Write -1 over the background of a window in the margin, and over all in blocks that are held out."""
        pair = self.open(item)
        size, margins = pair.image.shape, (self.margin, self.margin, 0)
        inner = Block(margins[: len(size)], tuple(n - margin for n, margin in zip(size, margins, strict=False)))
        in_margin = np.ones(window.shape, bool)
        in_margin[common_box(window, inner).within(window)] = False
        ids[in_margin & (ids == 0)] = IGNORE_LABEL
        for number in item.get("held_out", []):
            ids[common_box(window, numbered_block(pair.extent, number)).within(window)] = IGNORE_LABEL
        return ids

    def _annotated_ids(self, item: Item, window: Block) -> np.ndarray:
        """Read a window of the ids as the file has them; -1 only where it says that nobody annotated."""
        pair = self.open(item)
        ids = np.full(window.shape, IGNORE_LABEL, np.int64)
        covered = common_box(window, pair.extent)
        if min(covered.shape) > 0:
            stored = pair.label.read(covered.within(pair.extent))[0]
            ids[covered.within(window)] = self._whole_numbers(stored, pair.label.path)
        return ids

    def _whole_numbers(self, stored: np.ndarray, path: str) -> np.ndarray:
        ids = stored.astype(np.int64)
        if (ids != stored).any():
            raise ValueError(f"label map {path} must hold whole numbers, got {stored[ids != stored][0]}.")
        ignored = np.zeros(ids.shape, bool) if self.ignore_label is None else ids == self.ignore_label
        if ids[~ignored].size and ids[~ignored].min() < 0:
            raise ValueError(
                f"label map {path} must hold ids of at least 0 besides ignore_label, got {ids[~ignored].min()}."
            )
        return np.where(ignored, IGNORE_LABEL, ids)

    def _find_labels(self, item: Item, pair: LazyPair) -> tuple[np.ndarray, bool]:
        whole_file = {key: item[key] for key in ("image", "label")}  # nothing is held out
        values, counts, some_ignored = set[int](), [], pair.extent.shape != pair.image.shape
        blocks = range(count_blocks(pair.extent))
        for number in tqdm(blocks, desc=f"labels of {Path(pair.label.path).name}", unit="block"):
            block = numbered_block(pair.extent, number)
            ids = self._annotated_ids(whole_file, block)
            some_ignored |= bool((ids < 0).any())
            ids = self._without_margin(whole_file, block, ids)
            cells, background = int((ids > 0).sum()), int((ids == 0).sum())
            if cells:
                values |= {int(ids[ids > 0].min()), int(ids.max())}
                values = {min(values), max(values)}
            counts.append((number, cells, background))
        if not values:
            raise ValueError(f"label map {pair.label.path} must hold at least one cell, got none.")
        places = np.array(counts, np.int64).T
        annotated = places[1] + (places[2] if some_ignored else 0) > 0
        return places[:, annotated], len(values) == 1


def _channel(image: LazyImage, channel: int) -> Iterator[np.ndarray]:
    whole = Block((0,) * len(image.shape), image.shape)
    for number in tqdm(range(count_blocks(whole)), desc=f"values of {Path(image.path).name}", unit="block"):
        yield image.read(numbered_block(whole, number).slices)[channel]


@lru_cache(maxsize=32)
def _open_pair(
    image_path: str, label_path: str, spatial_dims: int, in_channels: int, state: tuple[int, ...]
) -> LazyPair:
    """Open a pair, anew for each state: times of the files, and process, for files open before a fork share a place."""
    image = open_image(image_path, spatial_dims=spatial_dims, in_channels=in_channels)
    label = open_image(label_path, spatial_dims=spatial_dims)
    start = (0,) * spatial_dims if label.shape == image.shape else _offset(image, label)
    return LazyPair(image, label, Block(start, tuple(map(sum, zip(start, label.shape, strict=True)))))


def _offset(image: LazyImage, label: LazyImage) -> tuple[int, ...]:
    """Compute the image pixel that the first pixel of a smaller label lies on."""
    refused = ValueError(
        f"{label.path} must have the size of {image.path}, {image.shape} (columns first), or a translation that puts "
        f"it onto whole pixels inside, of the same size; got {label.shape}, {label.grid}, in {image.grid}."
    )
    if label.grid is None:
        raise refused
    size, origin = np.array(label.grid.pixel_size), np.zeros(len(label.shape))
    if image.grid is not None:
        same_unit = None in (image.grid.unit, label.grid.unit) or image.grid.unit == label.grid.unit
        if not same_unit or not np.allclose(size, image.grid.pixel_size, rtol=1e-3):
            raise refused
        origin = np.array(image.grid.offset)
    offset = (np.array(label.grid.offset) - origin) / size
    start = np.rint(offset).astype(int)
    fits = (start >= 0).all() and (start + label.shape <= image.shape).all()
    # A file that says nothing of a translation has offset 0: its label may lie anywhere.
    if not fits or not start.any() or np.abs(offset - start).max() > 0.01:
        raise refused
    return tuple(start.tolist())
