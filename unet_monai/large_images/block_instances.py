"""From scores to instances block by block: `logits_to_instances` for images larger than memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy import ndimage

from unet_monai.large_images.block_grid import Block
from unet_monai.large_images.components import (
    Position,
    Table,
    contacts,
    hole_owners,
    instance_numbers,
    label_gaps,
    merge_pieces,
    painted,
    piece_table,
)
from unet_monai.large_images.ome_zarr import BlockArray, open_ome_zarr
from unet_monai.large_images.stages import finish_blocks
from unet_monai.transforms import LogitsToInstances
from unet_monai.transforms.instances import grow_cores, regrow_ridges

CORE, FOREGROUND = 1, 2
"""Bits of a mark: the pixel is core, and cores may grow into it."""


def marks_of(probability: np.ndarray, knobs: LogitsToInstances) -> np.ndarray:
    """Mark core and foreground, all that instances depend on.

    Args:
        probability: softmax of the scores, (2 or 3, *S).
        knobs: its thresholds count.

    Returns:
        uint8 (*S), `CORE` + `FOREGROUND`.

    Example:
        >>> marks_of(np.array([[0.9, 0.5, 0.1], [0.1, 0.5, 0.9]]), LogitsToInstances()).tolist()
        [0, 2, 3]
    """
    core, foreground = probability[1] > knobs.threshold, probability[0] < 1 - knobs.edge_threshold
    return (core * CORE + foreground * FOREGROUND).astype(np.uint8)


class BlockInstances:
    """Find instances in marks on disk, stage after stage over all blocks; a killed run continues where it was.

    The result, with the ids, is that of `logits_to_instances` on the whole image, if no pixel of the foreground lies
    more than `reach` steps from the core that it grows from. Farther pixels stay background, wherever blocks begin.
    All else is exact without a limit, however many blocks a cell or a hole spans: cores and gaps are merged by
    tables (`components`), not looked for in a window. A block that is left out counts as the outside of the image: a
    hole beside it is open.

    Args:
        folder: for intermediate arrays and the records of finished blocks.
        image_size: (X, Y[, Z]).
        blocks: the blocks by their position.
        knobs: the transform whose settings count.
        reach: most steps that cores grow, > 0; also the pixels read around each block.
        chunk: side of the chunks of intermediate arrays.
        ridges: whether ridges grow back, as they do for two classes.

    Raises:
        ValueError: if `reach` is not positive, or the knobs leave holes unfilled.
    """

    def __init__(
        self,
        folder: Path,
        image_size: tuple[int, ...],
        blocks: Mapping[Position, Block],
        knobs: LogitsToInstances,
        *,
        reach: int,
        chunk: int,
        ridges: bool,
    ) -> None:
        if reach < 1:
            raise ValueError(f"reach must be at least 1 px, got {reach}.")
        if not knobs.fill_holes:
            raise ValueError("fill_holes must be True for images larger than memory, got False.")
        self.folder, self.image_size, self.blocks, self.knobs = folder, image_size, blocks, knobs
        self.positions = {block: position for position, block in blocks.items()}
        self.reach, self.chunk, self.ridges = reach, chunk, ridges

    def find(self, marks: BlockArray, instances: BlockArray) -> int:
        """Write the instances of all blocks, uint32.

        Args:
            marks: see `marks_of`, of the image's size.
            instances: to write to, of the image's size.

        Returns:
            The number of instances.
        """
        cores, grown = self._array("cores"), self._array("grown")
        filled = self._array("filled") if self.ridges else instances
        count = self._find_cores(marks, cores)

        def grow(block: Block) -> Table:
            window = block.widened(self.reach, self.reach, self.image_size)
            foreground = (marks.read(window) & FOREGROUND) > 0
            grown.write(block, grow_cores(cores.read(window), foreground, self.reach)[block.within(window)])
            return {}

        finish_blocks(self.folder / "grow", self.blocks, grow)
        self._fill(grown, filled)
        if self.ridges:
            self._regrow(filled, instances)
        return count

    def _array(self, name: str) -> BlockArray:
        return open_ome_zarr(self.folder / f"{name}.zarr", self.image_size, np.uint32, chunk=self.chunk)

    def _shared(self, block: Block) -> Block:
        """The window that a block is labelled in: see `components`."""
        return block.widened(0, 1, self.image_size)

    def _find_cores(self, marks: BlockArray, cores: BlockArray) -> int:
        def label(block: Block) -> tuple[np.ndarray, np.ndarray]:
            components, _ = ndimage.label(marks.read(self._shared(block)) & CORE)
            return components, label_gaps(components)

        def describe(block: Block) -> Table:
            components, gaps = label(block)
            window = self._shared(block)
            return {
                **piece_table("core", components, block, window, self.image_size),
                **piece_table("gap", gaps, block, window, self.image_size),
                "contacts": contacts(gaps, components),
            }

        tables = finish_blocks(self.folder / "cores", self.blocks, describe)
        whole_cores, whole_gaps = merge_pieces("core", tables), merge_pieces("gap", tables)
        of_core, of_gap = instance_numbers(whole_cores, whole_gaps, tables, self.knobs.min_size)

        def paint(block: Block) -> Table:
            components, gaps = label(block)
            position = self.positions[block]
            numbered = painted(whole_cores, position, components, of_core)
            numbered += painted(whole_gaps, position, gaps, of_gap)
            cores.write(block, numbered[block.within(self._shared(block))])
            return {}

        finish_blocks(self.folder / "paint", self.blocks, paint)
        return int(of_core.max(initial=0))

    def _fill(self, grown: BlockArray, filled: BlockArray) -> None:
        def describe(block: Block) -> Table:
            window = self._shared(block)
            cells = grown.read(window)
            gaps = label_gaps(cells)
            return {
                **piece_table("gap", gaps, block, window, self.image_size),
                "contacts": contacts(gaps, cells),
            }

        tables = finish_blocks(self.folder / "holes", self.blocks, describe)
        gaps = merge_pieces("gap", tables)
        owners = hole_owners(gaps, tables, {position: table["contacts"] for position, table in tables.items()})

        def fill(block: Block) -> Table:
            window = self._shared(block)
            cells = grown.read(window)
            cells = cells + painted(gaps, self.positions[block], label_gaps(cells), owners)
            filled.write(block, cells[block.within(window)])
            return {}

        finish_blocks(self.folder / "fill", self.blocks, fill)

    def _regrow(self, filled: BlockArray, instances: BlockArray) -> None:
        radius = self.knobs.ridge_radius
        halo = 2 * radius + 1  # growth and what it meets, or dilation and erosion: twice the radius each

        def regrow(block: Block) -> Table:
            window = block.widened(halo, halo, self.image_size)
            instances.write(block, regrow_ridges(filled.read(window), radius)[block.within(window)])
            return {}

        finish_blocks(self.folder / "ridges", self.blocks, regrow)
