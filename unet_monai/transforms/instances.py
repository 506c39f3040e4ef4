"""From the scores of the network to instances: the inverse of cutting ridges between touching cells."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_data_type, convert_to_dst_type
from scipy import ndimage, special
from unet_monai.transforms.necks import split_at_necks
from unet_monai.transforms.touching_ridge import box_extreme, nearby_ids, touching_ridge


def fill_component_holes(components: np.ndarray) -> np.ndarray:
    """Give every hole that lies inside one component to that component.

    A hole is a connected piece of background (8-connected in 2-D, 26 in 3-D) that does not reach the edge of the
    array. One that also encloses another component stays, so that nested components are never joined.

    Args:
        components: integer array (*S), 4-connected components (6 in 3-D), 0 background.

    Returns:
        A filled copy.

    Example:
        >>> fill_component_holes(np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 0]]))
        array([[1, 1, 1, 0],
               [1, 1, 1, 0],
               [1, 1, 1, 0]])
    """
    background = components == 0
    holes, count = ndimage.label(background, ndimage.generate_binary_structure(components.ndim, components.ndim))
    lowest_near, highest_near = nearby_ids(components, radius=1)
    rim = background & (highest_near > 0)
    lowest = np.full(count + 1, np.iinfo(components.dtype).max, components.dtype)
    highest = np.zeros(count + 1, components.dtype)
    np.minimum.at(lowest, holes[rim], lowest_near[rim])
    np.maximum.at(highest, holes[rim], highest_near[rim])
    owner = np.where(lowest == highest, highest, 0)
    for axis in range(components.ndim):
        owner[np.take(holes, (0, -1), axis)] = 0
    return np.where(background, owner[holes], components)


def remove_small_components(components: np.ndarray, min_size: int) -> np.ndarray:
    """Remove the components of fewer than `min_size` pixels and number the others 1, 2, ... in raster order.

    Raster order is that of the first pixels where X, the first axis, runs fastest: along the rows of a written picture,
    one row after the other.

    Args:
        components: integer array (*S), 0 background.
        min_size: least size that stays, pixels (voxels).

    Returns:
        int32 array (*S).

    Example:
        >>> remove_small_components(np.array([[0, 0, 1], [0, 0, 1], [2, 2, 0], [2, 0, 4]]), min_size=2)
        array([[0, 0, 2],
               [0, 0, 2],
               [1, 1, 0],
               [1, 0, 0]], dtype=int32)
    """
    pixels = components.ravel(order="F")
    sizes = np.bincount(pixels)
    backwards = np.flatnonzero(pixels)[::-1]
    first = np.zeros_like(sizes)
    first[pixels[backwards]] = backwards  # the last one written stays
    stays = 1 + np.flatnonzero(sizes[1:] >= max(min_size, 1))
    numbers = np.zeros(len(sizes), np.int32)
    numbers[stays[np.argsort(first[stays])]] = np.arange(1, len(stays) + 1)
    return numbers[components]


def grow_cores(cores: np.ndarray, within: np.ndarray, reach: int | None = None) -> np.ndarray:
    """Grow instances step by step into the pixels of `within` that are connected with them.

    Each pixel goes to the instance that reaches it in the fewest steps to 4-connected neighbours (6 in 3-D) inside
    `within`, of several such to the one of the lowest id; growth never jumps a gap. It is a watershed of a flat image
    with a rule for ties, so that what a pixel becomes depends on nothing farther away than its instance.

    Args:
        cores: integer array (*S), 0 background.
        within: bool array (*S), where they may grow.
        reach: most steps to grow, >= 0; None for as many as it takes.

    Returns:
        A grown copy.

    Example:
        >>> grow_cores(np.array([[0, 0, 1, 0, 0, 0, 2]]), np.array([[1, 0, 1, 1, 1, 1, 1]], bool))
        array([[0, 0, 1, 1, 1, 2, 2]])
    """
    padded = np.ascontiguousarray(np.pad(cores, 1))
    free = np.pad(within, 1) & (padded == 0)
    front = np.flatnonzero(ndimage.binary_dilation(free) & (padded > 0))
    padded[free] = np.iinfo(cores.dtype).max  # above every id until a step reaches it
    ids, unreached = padded.ravel(), free.ravel()
    offsets = [sign * stride // padded.itemsize for stride in padded.strides for sign in (-1, 1)]
    steps = 0
    while front.size and steps != reach:
        front_ids, fronts = ids[front], []
        for offset in offsets:
            into = unreached[front + offset]
            pixels = front[into] + offset
            ids[pixels] = np.minimum(ids[pixels], front_ids[into])
            fronts.append(pixels)
        for i, pixels in enumerate(fronts):  # a pixel may be reached from several sides: list it once
            fronts[i] = pixels[unreached[pixels]]
            unreached[pixels] = False
        front = np.concatenate(fronts)
        steps += 1
    ids[unreached] = 0
    return padded[(slice(1, -1),) * cores.ndim]


def regrow_ridges(cores: np.ndarray, radius: int = 1) -> np.ndarray:
    """Grow instances back into the ridges that `touching_ridge` had cut between them, and nowhere else.

    Every core is grown by up to `radius` px (Chebyshev; on a tie the lower id wins). A new pixel stays if it lies on
    the touching ridge of the grown map and in the morphological closing of the cores, that is between two of them:
    outlines towards the background do not move. A pixel of a cut map is never given to a wrong instance, for it is
    farther than `radius` from every core but its own. Only the corners where a slanted ridge meets the background are
    ambiguous, and may differ from the uncut map by `radius` px.

    Args:
        cores: integer array (*S), 0 background.
        radius: the radius the ridges were cut with, >= 0; 0 grows nothing.

    Returns:
        A grown copy.

    Example:
        >>> regrow_ridges(np.array([[1, 1, 0, 0, 2, 2, 0, 0, 0, 3]]))
        array([[1, 1, 1, 2, 2, 2, 0, 0, 0, 3]])
    """
    grown = cores
    for _ in range(radius):
        lowest, highest = nearby_ids(grown, radius=1)
        grown = np.where((grown == 0) & (highest > 0), lowest, grown)
    return np.where((cores > 0) | (_closing(cores > 0, radius) & touching_ridge(grown, radius)), grown, 0)


def _closing(mask: np.ndarray, radius: int) -> np.ndarray:
    # The padding lets the erosion see that the background goes on beyond the edge; dilated cells reach into it.
    padded = np.pad(mask, radius)
    closed = box_extreme(box_extreme(padded, radius, np.maximum), radius, np.minimum)
    return closed[tuple(slice(radius, radius + length) for length in mask.shape)]


def logits_to_instances(
    logits: np.ndarray,
    *,
    threshold: float = 0.7,
    edge_threshold: float = 0.3,
    min_size: int = 20,
    fill_holes: bool = True,
    ridge_radius: int = 2,
    neck_depth: float = 0,
) -> np.ndarray:
    """Turn the scores of a network into instances.

    The classes are background 0, cell 1 and, of a three-class network, touching 2 (`cell_classes`); p is their softmax.
    The 4-connected components (6 in 3-D) of the core, p_1 > `threshold`, are the instances, without the small ones.
    They grow over all the foreground that is connected with them, 1 - p_0 > `edge_threshold` (`grow_cores`): the core
    tells cells apart, the foreground outlines them. Where cells are known to be roundish, cores may be parted at their
    necks before (`split_at_necks`). Holes are filled (`fill_component_holes`). A two-class network has
    learnt the ridges between cells as background: there, they grow back by `ridge_radius` px (`regrow_ridges`).

    Args:
        logits: scores before the softmax, float array (2 or 3, *S).
        threshold: probability of class 1 above which a pixel is core, in (0, 1).
        edge_threshold: probability of any class but 0 above which cores grow, in (0, 1).
        min_size: least size of a core in pixels (voxels), holes filled; smaller ones are removed.
        fill_holes: fill the holes inside one component.
        ridge_radius: the radius of the `TouchingRidge` that a two-class network was trained with, >= 0.
        neck_depth: least depth in pixels of a neck that parts a core (`split_at_necks`); 0 parts none.

    Returns:
        int32 array (*S), 0 background, 1, 2, ... in raster order of their cores (`remove_small_components`).

    Raises:
        ValueError: if `logits` has not two or three channels, or a knob is out of its range.

    Example:
        >>> cell, gap, touching = [0, 9, 0], [9, 0, 0], [0, 0, 9]
        >>> scores = np.array([cell, cell, touching, touching, cell, gap, gap, cell]).T[:, None]
        >>> logits_to_instances(scores, min_size=1)
        array([[1, 1, 1, 2, 2, 0, 0, 3]], dtype=int32)
    """
    _check_knobs(threshold, edge_threshold, min_size, ridge_radius, neck_depth)
    if logits.ndim < 2 or logits.shape[0] not in (2, 3):
        raise ValueError(f"logits must have two or three channels, (2 or 3, *S), got shape {tuple(logits.shape)}.")
    probability = special.softmax(logits, axis=0)
    fill = fill_component_holes if fill_holes else np.asarray
    components, _ = ndimage.label(probability[1] > threshold)
    cores = fill(components)
    if neck_depth > 0:
        cores = split_at_necks(cores, neck_depth)
    cores = remove_small_components(cores, min_size)
    cells = fill(grow_cores(cores, probability[0] < 1 - edge_threshold))
    return regrow_ridges(cells, ridge_radius) if len(logits) == 2 else cells


def _check_knobs(threshold: float, edge_threshold: float, min_size: int, ridge_radius: int, neck_depth: float) -> None:
    for name, value in (("threshold", threshold), ("edge_threshold", edge_threshold)):
        if not 0 < value < 1:
            raise ValueError(f"{name} must lie between 0 and 1, got {value}.")
    for name, size in (("min_size", min_size), ("ridge_radius", ridge_radius), ("neck_depth", neck_depth)):
        if size < 0:
            raise ValueError(f"{name} must be at least 0, got {size}.")


class LogitsToInstances(Transform):
    """Turn the scores of a network into instances; see `logits_to_instances` for the steps.

    Args:
        threshold: probability of class 1 above which a pixel is core, in (0, 1).
        edge_threshold: probability of any class but 0 above which cores grow, in (0, 1).
        min_size: least size of a core in pixels (voxels); smaller ones are removed.
        fill_holes: fill the holes inside one component.
        ridge_radius: the radius of the `TouchingRidge` that a two-class network was trained with, >= 0.
        neck_depth: least depth in pixels of a neck that parts a core (`split_at_necks`); 0 parts none.

    Raises:
        ValueError: if a knob is out of its range.

    Example:
        >>> LogitsToInstances(min_size=1, ridge_radius=0)(np.array([[[0, 5, 5, 5, 0]], [[5, 0, 0, 0, 5]]]))
        array([[[1, 0, 0, 0, 2]]], dtype=int32)
    """

    backend = [TransformBackends.NUMPY]  # noqa: RUF012 (MONAI's attribute)

    def __init__(
        self,
        *,
        threshold: float = 0.7,
        edge_threshold: float = 0.3,
        min_size: int = 20,
        fill_holes: bool = True,
        ridge_radius: int = 2,
        neck_depth: float = 0,
    ) -> None:
        _check_knobs(threshold, edge_threshold, min_size, ridge_radius, neck_depth)
        self.threshold = threshold
        self.edge_threshold = edge_threshold
        self.min_size = min_size
        self.fill_holes = fill_holes
        self.ridge_radius = ridge_radius
        self.neck_depth = neck_depth

    def __call__(self, logits: NdarrayOrTensor) -> NdarrayOrTensor:
        """Find the instances.

        Args:
            logits: scores before the softmax, float (2 or 3, *S), array or tensor.

        Returns:
            int32 (1, *S) of the same kind, on the same device, with the same metadata.

        Raises:
            ValueError: if `logits` has not two or three channels.
        """
        # By way of torch: numpy has no bfloat16.
        scores = convert_data_type(logits, torch.Tensor, device=torch.device("cpu"), dtype=torch.float32)[0]
        instances = logits_to_instances(
            scores.detach().numpy(),
            threshold=self.threshold,
            edge_threshold=self.edge_threshold,
            min_size=self.min_size,
            fill_holes=self.fill_holes,
            ridge_radius=self.ridge_radius,
            neck_depth=self.neck_depth,
        )
        return convert_to_dst_type(instances[None], logits, dtype=np.int32)[0]


class LogitsToInstancesd(MapTransform):
    """Dictionary form of `LogitsToInstances`.

    Args:
        keys: keys of the scores; each is replaced by its instances.
        threshold: probability of class 1 above which a pixel is core, in (0, 1).
        edge_threshold: probability of any class but 0 above which cores grow, in (0, 1).
        min_size: least size of a core in pixels (voxels); smaller ones are removed.
        fill_holes: fill the holes inside one component.
        ridge_radius: the radius of the `TouchingRidge` that a two-class network was trained with, >= 0.
        neck_depth: least depth in pixels of a neck that parts a core (`split_at_necks`); 0 parts none.
        allow_missing_keys: do not raise if a key is missing.
    """

    backend = LogitsToInstances.backend

    def __init__(
        self,
        keys: KeysCollection,
        *,
        threshold: float = 0.7,
        edge_threshold: float = 0.3,
        min_size: int = 20,
        fill_holes: bool = True,
        ridge_radius: int = 2,
        neck_depth: float = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = LogitsToInstances(
            threshold=threshold,
            edge_threshold=edge_threshold,
            min_size=min_size,
            fill_holes=fill_holes,
            ridge_radius=ridge_radius,
            neck_depth=neck_depth,
        )

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Return a copy of `data` with the scores named by `keys` turned into instances."""
        return {**data, **{key: self.transform(data[key]) for key in self.key_iterator(data)}}
