"""A thin background ridge between touching instances, so that a network can learn to tell them apart."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_data_type, convert_to_dst_type


def box_extreme(values: np.ndarray, radius: int, extreme: np.ufunc) -> np.ndarray:
    """Take the maximum or minimum over the box of Chebyshev distance `radius` around every pixel.

    The box is cut at the edge of the array. Along each axis the array is compared with itself, shifted by one pixel
    both ways: several times faster than the filters of scipy at small radii, and exact for 64-bit ids.

    Args:
        values: array (*S).
        radius: reach in pixels, >= 0.
        extreme: `np.maximum` or `np.minimum`.

    Returns:
        Array (*S) of the same dtype; `values` itself for radius 0.

    Example:
        >>> box_extreme(np.array([0, 0, 7, 3, 0]), 1, np.maximum)
        array([0, 7, 7, 7, 3])
    """
    for axis in range(values.ndim):
        for _ in range(radius):
            before, after = np.moveaxis(values, axis, 0), np.moveaxis(values.copy(), axis, 0)
            extreme(after[1:], before[:-1], out=after[1:])
            extreme(after[:-1], before[1:], out=after[:-1])
            values = np.moveaxis(after, 0, axis)
    return values


def nearby_ids(label: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the lowest and the highest instance id within Chebyshev distance `radius` of every pixel, itself included.

    Args:
        label: integer array (*S); values <= 0 are no instance.
        radius: reach in pixels, >= 0.

    Returns:
        (lowest, highest), arrays (*S) of the dtype of `label`. Where no instance is near, the lowest is the largest
        value of the dtype and the highest is <= 0.
    """
    positive = np.where(label > 0, label, np.iinfo(label.dtype).max)
    return box_extreme(positive, radius, np.minimum), box_extreme(label, radius, np.maximum)


def touching_ridge(label: np.ndarray, radius: int = 1) -> np.ndarray:
    """Mark the instance pixels that have a pixel of another instance within Chebyshev distance `radius`.

    Source: Ronneberger et al. 2015, section 3 (https://arxiv.org/abs/1505.04597), "the separation border is computed
    using morphological operations"; the operations are not given. This rule is symmetric: radius 1 marks one pixel on
    each side, a ridge 2 px wide. The same lab's Fiji plugin (Falk et al. 2019) is one-sided: it marks a pixel if its
    north-west, north, north-east or west neighbour carries another instance.

    Instances within `radius` of each other count as touching even if background lies between. An instance that is no
    thicker than `radius` beside its neighbour is marked whole.

    Args:
        label: instances, integer array (*S), values > 0; background 0 and ignored pixels < 0 count as nothing.
        radius: width of the ridge on each side in pixels, >= 0; 0 marks nothing.

    Returns:
        Boolean array (*S).

    Raises:
        ValueError: if `radius` is negative.
        TypeError: if `label` does not hold integers.

    Example:
        >>> touching_ridge(np.array([[1, 1, 1, 2, 2, 2, 0, 0, 3]])).astype(int)
        array([[0, 0, 1, 1, 0, 0, 0, 0, 0]])
    """
    if radius < 0:
        raise ValueError(f"radius must be at least 0, got {radius}.")
    if not np.issubdtype(label.dtype, np.integer):
        raise TypeError(f"label must be an integer label map, got {label.dtype}.")
    lowest, highest = nearby_ids(label, radius)
    return (label > 0) & (lowest != highest)


class TouchingRidge(Transform):
    """Set the pixels where instances touch to background; see `touching_ridge` for the rule and its source.

    Apply it before the weight map, which changes no label. The input is never modified; dtype and metadata are kept.

    Args:
        radius: width of the ridge on each side in pixels, >= 0; 0 changes nothing.

    Raises:
        ValueError: if `radius` is negative.

    Example:
        >>> TouchingRidge(radius=1)(np.array([[[1, 1, 1, 2, 2, 2]]]))
        array([[[1, 1, 0, 0, 2, 2]]])
    """

    backend = [TransformBackends.NUMPY]  # noqa: RUF012 (MONAI's attribute)

    def __init__(self, radius: int = 1) -> None:
        if radius < 0:
            raise ValueError(f"radius must be at least 0, got {radius}.")
        self.radius = radius

    def __call__(self, label: NdarrayOrTensor) -> NdarrayOrTensor:
        """Cut the ridge.

        Args:
            label: instances, integer (1, *S), array or tensor; 0 background, < 0 ignored.

        Returns:
            A copy of the same kind with 0 on the ridge.

        Raises:
            ValueError: if `label` has not exactly one channel.
            TypeError: if `label` does not hold integers.
        """
        if label.shape[0] != 1:
            raise ValueError(f"label must have one channel, (1, *S), got shape {tuple(label.shape)}.")
        whole = convert_data_type(label, np.ndarray)[0][0]
        cut = np.where(touching_ridge(whole, self.radius), 0, whole)
        return convert_to_dst_type(cut[None], label)[0]


class TouchingRidged(MapTransform):
    """Dictionary form of `TouchingRidge`.

    Args:
        keys: keys of the label maps.
        radius: width of the ridge on each side in pixels, >= 0.
        allow_missing_keys: do not raise if a key is missing.
    """

    backend = TouchingRidge.backend

    def __init__(self, keys: KeysCollection, radius: int = 1, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = TouchingRidge(radius)

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Return a copy of `data` with the ridge cut into every label map named by `keys`."""
        return {**data, **{key: self.transform(data[key]) for key in self.key_iterator(data)}}
