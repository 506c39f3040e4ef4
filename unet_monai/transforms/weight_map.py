"""The paper's weight map: background between close cells counts more, https://arxiv.org/abs/1505.04597, equation 2."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from math import ceil, log, sqrt

import numpy as np
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_data_type, convert_to_dst_type, ensure_tuple
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


def label_context(output_size: Sequence[int], *, w0: float, sigma: float, ridge_radius: int) -> tuple[int, ...]:
    """Compute how large a label, around the pixels of an output tile, decides on their weights and ridges.

    A label of this size gives the same target as a larger one, weights to 1e-5, in less time.

    Args:
        output_size: size of the output tile along each axis, pixels.
        w0: height of the border term.
        sigma: its width in pixels.
        ridge_radius: the radius of the touching ridges.

    Returns:
        Size along each axis, pixels.

    Example:
        >>> label_context((260, 260), w0=10, sigma=5, ridge_radius=2)
        (318, 318)
    """
    margin = ceil(border_reach(w0, sigma)) + ridge_radius
    return tuple(side + 2 * margin for side in output_size)


def two_nearest_distances(label: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Compute the distances of every pixel to its nearest and second nearest instance, where these lie close together.

    Only instances with another one within ``reach`` are transformed, each in the box where its distance can matter: the
    cost follows the area of these boxes, not pixels times instances.

    Args:
        label: integer instances (*S); values below 1 are no instance.
        reach: the d1 + d2, in pixels, from which on the distances need not be right.

    Returns:
        d1 and d2, float32 (*S), d1 <= d2: Euclidean, between pixel centres, in pixels; 0 for d1 inside an instance.
        Exact where d1 + d2 < reach. Elsewhere both may be too large, up to infinite, so d1 + d2 >= reach there too.

    Example:
        >>> d1, d2 = two_nearest_distances(np.array([[1, 0, 0, 2]]), reach=9)
        >>> d1.tolist(), d2.tolist()
        ([[0.0, 1.0, 1.0, 0.0]], [[3.0, 2.0, 2.0, 3.0]])
    """
    label = _with_small_ids(label)
    nearest = np.full(label.shape, np.inf, dtype=np.float32)
    second = nearest.copy()
    for instance, box in _border_boxes(label, reach):
        outside = label[box] != instance
        if outside.all():
            continue
        distance = ndimage.distance_transform_edt(outside).astype(np.float32)
        d1, d2 = nearest[box], second[box]
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
    weight = d1  # overwritten, a few rows at a time: in a large image, new arrays cost more than the arithmetic
    step = 1 + 2**16 // label[0].size
    for rows in (slice(i, i + step) for i in range(0, len(label), step)):
        weight[rows] = background + w0 * np.exp(-((d1[rows] + d2[rows]) ** 2) / (2 * sigma**2))
        weight[rows][label[rows] > 0] = cell
        weight[rows][label[rows] == IGNORE_LABEL] = 0
    return weight


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
        weights = ensure_tuple(class_weights)
        if class_weights is not None and (len(weights) != 2 or min(weights) < 0):
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


def _with_small_ids(label: np.ndarray) -> np.ndarray:
    """Renumber the instances where an id exceeds the number of pixels: `find_objects` lists every id up to the highest.

    Example:
        >>> _with_small_ids(np.array([[-1, 0, 2**30, 7]]))
        array([[-1,  0,  2,  1]])
    """
    if label.max() <= label.size:
        return label
    ids, numbers = np.unique(label, return_inverse=True)
    return numbers.reshape(label.shape) - np.searchsorted(ids, 1) + 1


def _border_boxes(label: np.ndarray, reach: float) -> Iterator[tuple[int, tuple[slice, ...]]]:
    """Yield each instance that has another one within ``reach``, and the box in which its distance can matter.

    If a pixel's distances to two instances add up to less than ``reach``, then along each axis its gaps to their
    bounding boxes add up to less than r, where r^2 = reach^2 - (gaps between the boxes along the other axes)^2. For two
    intervals that begin at a and b, such pixels begin at max((a + b - r) / 2, a - r, b - r); the end mirrors this.
    The box of an instance holds these pixels of all its pairs, and so the instance's nearest pixel to each of them too,
    which is no farther from the other instance than the two distances together.

    Example:
        >>> for instance, box in _border_boxes(np.array([[1, 0, 0, 2, 0, 0, 0, 0, 3]]), reach=5):
        ...     print(instance, box)
        1 (slice(0, 1, None), slice(0, 4, None))
        2 (slice(0, 1, None), slice(0, 4, None))
    """
    found = [(box, i) for i, box in enumerate(ndimage.find_objects(label), start=1) if box is not None]
    found.sort(key=lambda item: item[0][0].start)
    first = np.array([[side.start for side in box] for box, _ in found]).reshape(-1, label.ndim)
    last = np.array([[side.stop - 1 for side in box] for box, _ in found]).reshape(-1, label.ndim)
    one, other, gap = _pairs_within(reach, first, last)
    gap_along_others = np.square(gap).sum(axis=1, keepdims=True) - np.square(gap)
    below_r = np.ceil(np.sqrt(reach**2 - gap_along_others)).astype(int) - 1
    begin = np.maximum(first[one], first[other]) - below_r
    begin = np.maximum(begin, (first[one] + first[other] - below_r + 1) // 2)
    end = np.minimum(last[one], last[other]) + below_r
    end = np.minimum(end, (last[one] + last[other] + below_r) // 2)
    start, stop = np.tile(label.shape, (len(found), 1)), np.zeros_like(last)
    for instance in (one, other):
        np.minimum.at(start, instance, begin.clip(0))
        np.maximum.at(stop, instance, np.minimum(end + 1, label.shape))
    for i in np.unique([one, other]):
        yield found[i][1], tuple(map(slice, start[i].tolist(), stop[i].tolist()))


def _pairs_within(reach: float, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """List the pairs of boxes less than ``reach`` apart.

    Args:
        reach: in pixels, between pixel centres.
        first: first pixels of the boxes (N, axes), sorted along axis 0.
        last: last pixels of the boxes (N, axes).

    Returns:
        Indices of the one and of the other box of each pair, and the gaps between them along each axis (pairs, axes).
    """
    # Axis 0: those after a box in the list that begin less than reach behind its end. Then the other axes, then all.
    following = np.arange(1, len(first) + 1)
    counts = (np.searchsorted(first[:, 0], last[:, 0] + reach) - following).clip(0)
    one = np.repeat(following - 1, counts)
    other = np.arange(len(one)) + np.repeat(following - np.cumsum(counts) + counts, counts)
    for begin, end in zip(first.T[1:], last.T[1:] + reach, strict=True):
        near = (begin[one] < end[other]) & (begin[other] < end[one])
        one, other = one[near], other[near]
    gap = np.maximum(first[one] - last[other], first[other] - last[one]).clip(0)
    near = np.square(gap).sum(axis=1) < reach**2
    return one[near], other[near], gap[near]
