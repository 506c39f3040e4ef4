"""Work on blocks that survives a kill: what a block is finished with stands on disk, what is not is done again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from unet_monai.large_images.block_grid import Block
from unet_monai.large_images.components import Position, Table


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


def finish_blocks(
    folder: Path, blocks: Mapping[Position, Block], work: Callable[[Block], Table]
) -> dict[Position, StoredTable]:
    """Do the work on every block that has none finished yet, and record each with the table that it returns.

    A table appears under its name when it is complete. Work that was cut off is done again from the start, so it must
    write the same however often it is done.

    Args:
        folder: where the records of this stage of the work lie.
        blocks: the blocks by their position.
        work: called with a block.

    Returns:
        The tables of all blocks.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     tables = finish_blocks(Path(name), {(0,): Block((0,), (5,))}, lambda block: {"stop": block.stop})
        ...     tables[0,]["stop"].tolist()
        [5]
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = {}
    for position, block in tqdm(blocks.items(), desc=folder.name, unit="block"):
        file = folder / ("-".join(map(str, position)) + ".npz")
        if not file.is_file():
            part = file.with_suffix(".part")
            with part.open("wb") as stream:
                np.savez(stream, **work(block))  # type: ignore[arg-type]  # keys are names, none is allow_pickle
            os.replace(part, file)
        tables[position] = StoredTable(file)
    return tables


def finish_json(file: Path, work: Callable[[], Any]) -> Any:
    """Return what `work` returned before, kept in a JSON file, or call it now and keep it."""
    if not file.is_file():
        part = file.with_suffix(".part")
        part.write_text(json.dumps(work()), encoding="utf-8")
        os.replace(part, file)
    return json.loads(file.read_text(encoding="utf-8"))
