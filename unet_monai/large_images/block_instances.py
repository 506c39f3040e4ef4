"""From scores to instances block by block: `logits_to_instances` for images larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from scipy import ndimage
from unet_monai.large_images.block_grid import Block
from unet_monai.large_images.claims import CLAIM_SECONDS
from unet_monai.large_images.components import (
    Pieces,
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
from unet_monai.large_images.stages import StoredTable, block_name, finish_blocks, finish_table
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

    Processes that do the same in the same folder share the blocks of each stage; one of them merges the tables.

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
        claim_seconds: see `take_claim`.

    Raises:
        ValueError: if `reach` is not positive, or the knobs leave holes unfilled or part cells at necks.
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
        claim_seconds: float = CLAIM_SECONDS,
    ) -> None:
        if reach < 1:
            raise ValueError(f"reach must be at least 1 px, got {reach}.")
        if not knobs.fill_holes:
            raise ValueError("fill_holes must be True for images larger than memory, got False.")
        if knobs.neck_depth > 0:
            raise ValueError(f"neck_depth must be 0 for images larger than memory, got {knobs.neck_depth}.")
        self.folder, self.image_size, self.blocks, self.knobs = folder, image_size, blocks, knobs
        self.positions = {block: position for position, block in blocks.items()}
        self.reach, self.chunk = reach, chunk
        self.claim_seconds = claim_seconds

    def find(self, marks: BlockArray, instances: BlockArray, *, ridges: bool) -> int:
        """Write the instances of all blocks, uint32.

        Args:
            marks: see `marks_of`, of the image's size.
            instances: to write to, of the image's size.
            ridges: whether ridges grow back, as they do for two classes.

        Returns:
            The number of instances.
        """
        cores, grown = self._array("cores"), self._array("grown")
        filled = self._array("filled") if ridges else instances
        count = self._find_cores(marks, cores)

        def grow(block: Block) -> Table:
            window = block.widened(self.reach, self.reach, self.image_size)
            foreground = (marks.read(window) & FOREGROUND) > 0
            grown.write(block, grow_cores(cores.read(window), foreground, self.reach)[block.within(window)])
            return {}

        self._finish("grow", grow)
        self._fill(grown, filled)
        if ridges:
            self._regrow(filled, instances)
        return count

    def _finish(self, stage: str, work: Callable[[Block], Table]) -> dict[Position, StoredTable]:
        return finish_blocks(self.folder / stage, self.blocks, work, self.claim_seconds)

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

        tables = self._finish("cores", describe)

        def merge() -> Table:
            cores_of_all, gaps_of_all = merge_pieces("core", tables), merge_pieces("gap", tables)
            of_core, of_gap = instance_numbers(cores_of_all, gaps_of_all, tables, self.knobs.min_size)
            return {
                **_by_name("core", cores_of_all, of_core),
                **_by_name("gap", gaps_of_all, of_gap),
                "count": of_core.max(initial=0),
            }

        numbers = finish_table(self.folder / "core_numbers.npz", merge, self.claim_seconds)

        def paint(block: Block) -> Table:
            components, gaps = label(block)
            name = block_name(self.positions[block])
            numbered = painted(components, numbers[f"core {name}"]) + painted(gaps, numbers[f"gap {name}"])
            cores.write(block, numbered[block.within(self._shared(block))])
            return {}

        self._finish("paint", paint)
        return int(numbers["count"])

    def _fill(self, grown: BlockArray, filled: BlockArray) -> None:
        def describe(block: Block) -> Table:
            window = self._shared(block)
            cells = grown.read(window)
            gaps = label_gaps(cells)
            return {**piece_table("gap", gaps, block, window, self.image_size), "contacts": contacts(gaps, cells)}

        tables = self._finish("holes", describe)

        def merge() -> Table:
            gaps = merge_pieces("gap", tables)
            touching = {position: table["contacts"] for position, table in tables.items()}
            return _by_name("gap", gaps, hole_owners(gaps, tables, touching))

        owners = finish_table(self.folder / "hole_owners.npz", merge, self.claim_seconds)

        def fill(block: Block) -> Table:
            window = self._shared(block)
            cells = grown.read(window)
            cells = cells + painted(label_gaps(cells), owners[f"gap {block_name(self.positions[block])}"])
            filled.write(block, cells[block.within(window)])
            return {}

        self._finish("fill", fill)

    def _regrow(self, filled: BlockArray, instances: BlockArray) -> None:
        radius = self.knobs.ridge_radius
        halo = 2 * radius + 1  # growth and what it meets, or dilation and erosion: twice the radius each

        def regrow(block: Block) -> Table:
            window = block.widened(halo, halo, self.image_size)
            instances.write(block, regrow_ridges(filled.read(window), radius)[block.within(window)])
            return {}

        self._finish("ridges", regrow)


def _by_name(kind: str, pieces: Pieces, numbers: np.ndarray) -> Table:
    return {f"{kind} {block_name(position)}": own for position, own in pieces.by_block(numbers).items()}
