"""The paper's weight map: background between close cells counts more, https://arxiv.org/abs/1505.04597, equation 2."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import ceil, log, sqrt

import numpy as np
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_data_type, convert_to_dst_type
from scipy import ndimage

from unet_monai.data.image_io import IGNORE_LABEL

# The border term is dropped where it falls below this.
NEGLIGIBLE = 1e-5


def border_reach(w0: float, sigma: float) -> float:
    """Compute the d1 + d2, in pixels, beyond which the border term ``w0 exp(-(d1+d2)^2 / (2 sigma^2))`` is below 1e-5.

    Example:
        >>> round(border_reach(10, 5), 1)
        26.3
    """
    return sigma * sqrt(2 * log(w0 / NEGLIGIBLE)) if w0 > NEGLIGIBLE else 0.0


def two_nearest_distances(label: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Compute the distances of every pixel to its nearest and second nearest instance.

    Each instance is transformed inside its bounding box grown by ``reach``, so the cost follows the area that the
    instances and their surroundings cover, not pixels times instances.

    Args:
        label: integer instances (*S); values below 1 are no instance.
        reach: distances of at least this many pixels are given as infinite.

    Returns:
        d1 and d2, float32 (*S), d1 <= d2: Euclidean, between pixel centres, in pixels; 0 for d1 inside an instance.

    Example:
        >>> d1, d2 = two_nearest_distances(np.array([[1, 0, 0, 2]]), reach=9)
        >>> d1.tolist(), d2.tolist()
        ([[0.0, 1.0, 1.0, 0.0]], [[3.0, 2.0, 2.0, 3.0]])
    """
    nearest = np.full(label.shape, np.inf, dtype=np.float32)
    second = np.full(label.shape, np.inf, dtype=np.float32)
    margin = ceil(reach)
    for instance, box in enumerate(ndimage.find_objects(np.maximum(label, 0)), start=1):
        if box is None:
            continue
        grown = tuple(slice(max(s.start - margin, 0), s.stop + margin) for s in box)
        distance = ndimage.distance_transform_edt(label[grown] != instance).astype(np.float32)
        distance[distance >= reach] = np.inf
        d1, d2 = nearest[grown], second[grown]
        np.minimum(d2, np.maximum(d1, distance), out=d2)
        np.minimum(d1, distance, out=d1)
    return nearest, second


def border_weight_map(
    label: np.ndarray, *, w0: float = 10.0, sigma: float = 5.0, class_weights: Sequence[float] | None = None
) -> np.ndarray:
    """Weigh each pixel by w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2)), the border term on background pixels only.

    Source: https://arxiv.org/abs/1505.04597, equation 2. d1 and d2 are taken as the distances between pixel centres to
    the nearest pixel of the nearest and second nearest instance. With fewer than two instances the weight is w_c.

    Args:
        label: integer instances (*S); 0 is background, -1 is ignored and gets weight 0.
        w0: height of the border term.
        sigma: its width in pixels.
        class_weights: w_c of background and cell; None for 1 and 1.

    Returns:
        Weights, float32 (*S).

    Example:
        >>> border_weight_map(np.array([[1, 0, 2, -1]])).round(2)
        array([[ 1.  , 10.23,  1.  ,  0.  ]], dtype=float32)
    """
    background, cell = (1.0, 1.0) if class_weights is None else class_weights
    d1, d2 = two_nearest_distances(label, border_reach(w0, sigma))
    border_term = w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2))
    weight = np.where(label > 0, cell, background + border_term)
    return np.where(label == IGNORE_LABEL, 0, weight).astype(np.float32)


class BorderWeightMap(Transform):
    """Compute the weight of each pixel from its instance label, as the paper's equation 2 does.

    It changes no label: the thin background between touching cells is made before, by :class:`TouchingRidge`.

    Args:
        w0: height of the border term, not negative.
        sigma: width of the border term in pixels, positive.
        class_weights: weights of background and cell; None for 1 and 1.

    Raises:
        ValueError: for an argument outside of the above.

    Example:
        >>> BorderWeightMap(w0=10, sigma=5)(np.array([[[1, 0, 2]]])).round(2)
        array([[[ 1.  , 10.23,  1.  ]]], dtype=float32)
    """

    backend = [TransformBackends.NUMPY]  # noqa: RUF012 (MONAI's attribute)

    def __init__(self, w0: float = 10.0, sigma: float = 5.0, class_weights: Sequence[float] | None = None) -> None:
        if w0 < 0:
            raise ValueError(f"w0 must not be negative, got {w0}.")
        if sigma <= 0:
            raise ValueError(f"sigma must be positive, got {sigma}.")
        if class_weights is not None and (len(class_weights) != 2 or min(class_weights) < 0):
            raise ValueError(f"class_weights must be two, background and cell, not negative, got {class_weights}.")
        self.w0 = w0
        self.sigma = sigma
        self.class_weights = class_weights

    def __call__(self, label: NdarrayOrTensor) -> NdarrayOrTensor:
        """Compute the weights of one label map.

        Args:
            label: integer instances (1, *S), 2-D or 3-D; 0 background, -1 ignored.

        Returns:
            Weights (1, *S), float32, of the label's type and device.

        Raises:
            ValueError: when the label has more than one channel.
        """
        if len(label) != 1:
            raise ValueError(f"label must have one channel of instance ids, got shape {tuple(label.shape)}.")
        instances = convert_data_type(label, np.ndarray, dtype=np.int32)[0]
        weight = border_weight_map(instances[0], w0=self.w0, sigma=self.sigma, class_weights=self.class_weights)
        return convert_to_dst_type(weight[None], label, dtype=np.float32)[0]


class BorderWeightMapd(MapTransform):
    """Dictionary twin of :class:`BorderWeightMap`: adds the weights of ``label`` under ``weight``.

    Args:
        keys: key of the label map.
        weight_key: key to write the weights to.
        w0: see :class:`BorderWeightMap`.
        sigma: see :class:`BorderWeightMap`.
        class_weights: see :class:`BorderWeightMap`.
        allow_missing_keys: whether to pass over a missing label.
    """

    backend = BorderWeightMap.backend

    def __init__(
        self,
        keys: KeysCollection = "label",
        weight_key: str = "weight",
        w0: float = 10.0,
        sigma: float = 5.0,
        class_weights: Sequence[float] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise ValueError(f"keys must name one label map, got {self.keys}.")
        self.weight_key = weight_key
        self.transform = BorderWeightMap(w0, sigma, class_weights)

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Return a copy of ``data`` with the weights added."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[self.weight_key] = self.transform(d[key])
        return d
