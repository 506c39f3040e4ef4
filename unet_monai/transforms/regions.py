"""From the scores of the network to regions that fill the image, such as the neurites between stained membranes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_data_type, convert_to_dst_type
from scipy import ndimage, special
from skimage.graph import RAG, merge_hierarchical, rag_boundary
from skimage.segmentation import watershed


def join_at_weak_borders(regions: np.ndarray, border: np.ndarray, threshold: float) -> np.ndarray:
    """Join neighbouring regions whose common border is weak: the weakest first, until none is below ``threshold``.

    The strength of a border is the mean probability of the pixels along all of it, on both sides. So a gap in a long
    membrane joins nothing, and a little doubt inside a cell parts nothing. Membranes must be two pixels wide. The
    border of a joined region with a third one is that of both its parts. These are the mean boundary strengths of
    Arbelaez et al. 2011 (https://doi.org/10.1109/TPAMI.2010.161), by scikit-image's region adjacency graph.

    Args:
        regions: integer array (*S), regions 1, 2, ... that fill it.
        border: probability of a border, float (*S), in [0, 1].
        threshold: mean probability below which a common border is none; 0 joins nothing.

    Returns:
        int32 array (*S), regions 1, 2, ... in the order of the lowest number in each.

    Example:
        >>> join_at_weak_borders(np.array([[1, 1, 2, 2, 3, 3]]), np.array([[0, 0.2, 0.2, 0.9, 0.9, 0]]), threshold=0.5)
        array([[1, 1, 1, 1, 2, 2]], dtype=int32)
    """
    if regions.min() == regions.max():
        return np.ones(regions.shape, np.int32)
    joined = merge_hierarchical(
        regions,
        rag_boundary(regions, border),
        thresh=threshold,
        rag_copy=False,
        in_place_merge=True,
        merge_func=_keep_nodes,
        weight_func=_common_border,
    )
    lowest = np.full(joined.max() + 1, regions.max())
    np.minimum.at(lowest, joined.ravel(), regions.ravel())
    return (1 + np.unique(lowest[joined], return_inverse=True)[1].reshape(regions.shape)).astype(np.int32)


def _keep_nodes(graph: RAG, source: int, target: int) -> None:
    """Change nothing in the nodes: all that counts stands at the edges."""


def _common_border(graph: RAG, source: int, target: int, neighbour: int) -> dict[str, Any]:
    """Measure the border of `neighbour` with two regions that are being joined: its length, and its mean strength."""
    none = {"count": 0, "weight": 0.0}
    parts = [graph[region].get(neighbour, none) for region in (source, target)]
    count = sum(part["count"] for part in parts)
    return {"count": count, "weight": sum(part["count"] * part["weight"] for part in parts) / count}


def logits_to_regions(logits: np.ndarray, *, threshold: float = 0.9, join_threshold: float = 0.5) -> np.ndarray:
    """Turn the scores of a network into regions that meet at the crests of the borders between them.

    The probability of a border is that of any class but 1, cell. The 4-connected components (6 in 3-D) of the core,
    p_1 > `threshold`, are the seeds of a watershed of it (Meyer 1994, by scikit-image), which fills the image;
    regions with a weak border between them are joined (`join_at_weak_borders`).

    Args:
        logits: scores before the softmax, float array (C, *S), C >= 2.
        threshold: probability of class 1 above which a pixel is core, in (0, 1).
        join_threshold: mean probability below which a border between two regions is none, in [0, 1].

    Returns:
        int32 array (*S), regions 1, 2, ... in the order of their cores' first pixels with X, the first axis, running
        fastest; all 0 without a core.

    Raises:
        ValueError: if `logits` has fewer than two channels, or a knob is out of its range.

    Example:
        >>> cell, membrane = [0, 9], [9, 0]
        >>> logits_to_regions(np.array([cell, cell, membrane, cell, cell]).T[:, None])
        array([[1, 1, 2, 2, 2]], dtype=int32)
    """
    _check_knobs(threshold, join_threshold)
    if logits.ndim < 2 or logits.shape[0] < 2:
        raise ValueError(f"logits must have two or more channels, (C, *S), got shape {tuple(logits.shape)}.")
    cell = special.softmax(logits, axis=0)[1]
    cores = ndimage.label((cell > threshold).T)[0].T
    if not cores.any():
        return cores
    return join_at_weak_borders(watershed(1 - cell, cores), 1 - cell, join_threshold)


def _check_knobs(threshold: float, join_threshold: float) -> None:
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must lie between 0 and 1, got {threshold}.")
    if not 0 <= join_threshold <= 1:
        raise ValueError(f"join_threshold must lie in [0, 1], got {join_threshold}.")


class LogitsToRegions(Transform):
    """Turn the scores of a network into regions that fill the image; see `logits_to_regions` for the steps.

    Args:
        threshold: probability of class 1 above which a pixel is core, in (0, 1).
        join_threshold: mean probability below which a border between two regions is none, in [0, 1].

    Raises:
        ValueError: if a knob is out of its range.

    Example:
        >>> LogitsToRegions()(np.array([[[0, 0, 9, 0, 0]], [[9, 9, 0, 9, 9]]]))
        array([[[1, 1, 2, 2, 2]]], dtype=int32)
    """

    backend = [TransformBackends.NUMPY]  # noqa: RUF012 (MONAI's attribute)

    def __init__(self, *, threshold: float = 0.9, join_threshold: float = 0.5) -> None:
        _check_knobs(threshold, join_threshold)
        self.threshold = threshold
        self.join_threshold = join_threshold

    def __call__(self, logits: NdarrayOrTensor) -> NdarrayOrTensor:
        """Find the regions.

        Args:
            logits: scores before the softmax, float (C, *S), C >= 2, array or tensor.

        Returns:
            int32 (1, *S) of the same kind, on the same device, with the same metadata.

        Raises:
            ValueError: if `logits` has fewer than two channels.
        """
        # By way of torch: numpy has no bfloat16.
        scores = convert_data_type(logits, torch.Tensor, device=torch.device("cpu"), dtype=torch.float32)[0]
        regions = logits_to_regions(
            scores.detach().numpy(), threshold=self.threshold, join_threshold=self.join_threshold
        )
        return convert_to_dst_type(regions[None], logits, dtype=np.int32)[0]


class LogitsToRegionsd(MapTransform):
    """Dictionary form of `LogitsToRegions`.

    Args:
        keys: keys of the scores; each is replaced by its regions.
        threshold: probability of class 1 above which a pixel is core, in (0, 1).
        join_threshold: mean probability below which a border between two regions is none, in [0, 1].
        allow_missing_keys: do not raise if a key is missing.
    """

    backend = LogitsToRegions.backend

    def __init__(
        self,
        keys: KeysCollection,
        *,
        threshold: float = 0.9,
        join_threshold: float = 0.5,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = LogitsToRegions(threshold=threshold, join_threshold=join_threshold)

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Return a copy of `data` with the scores named by `keys` turned into regions."""
        return {**data, **{key: self.transform(data[key]) for key in self.key_iterator(data)}}
