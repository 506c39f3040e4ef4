"""Training and validation on files larger than memory are parted by blocks: one file may be all that there is."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from skimage.segmentation import clear_border
from unet_monai.data.cell_size import cell_sizes, median_diameter
from unet_monai.large_images.lazy_pairs import BLOCK_SIDE, Item, PairReader, find_lazy_pairs, numbered_block

logger = logging.getLogger(__name__)


def split_labelled_blocks(
    dataset_dir: str | Path,
    reader: PairReader,
    *,
    validation: float = 0.2,
    max_windows: int = 16,
    training_images: int | None = None,
    label_source: str | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """List the pairs of a folder, and hold blocks with cells out of training, spread evenly over all of them.

    Training ignores the labels of these blocks, 512 px wide (64 in 3-D), wherever its tiles reach into them.

    Args:
        dataset_dir: folder with `images/` and `labels/`, see `find_lazy_pairs`.
        reader: scans the pairs.
        validation: share of the blocks with cells that validates, at least one block and not all of them unless it is
            0, for no validation.
        max_windows: most blocks that validate, because they are kept in memory.
        training_images: None; all train.
        label_source: None; there is one kind of labels.

    Returns:
        "training": items `{"image", "label", "held_out": numbers of blocks}` of `PairReader`, one for each file;
        "validation": items `{"image", "label", "block": number}`, one for each block.

    Raises:
        FileNotFoundError: as `find_lazy_pairs`.
        ValueError: as `find_lazy_pairs` and `PairReader.scan`, for an argument outside of the above, and if there is
            just one block with cells, and it is to validate.
    """
    if isinstance(validation, bool) or not isinstance(validation, int | float) or not 0 <= validation < 1:
        raise ValueError(f"validation must be a share of the blocks, at least 0 and below 1, got {validation!r}.")
    if max_windows < 1:
        raise ValueError(f"max_windows must be at least 1, got {max_windows}: set validation to 0 for none.")
    for name, value in (("training_images", training_images), ("label_source", label_source)):
        if value is not None:
            raise ValueError(f"{name} must be None for files that are read by windows, got {value!r}.")
    pairs = find_lazy_pairs(dataset_dir)
    with_cells = [(i, int(n)) for i, pair in enumerate(pairs) for n, cells, _ in reader.places(pair).T if cells]
    if validation and len(with_cells) == 1:
        raise ValueError(
            f"labels must fill two blocks of {BLOCK_SIDE[reader.spatial_dims]} px for one to validate, got one in "
            f"{dataset_dir}: set validation to 0, for none."
        )
    count = min(max(round(validation * len(with_cells)), 1), max_windows, len(with_cells) - 1) if validation else 0
    chosen = _spread(with_cells, count)
    training = [pair | {"held_out": [n for j, n in chosen if j == i]} for i, pair in enumerate(pairs)]
    logger.info("%s: %d files, %d blocks with cells, %d validate.", dataset_dir, len(pairs), len(with_cells), count)
    return {
        "training": [item for item in training if reader.places(item)[1].any()],
        "validation": [pairs[i] | {"block": n} for i, n in chosen],
    }


def lazy_cell_diameter(data: Sequence[Item], reader: PairReader, max_blocks: int = 64) -> float:
    """Measure the median diameter of the cells in some of the training labels, spread evenly over each file.

    Cells that a block's edge cuts are left out.

    Args:
        data: training items, see `split_labelled_blocks`.
        reader: reads them.
        max_blocks: most blocks to read of each file.

    Returns:
        The diameter in pixels, as `median_cell_diameter` defines it; nan without any whole cell.
    """
    sizes: list[int] = []
    for item in data:
        numbers, cells, _ = reader.places(item)
        extent = reader.open(item).extent
        with_cells = numbers[cells > 0].tolist()
        for number in _spread(with_cells, min(max_blocks, len(with_cells))):
            label = reader.read_label(item, numbered_block(extent, number))[0]
            sizes.extend(cell_sizes(clear_border(np.where(label > 0, label, 0))))
    return median_diameter(sizes, reader.spatial_dims)


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    """Take the middle one of each of `count` equal parts."""
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]
