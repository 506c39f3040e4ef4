"""Segment an image of any size on disk, in the memory of one block: the steps, one after the other."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special
from unet_monai.data.image_io import CellImageReader
from unet_monai.large_images.block_grid import Block, Selection, block_grid, largest_block
from unet_monai.large_images.block_instances import BlockInstances, marks_of
from unet_monai.large_images.block_scores import BlockScorer, image_scale, tile_inferer
from unet_monai.large_images.claims import CLAIM_SECONDS
from unet_monai.large_images.components import Table
from unet_monai.large_images.lazy_image import LazyImage, name_of
from unet_monai.large_images.ome_zarr import BlockArray, made_by, open_ome_zarr
from unet_monai.large_images.percentiles import intensity_range
from unet_monai.large_images.stages import finish_blocks, finish_json
from unet_monai.large_images.tiff_export import export_tiff
from unet_monai.networks import ValidUNet
from unet_monai.transforms import LogitsToInstances

logger = logging.getLogger(__name__)

BYTES_PER_PIXEL = 160
"""Most that the arrays of a block take per channel and pixel of its window, the image's pixels or those that it is
rescaled to, whichever are more; measured, see docs/large_images.md."""


@dataclass(frozen=True)
class BlockSettings:
    """Which part of an image is segmented, at what scale, and in blocks of what size.

    Args:
        roi: (start, stop) along X, Y[, Z], pixels; None for the whole image.
        mask: path of a picture of any size that covers the whole image, other than 0 where to segment; None for
            everywhere.
        reach: most steps that a cell grows from its core, pixels; more than the widest rim between core and outline.
        chunk: side of the chunks of all arrays that are written, pixels.
        memory_budget: bytes that may be used besides the network, its maps and the tables of the cells.
        roi_size: side of the network's input tiles, one or one per axis; None chooses one that fits a block.
        cell_diameter: typical diameter in pixels of the cells, see `RescalingInferer`; None for that of the training
            images.
    """

    roi: Sequence[Sequence[int]] | None = None
    mask: str | None = None
    reach: int = 64
    chunk: int = 512
    memory_budget: int = 2 * 10**9
    roi_size: int | Sequence[int] | None = None
    cell_diameter: float | None = None


class LargeImageSegmenter:
    """Segment an image that is larger than memory into an OME-Zarr of instances.

    The instances, with their ids, are those of the bundle's inference in memory, under the conditions that
    `BlockInstances` states; scores differ by float rounding. The values that become 0 and 1 are the percentiles of all
    pixels that are segmented. Pixels outside `roi` and `mask` become background; blocks that hold none inside are
    neither read nor written, but for the border of their neighbours. They count as the outside of the image.

    Intermediate arrays lie in ``.part-<name>`` beside the result. A run that was killed continues from there: every
    finished block is recorded. Any number of processes may run on one image at the same time, with the same settings
    and the same `output_dir`: they claim blocks, see `take_claim`, and all return when the result is complete. A block
    that is computed twice, because its first owner was held up for long, is written with the same bytes again.

    Args:
        image: see `open_image`.
        network: a trained network, on the device that is to compute, see `unet_monai.networks.load_network`.
        find_instances: turns scores into instances; its knobs count.
        output_dir: folder for ``<name>_cells.zarr``, ``<name>_scores.zarr`` and ``<name>_cells.tif``.
        settings: region, scale and blocks.
        save_scores: whether to write the probability of no background too, uint8, 255 for 1.
        save_tiff: whether to write the instances as a BigTIFF too, see `export_tiff`.
        claim_seconds: age at which the claim of a process of another machine counts as dead, if it was not renewed.

    Raises:
        ValueError: for a setting that does not fit the image, the network, or blocks.
    """

    def __init__(
        self,
        image: LazyImage,
        network: ValidUNet,
        find_instances: LogitsToInstances,
        output_dir: str | Path,
        settings: BlockSettings | None = None,
        *,
        save_scores: bool = False,
        save_tiff: bool = False,
        claim_seconds: float = CLAIM_SECONDS,
    ) -> None:
        if not claim_seconds > 0:
            raise ValueError(f"claim_seconds must be positive, got {claim_seconds}.")
        self.claim_seconds = claim_seconds
        self.image, self.network, self.find_instances = image, network, find_instances
        self.settings = settings = settings or BlockSettings()
        _check_fit(image, network, settings)
        dims = len(image.shape)
        mask = None if settings.mask is None else _read_mask(settings.mask, dims)
        self.selection = Selection(image.shape, settings.roi, mask)
        scale = image_scale(network, settings.cell_diameter)
        halo = max(settings.reach, *(ceil(border / scale) for border in network.border))
        bytes_per_pixel = ceil(BYTES_PER_PIXEL * network.in_channels * max(scale, 1.0) ** dims)
        side = largest_block(settings.memory_budget, bytes_per_pixel, halo, settings.chunk, dims)
        grid = block_grid(image.shape, [side] * dims)
        self.blocks = {position: block for position, block in grid.items() if self.selection.pixels(block).any()}
        if not self.blocks:
            raise ValueError(f"mask and roi must leave a pixel to segment, got none: {settings.mask}, {settings.roi}.")
        self.name = name_of(image.path)
        self.output_dir, self.part = Path(output_dir), Path(output_dir) / f".part-{self.name}"
        self.cells, self.tiff = f"{self.name}_cells.zarr", f"{self.name}_cells.tif"
        self.scores = f"{self.name}_scores.zarr"
        wanted = {self.cells: True, self.scores: save_scores, self.tiff: save_tiff}
        self.outputs = [name for name, is_wanted in wanted.items() if is_wanted]
        self.work = BlockInstances(
            self.part,
            image.shape,
            self.blocks,
            find_instances,
            reach=settings.reach,
            chunk=settings.chunk,
            claim_seconds=claim_seconds,
        )

    def run(self) -> Path:
        """Segment the image, alone or beside other processes.

        Returns:
            The path of the instances.

        Raises:
            FileExistsError: if the result is there already, of another run.
            OSError: naming the folder, if its disk is full; what is finished stays there for the next run.
            ValueError: if the run that is to be continued, or joined, has other settings.
        """
        cells = self.output_dir / self.cells
        there = [output for output in self.outputs if (self.output_dir / output).exists()]
        begun = (self.part / "run.json").is_file()
        if not self._is_finished():  # looked at in this order, another process that ends now cannot be mistaken
            if there and not begun:
                raise FileExistsError(f"output_dir must not hold {there[0]} yet, got {self.output_dir}.")
            try:
                self._find_cells()
            except FileNotFoundError:
                if not self._is_finished():
                    raise
                logger.info("%s was finished by another process", cells)
            except OSError as error:
                if error.errno == errno.ENOSPC and error.filename is None:  # of a write, which names no file
                    raise OSError(error.errno, error.strerror, str(self.part)) from None
                raise
        else:
            logger.info("%s was finished before, by a run of these settings", cells)
        self._remove_intermediate()
        return cells

    def _find_cells(self) -> None:
        """Work until the result stands under its name; FileNotFoundError if other processes were faster."""
        self.part.mkdir(parents=True, exist_ok=True)
        if self._once("run", lambda: self.fingerprint) != self.fingerprint:
            raise ValueError(
                f"settings must be those of the run that was begun, got others: delete {self.part} to start anew."
            )
        ranges = self._once("intensity_range", self._intensity_range)
        logger.info("values that become 0 and 1, for each channel: %s", ranges)
        marks = open_ome_zarr(self.part / "marks.zarr", self.image.shape, np.uint8, chunk=self.settings.chunk)
        classes = self._score(
            BlockScorer(
                self.image,
                self.network,
                ranges,
                cell_diameter=self.settings.cell_diameter,
                roi_size=self.settings.roi_size,
            ),
            marks,
        )
        count = self.work.find(marks, self._output(self.cells, np.uint32), ridges=classes == 2)
        if self.tiff in self.outputs:
            self._once("tiff", lambda: export_tiff(self.part / self.cells, self.part / self.tiff).name)
        self._once("published", self._publish)
        logger.info("%d cells in %s", count, self.output_dir / self.cells)

    def _once(self, name: str, work: Callable[[], Any]) -> Any:
        return finish_json(self.part / f"{name}.json", work, self.claim_seconds)

    def _publish(self) -> list[str]:
        """Give the results their names, that of the instances last: it says that all is done."""
        for output in reversed(self.outputs):
            if not (self.output_dir / output).exists():
                for rest in (self.part / output).rglob("*.partial"):  # of a chunk's write that was killed
                    rest.unlink()
                os.rename(self.part / output, self.output_dir / output)
        return self.outputs

    def _is_finished(self) -> bool:
        return made_by(self.output_dir / self.cells) == self._digest()

    def _digest(self) -> str:
        return hashlib.sha256(json.dumps(self.fingerprint, sort_keys=True).encode()).hexdigest()

    def _remove_intermediate(self) -> None:
        """Remove `part`, renamed first: no other process may take a half-removed run for one begun."""
        rest = self.output_dir / f".finished-{self.name}"
        shutil.rmtree(rest, ignore_errors=True)  # of a removal that was killed
        with suppress(FileNotFoundError):
            os.rename(self.part, rest)
        shutil.rmtree(rest, ignore_errors=True)  # others may be removing it too

    def _output(self, name: str, dtype: Any) -> BlockArray:
        return open_ome_zarr(
            self.part / name,
            self.image.shape,
            dtype,
            chunk=self.settings.chunk,
            grid=self.image.grid,
            is_label=name == self.cells,
            run=self._digest(),
        )

    def _score(self, scorer: BlockScorer, marks: BlockArray) -> int:
        """Score and mark all blocks; returns the number of classes."""
        scores_file = self._output(self.scores, np.uint8) if self.scores in self.outputs else None

        def score(block: Block) -> Table:
            probability = special.softmax(scorer(block).float().numpy(), axis=0)
            selected = self.selection.pixels(block)
            marks.write(block, np.where(selected, marks_of(probability, self.find_instances), 0))
            if scores_file is not None:
                scores_file.write(block, np.where(selected, np.rint(255 * (1 - probability[0])), 0).astype(np.uint8))
            return {"classes": np.array(len(probability))}

        tables = finish_blocks(self.part / "scores", self.blocks, score, self.claim_seconds)
        return int(next(iter(tables.values()))["classes"])

    def _intensity_range(self) -> list[list[float]]:
        return [
            intensity_range(partial(self._selected_values, channel), self.image.path)
            for channel in range(self.network.in_channels)
        ]

    def _selected_values(self, channel: int) -> Iterator[np.ndarray]:
        for block in self.blocks.values():
            yield self.image.read(block.slices)[channel][self.selection.pixels(block)]

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What a run that continues or joins another must share with it."""
        digest = hashlib.sha256()
        for name, weight in self.network.state_dict().items():
            digest.update(name.encode() + weight.cpu().contiguous().numpy().tobytes())
        knobs = {name: getattr(self.find_instances, name) for name in ("threshold", "edge_threshold", "min_size")}
        image = Path(self.image.path).resolve()
        shared = {
            "image": [str(image), list(self.image.shape), str(self.image.dtype), *_state_of_files(image)],
            "weights": digest.hexdigest(),
            **knobs,
            "ridge_radius": self.find_instances.ridge_radius,
            "settings": {name: value for name, value in asdict(self.settings).items() if name != "roi"},
            "roi": [[int(a), int(b)] for a, b in self.selection.roi],
            "outputs": self.outputs,
        }
        return dict(json.loads(json.dumps(shared)))  # as it is read again, where tuples are lists


