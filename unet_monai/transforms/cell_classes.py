"""The classes that a network learns to tell apart: background, cell, and where cells touch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_data_type, convert_to_dst_type
from unet_monai.transforms.touching_ridge import touching_ridge

BACKGROUND, CELL, TOUCHING = 0, 1, 2


def cell_classes(label: np.ndarray, radius: int = 2, num_classes: int = 3) -> np.ndarray:
    """Give each pixel its class: background 0, cell 1, touching 2 (a cell's pixel close to another cell).

    The third class descends from the separation border of Ronneberger et al. 2015
    (https://arxiv.org/abs/1505.04597): there it is background with a high weight, so a network learns to doubt the
    cells beside it; as a class of its own (Guerrero-Pena et al. 2018, https://arxiv.org/abs/1802.07465) it takes
    nothing from them.

    Args:
        label: instances, integer array (*S), values > 0; background 0 and ignored pixels < 0 are class 0.
        radius: Chebyshev distance in pixels within which another instance makes a pixel touching; see `touching_ridge`.
        num_classes: 3, or 2 to make the touching pixels background as the paper does.

    Returns:
        uint8 array (*S).

    Raises:
        ValueError: if `radius` is negative, or `num_classes` is another number.
        TypeError: if `label` does not hold integers.

    Example:
        >>> cell_classes(np.array([[1, 1, 1, 2, 2, 2, 0, 0, -1, 3]]), radius=1)
        array([[1, 1, 2, 2, 1, 1, 0, 0, 0, 1]], dtype=uint8)
    """
    _check_num_classes(num_classes)
    where_touching = TOUCHING if num_classes == 3 else BACKGROUND
    return np.where(touching_ridge(label, radius), where_touching, label > 0).astype(np.uint8)


def _check_num_classes(num_classes: int) -> None:
    if num_classes not in (2, 3):
        raise ValueError(f"num_classes must be 2 or 3, got {num_classes}.")


class CellClasses(Transform):
    """Turn instances into the classes that a network learns; see `cell_classes` for the rule and its source.

    Args:
        radius: width of the touching class on each side, pixels >= 0.
        num_classes: 3, or 2 to make the touching pixels background.

    Raises:
        ValueError: if `radius` is negative, or `num_classes` is another number.

    Example:
        >>> CellClasses(radius=1)(np.array([[[1, 1, 1, 2, 2, 2]]]))
        array([[[1, 1, 2, 2, 1, 1]]], dtype=uint8)
    """

    backend = [TransformBackends.NUMPY]  # noqa: RUF012 (MONAI's attribute)

    def __init__(self, radius: int = 2, num_classes: int = 3) -> None:
        if radius < 0:
            raise ValueError(f"radius must be at least 0, got {radius}.")
        _check_num_classes(num_classes)
        self.radius = radius
        self.num_classes = num_classes

    def __call__(self, label: NdarrayOrTensor) -> NdarrayOrTensor:
        """Find the classes.

        Args:
            label: instances, integer (1, *S), array or tensor; 0 background, < 0 ignored.

        Returns:
            uint8 (1, *S) of the same kind, with the same metadata.

        Raises:
            ValueError: if `label` has not exactly one channel.
            TypeError: if `label` does not hold integers.
        """
        if label.shape[0] != 1:
            raise ValueError(f"label must have one channel, (1, *S), got shape {tuple(label.shape)}.")
        classes = cell_classes(convert_data_type(label, np.ndarray)[0][0], self.radius, self.num_classes)
        return convert_to_dst_type(classes[None], label, dtype=np.uint8)[0]


class CellClassesd(MapTransform):
    """Dictionary form of `CellClasses`: writes the classes of one label map to another key, and keeps the label map.

    Args:
        keys: key of the label map.
        classes_key: key to write the classes to.
        radius: width of the touching class on each side, pixels >= 0.
        num_classes: 3, or 2 to make the touching pixels background.
        allow_missing_keys: do not raise if the key is missing.

    Raises:
        ValueError: if `keys` names more than one label map.
    """

    backend = CellClasses.backend

    def __init__(
        self,
        keys: KeysCollection = "label",
        classes_key: str = "classes",
        radius: int = 2,
        num_classes: int = 3,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise ValueError(f"keys must name one label map, got {self.keys}.")
        self.classes_key = classes_key
        self.transform = CellClasses(radius, num_classes)

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Return a copy of `data` with the classes added."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[self.classes_key] = self.transform(d[key])
        return d
