"""Random tiles out of files larger than memory: where they lie is drawn first, then just what they need is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Randomizable, Transform
from unet_monai.large_images.block_grid import Block
from unet_monai.large_images.lazy_image import name_of
from unet_monai.large_images.lazy_pairs import Item, PairReader, numbered_block
from unet_monai.large_images.rescaled_blocks import BlockResampling, rescaled_size
from unet_monai.transforms.elastic_deformation import Deformation, RandElasticDeformation, source_window
from unet_monai.transforms.rescale import smooth, smoothing_reach

# Pixels on each side of a tile's centre that no tile reaches across.
_FAR = 2**16


def axis_window(first: int, stop: int, size: int) -> tuple[int, int]:
    """Bound the pixels that a span of one axis shows, which is mirrored at the axis' ends, without the end pixel.

    Example:
        >>> axis_window(5, 9, size=100), axis_window(-7, 4, size=100), axis_window(90, 103, size=100)
        ((5, 9), (0, 8), (90, 100))
        >>> axis_window(96, 112, size=100), axis_window(-3, 12, size=10)
        ((87, 100), (0, 10))
    """
    if first < 0 and stop > size:
        return 0, size
    if first < 0:
        return 0, min(max(stop, 1 - first), size)
    if stop > size:
        return max(min(first, 2 * (size - 1) - (stop - 1)), 0), size
    return first, stop


def mirrored_window(deformation: Deformation, image_size: Sequence[int]) -> Block:
    """Bound the part of an image that a tile comes from, also where the tile leaves the image and is mirrored.

    Cut out and deformed, this part gives the tile that the whole image gives; `source_window` would take the whole
    axis at an edge.

    Example:
        >>> still = Deformation((4, 4), np.array([9.5, 1.5]), np.eye(2), np.zeros((2, 3, 3)))
        >>> mirrored_window(still, (40, 40))
        Block(start=(6, 0), stop=(14, 6))
    """
    origin = np.floor(deformation.centre).astype(int) - _FAR
    # Of an image that has no edge near the tile.
    uncut = source_window(deformation._replace(centre=deformation.centre - origin), [2 * _FAR] * len(image_size))
    spans = zip(uncut, origin.tolist(), image_size, strict=True)
    bounds = [axis_window(first + span.start, first + span.stop, size) for span, first, size in spans]
    return Block(tuple(start for start, _ in bounds), tuple(stop for _, stop in bounds))


class LabelledPlaces:
    """Draws pixels of a file where labels are.

    Args:
        reader: reads the labels.
        item: the pair, with its `places`, see `FindLabelsd`.
        new_size: size that the image is rescaled to; places are pixels of that.
    """

    def __init__(self, reader: PairReader, item: Item, new_size: Sequence[int]) -> None:
        self.reader, self.item, self.new_size = reader, item, new_size

    def draw(self, random: np.random.RandomState, background_density: float) -> np.ndarray:
        """Draw a pixel, on cells, background and ignored pixels with density 1, `background_density` and 0.

        First a block is drawn by how much of this it holds, then the pixel in it: the density is that of the file.
        """
        numbers, cells, background = self.item["places"]
        extent, size = self.reader.open(self.item).extent, self.reader.open(self.item).image.shape
        block = numbered_block(extent, numbers[_weighted(random, cells + background_density * background)])
        ids = self.reader.read_ids(self.item, block)
        density = np.where(ids > 0, 1.0, np.where(ids == 0, background_density, 0.0))
        pixel = np.unravel_index(_weighted(random, density.ravel()), ids.shape) + np.array(block.start)
        return (2 * pixel + 1) * self.new_size // (2 * np.array(size))


def _weighted(random: np.random.RandomState, weights: np.ndarray) -> int:
    sums = np.cumsum(weights)
    return min(int(np.searchsorted(sums, random.random_sample() * sums[-1], side="right")), len(sums) - 1)


class RandLabelledDeformation(RandElasticDeformation):
    """`RandElasticDeformation` whose tiles lie where the labels of a file are: its `label` is a `LabelledPlaces`."""

    def _draw_position(self, image_size: Sequence[int], label: Any) -> np.ndarray:
        return label.draw(self.R, self.background_density)


class FindLabelsd(Transform):
    """Add to a pair where its labels are, `places`: from then on it is known, and small.

    Args:
        reader: scans the files, each once.
    """

    def __init__(self, reader: PairReader) -> None:
        self.reader = reader

    def __call__(self, data: Item) -> dict[str, Any]:
        """Return a copy of `{"image": path, "label": path}` with int64 (3, blocks), see `PairScan`."""
        return {**data, "places": self.reader.places(data)}


class RandLazyTiled(Randomizable, Transform):
    """Draw a tile out of an image and a label on disk, and read no more than its window.

    The tile is that of `Rescaled` and `RandElasticDeformationd` on the whole files, for the same deformation: the same
    pixels up to the rounding of float32. Only what lies in the window around it is read, mirrored at the image's own
    edges. A tile's place is drawn by `LabelledPlaces`, all else as in memory.

    Args:
        reader: reads windows.
        deformation: draws; its `spatial_size` must be given.
        scale: factor > 0 that image and label are rescaled by.
        smoothing: sigma of a Gaussian that smooths the rescaled image, pixels.

    Raises:
        ValueError: if the deformation has no `spatial_size`.

    Example:
        >>> import tempfile, tifffile
        >>> reader = PairReader()
        >>> tiles = RandLazyTiled(reader, RandLabelledDeformation(32, rotate_range=3)).set_random_state(seed=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pair = {key: f"{folder}/{key}.tif" for key in ("image", "label")}
        ...     for path in pair.values():
        ...         tifffile.imwrite(path, np.arange(640 * 480, dtype=np.uint32).reshape(480, 640), tile=(64, 64))
        ...     tile = tiles(FindLabelsd(reader)(pair))
        >>> tile["image"].shape, tile["label"].dtype
        (torch.Size([1, 32, 32]), torch.int32)
    """

    def __init__(
        self, reader: PairReader, deformation: RandLabelledDeformation, *, scale: float = 1.0, smoothing: float = 0.0
    ) -> None:
        if deformation.spatial_size is None:
            raise ValueError("deformation must have a spatial_size, for no tile is as large as the image, got None.")
        self.reader, self.deformation, self.scale, self.smoothing = reader, deformation, scale, smoothing

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandLazyTiled:
        """Seed the deformation, which draws all there is to draw."""
        super().set_random_state(seed, state)
        self.deformation.set_random_state(seed, state)
        return self

    def randomize(self, data: Item) -> None:
        """Draw a deformation for the pair."""
        new_size = self._resampling(data).new_size
        places: Any = LabelledPlaces(self.reader, data, new_size)
        self.deformation.randomize(new_size, places)

    def __call__(self, data: Item) -> dict[str, Any]:
        """Return a copy of a pair with its `places`, the paths replaced by the tiles (C, *spatial_size)."""
        self.randomize(data)
        return {**data, **self.cut(data)}

    def cut(self, data: Item) -> dict[str, Any]:
        """Read the tile of image and label that was drawn last."""
        drawn = self.deformation.deformation
        if drawn is None:
            raise RuntimeError("call randomize() before cut().")
        resampling = self._resampling(data)
        window = mirrored_window(drawn, resampling.new_size)
        self.deformation.deformation = drawn._replace(centre=drawn.centre - window.start)
        parts = [self._image(data, resampling, window), self._label(data, resampling, window)]
        image, label = self.deformation.deform(parts, ["sharp", "nearest"])
        self.deformation.deformation = drawn
        return {"image": image, "label": label}

    def _resampling(self, data: Item) -> BlockResampling:
        return _resampling_by(self.reader.open(data).image.shape, self.scale)

    def _image(self, data: Item, resampling: BlockResampling, window: Block) -> torch.Tensor:
        reach = smoothing_reach(self.smoothing)
        smoothed = window.widened(reach, reach, resampling.new_size)
        read = resampling.needed(smoothed)
        pixels = torch.as_tensor(self.reader.read_image(data, read))
        return smooth(resampling(pixels, read, smoothed), self.smoothing)[(slice(None), *window.within(smoothed))]

    def _label(self, data: Item, resampling: BlockResampling, window: Block) -> torch.Tensor:
        axes = zip(window.start, window.stop, resampling.size, resampling.new_size, strict=True)
        # The pixel at the centre of each new one, as `resample` counts.
        picked = [((torch.arange(a, b) + 0.5) * (size / new_size)).long() for a, b, size, new_size in axes]
        read = Block(tuple(int(p[0]) for p in picked), tuple(int(p[-1]) + 1 for p in picked))
        label = torch.as_tensor(self.reader.read_label(data, read))
        for axis, (pixels, first) in enumerate(zip(picked, read.start, strict=True), start=1):
            label = label.index_select(axis, pixels - first)
        return label


@lru_cache
def _resampling_by(size: tuple[int, ...], scale: float) -> BlockResampling:
    return BlockResampling(size, [rescaled_size(n, scale) for n in size])


class ReadLabelledBlockd(Transform):
    """Read one block of an image and of its label, to validate on.

    Args:
        reader: reads it.
    """

    def __init__(self, reader: PairReader) -> None:
        self.reader = reader

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Read the block that `data["block"]` numbers: MetaTensors image (C, *S), float32, and label (1, *S), int32.

        They are named by the image's stem and the block's first pixel, as `big_512-1024.tif`.
        """
        block = numbered_block(self.reader.open(data).extent, data["block"])
        path = Path(data["image"])
        name = f"{name_of(path)}_{'-'.join(map(str, block.start))}.tif"
        meta = {"filename_or_obj": str(path.with_name(name))}
        image, label = self.reader.read_image(data, block), self.reader.read_label(data, block)
        return {"image": MetaTensor(torch.as_tensor(image), meta=meta), "label": MetaTensor(label, meta=dict(meta))}