def _state_of_files(path: Path) -> list[int]:
    """Return the number, the bytes and the newest date of the files, and folders, of an image: a change shows there."""
    states = [each.stat() for each in ([path] if path.is_file() else path.rglob("*"))]
    return [len(states), sum(state.st_size for state in states), max(state.st_mtime_ns for state in states)]


def _check_fit(image: LazyImage, network: ValidUNet, settings: BlockSettings) -> None:
    """Raise ValueError for what else would fail in the midst of a run."""
    if len(image.shape) != len(network.border):
        raise ValueError(f"image must have the network's {len(network.border)} axes, got shape {image.shape}.")
    if image.in_channels != network.in_channels:
        raise ValueError(f"in_channels must be the network's {network.in_channels}, got {image.in_channels}.")
    if network.output_conv.out_channels not in (2, 3):
        raise ValueError(f"network must have 2 or 3 classes, got {network.output_conv.out_channels}.")
    if settings.chunk < 1:
        raise ValueError(f"chunk must be at least 1 px, got {settings.chunk}.")
    roi_size, axes = settings.roi_size, len(image.shape)
    if isinstance(roi_size, Sequence) and len(roi_size) != axes:
        raise ValueError(f"roi_size must be one side, or one for each of {axes} axes, got {roi_size}.")
    tile_inferer(network, roi_size).tile_output_size(image.shape)


def _read_mask(path: str, spatial_dims: int) -> np.ndarray:
    reader = CellImageReader(spatial_dims)
    return reader.get_data(reader.read(path))[0][0] > 0
