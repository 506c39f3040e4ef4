"""How often background and cells occur in the training labels, and the weights that make up for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from unet_monai.data.image_io import LabelReader


def balanced_class_weights(
    data: Sequence[Mapping[str, str]],
    *,
    ignore_label: int | None = None,
    border_label: int | None = None,
    spatial_dims: int = 2,
) -> tuple[float, float]:
    """Compute w_c of https://arxiv.org/abs/1505.04597, equation 2, once over all training labels.

    A class that fills the share f of the annotated pixels gets 1 / (2 f): both classes then carry the same total
    weight, and the mean weight is 1.

    Args:
        data: training list; ``label`` of each item is read.
        ignore_label: label value of pixels that nobody annotated, which do not count.
        border_label: in label maps of classes, the value of the pixels where cells touch; see `LabelReader`.
        spatial_dims: 2 or 3.

    Returns:
        The weights of background and cell.

    Raises:
        ValueError: when a class does not occur at all.
    """
    reader = LabelReader(spatial_dims=spatial_dims, ignore_label=ignore_label, border_label=border_label)
    counts = np.zeros(2, dtype=np.int64)
    for item in data:
        label = reader.get_data(reader.read(item["label"]))[0]
        counts += [np.count_nonzero(label == 0), np.count_nonzero(label > 0)]
    if not counts.all():
        raise ValueError(f"data must hold pixels of background and of cells, got {counts[0]} and {counts[1]}.")
    background, cell = counts.sum() / (2 * counts)
    return float(background), float(cell)
