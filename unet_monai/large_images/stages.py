"""Work on blocks that survives a kill: what a block is finished with stands on disk, what is not is done again.

Any number of processes may do the same work in the same folder at the same time. Each takes a block that no other has,
see `claims`, and all go on when the last one is finished.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from unet_monai.large_images.block_grid import Block
from unet_monai.large_images.claims import CLAIM_SECONDS, take_claim
from unet_monai.large_images.components import Position, Table

logger = logging.getLogger(__name__)

PAUSES = (0.05, 5.0)
"""First and longest pause between two looks at what other processes do, seconds."""


class StoredTable(Mapping[str, np.ndarray]):
    """The arrays of an ``.npz`` file, each read when it is asked for.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __getitem__(self, key: str) -> np.ndarray:
        with np.load(self.path) as arrays:
            return arrays[key]

    def __iter__(self) -> Iterator[str]:
        with np.load(self.path) as arrays:
            return iter(arrays.files)

    def __len__(self) -> int:
        return len(list(iter(self)))


def block_name(position: Position) -> str:
    """Name a block by its position in the grid.

    Example:
        >>> block_name((3, 12))
        '3-12'
    """
    return "-".join(map(str, position))


def finish_blocks(
    folder: Path, blocks: Mapping[Position, Block], work: Callable[[Block], Table], claim_seconds: float = CLAIM_SECONDS
) -> dict[Position, StoredTable]:
    """Have the work done on every block, by this process or others, and each recorded with the table that it returns.

    A table appears under its name when it is complete. Work that was cut off is done again from the start, so it must
    write the same however often it is done.

    Args:
        folder: where the records of this stage of the work lie; the folder above it must exist.
        blocks: the blocks by their position.
        work: called with a block.
        claim_seconds: see `take_claim`.

    Returns:
        The tables of all blocks.

    Raises:
        FileNotFoundError: when the folder vanishes, because others have finished all.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     tables = finish_blocks(Path(name) / "a", {(0,): Block((0,), (5,))}, lambda block: {"stop": block.stop})
        ...     tables[0,]["stop"].tolist()
        [5]
    """
    folder.mkdir(exist_ok=True)
    files = {position: folder / f"{block_name(position)}.npz" for position in blocks}
    _finish({files[p]: partial(_write_table, partial(work, block)) for p, block in blocks.items()}, claim_seconds)
    return {position: StoredTable(file) for position, file in files.items()}


def finish_table(file: Path, work: Callable[[], Table], claim_seconds: float = CLAIM_SECONDS) -> StoredTable:
    """Return the table that `work` returned, once, in this process or another: an ``.npz`` file."""
    _finish({file: partial(_write_table, work)}, claim_seconds)
    return StoredTable(file)


def finish_json(file: Path, work: Callable[[], Any], claim_seconds: float = CLAIM_SECONDS) -> Any:
    """Return what `work` returned, once, in this process or another, kept in a JSON file."""
    _finish({file: lambda draft: draft.write_text(json.dumps(work()), encoding="utf-8")}, claim_seconds)
    return json.loads(file.read_text(encoding="utf-8"))


def _write_table(work: Callable[[], Table], draft: Path) -> None:
    arrays = work()
    with draft.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]  # keys are names, none is allow_pickle


def _finish(records: Mapping[Path, Callable[[Path], Any]], claim_seconds: float) -> None:
    """Write all records, or wait for those that others write."""
    missing, pause = dict(records), PAUSES[0]
    stage = next(iter(records)).parent.name if len(records) > 1 else next(iter(records)).stem
    with tqdm(total=len(records), desc=stage, unit="block", disable=len(records) == 1) as progress:
        while missing:
            finished = [file for file, write in missing.items() if _finish_one(file, write, claim_seconds, progress)]
            for file in finished:
                del missing[file]
            if missing and not finished:
                if pause == PAUSES[0]:
                    logger.info("%s: other processes are at the last %d, waiting for them", stage, len(missing))
                time.sleep(pause)
                pause = min(2 * pause, PAUSES[1])


def _finish_one(file: Path, write: Callable[[Path], Any], claim_seconds: float, progress: tqdm[Any]) -> bool:
    """Tell whether a record stands; it is written now if it was missing and nobody was at it."""
    if not file.is_file():
        claim = take_claim(file, claim_seconds)
        if claim is None:
            return False
        with claim:
            if not file.is_file():  # it was finished between the first look and the claim, by one that is gone now
                write(claim.draft)
                os.replace(claim.draft, file)
    progress.update()
    return True
