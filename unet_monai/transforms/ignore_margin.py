"""The margin of a frame in which nobody annotated the cells that do not reach inside."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_data_type, convert_to_dst_type
from unet_monai.data.image_io import IGNORE_LABEL


def ignore_margin(label: np.ndarray, margin: int) -> np.ndarray:
    """Set the background within `margin` pixels of the frame's edge to `IGNORE_LABEL`; labelled cells stay.

    The Cell Tracking Challenge leaves out cells that lie wholly in this margin: 50 px for PhC-C2DH-U373 and
    DIC-C2DH-HeLa. So background there says nothing, and in training it gets weight 0. DET, AP and PQ then excuse a
    predicted cell that lies on it for more than its half, and count one that lies elsewhere for at least its half; the
    challenge excuses only cells wholly in the margin.

    For SEG no reference cell and no match changes, and false positives never cost anything. But where a prediction
    overflows its cell onto ignored background, this part no longer counts, so SEG can rise, never fall: by 0.02 on U373
    if every cell is predicted 3 px too wide. A SEG to compare with the challenge's is one without a margin.

    Args:
        label: instances, signed integers (X, Y[, Z]); 0 background, < 0 ignored.
        margin: width in pixels along X and Y, >= 0; 0 changes nothing. The first and last slices Z are no margin.

    Returns:
        A copy of `label`; all its background is ignored where the frame is no wider than 2 x margin.

    Raises:
        ValueError: if `margin` is negative.
        TypeError: if `label` does not hold signed integers.

    Example:
        >>> ignore_margin(np.array([[0, 0, 0, 0], [3, 3, 0, 0], [0, 0, 0, 0]]), margin=1)
        array([[-1, -1, -1, -1],
               [ 3,  3,  0, -1],
               [-1, -1, -1, -1]])
    """
    if margin < 0:
        raise ValueError(f"margin must be at least 0, got {margin}.")
    if not np.issubdtype(label.dtype, np.signedinteger):
        raise TypeError(f"label must be a signed integer label map, got {label.dtype}.")
    in_margin = np.ones(label.shape, dtype=bool)
    in_margin[tuple(slice(margin, n - margin) for n in label.shape[:2])] = False
    return np.where(in_margin & (label == 0), IGNORE_LABEL, label).astype(label.dtype)


class IgnoreMargin(Transform):
    """Ignore the background in the margin of a frame; see `ignore_margin` for the rule and what it changes.

    The input is never modified; dtype and metadata are kept.

    Args:
        margin: width in pixels along X and Y, >= 0; 0 changes nothing.

    Raises:
        ValueError: if `margin` is negative.

    Example:
        >>> IgnoreMargin(margin=1)(np.array([[[0, 0, 0, 0], [3, 3, 0, 0], [0, 0, 0, 0]]]))
        array([[[-1, -1, -1, -1],
                [ 3,  3,  0, -1],
                [-1, -1, -1, -1]]])
    """

    backend = [TransformBackends.NUMPY]  # noqa: RUF012 (MONAI's attribute)

    def __init__(self, margin: int) -> None:
        if margin < 0:
            raise ValueError(f"margin must be at least 0, got {margin}.")
        self.margin = margin

    def __call__(self, label: NdarrayOrTensor) -> NdarrayOrTensor:
        """Ignore the margin of one label map.

        Args:
            label: instances, signed integers (1, X, Y[, Z]), array or tensor; 0 background, < 0 ignored.

        Returns:
            A copy of the same kind.

        Raises:
            ValueError: if `label` has not exactly one channel.
            TypeError: if `label` does not hold signed integers.
        """
        if label.shape[0] != 1:
            raise ValueError(f"label must have one channel, (1, X, Y[, Z]), got shape {tuple(label.shape)}.")
        whole = convert_data_type(label, np.ndarray)[0][0]
        return convert_to_dst_type(ignore_margin(whole, self.margin)[None], label)[0]


class IgnoreMargind(MapTransform):
    """Dictionary form of `IgnoreMargin`.

    Args:
        keys: keys of the label maps.
        margin: width in pixels along X and Y, >= 0; 0 changes nothing.
        allow_missing_keys: do not raise if a key is missing.
    """

    backend = IgnoreMargin.backend

    def __init__(self, keys: KeysCollection, margin: int, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = IgnoreMargin(margin)

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Return a copy of `data` with the margin of every label map named by `keys` ignored."""
        return {**data, **{key: self.transform(data[key]) for key in self.key_iterator(data)}}
