"""Bring images to the scale that a network works at, and its scores back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from monai.networks.layers import gaussian_1d, separable_filtering
from monai.transforms import MapTransform, Transform
from monai.transforms.utils import scale_affine
from monai.utils import TransformBackends, convert_data_type, convert_to_dst_type, ensure_tuple_rep
from torch.nn.functional import interpolate

MODES = ("linear", "nearest")


def resample(image: torch.Tensor, spatial_size: Sequence[int], mode: str = "linear") -> torch.Tensor:
    """Resample an image to another size, edge to edge, one axis after the other.

    Where an axis shrinks, "linear" widens its triangle to the pixels of the result, so that nothing is skipped
    (`antialias` of torch, and what Pillow does); "nearest" takes the pixel at the centre of each new one.

    Args:
        image: (C, *S); floating point for "linear", any type for "nearest".
        spatial_size: size of the result along each axis.
        mode: "linear" for images and scores, "nearest" for label maps.

    Returns:
        (C, *spatial_size) of the same dtype, a plain tensor.

    Raises:
        ValueError: for another mode.

    Example:
        >>> resample(torch.tensor([[0.0, 4.0, 8.0, 12.0]]), [8])
        tensor([[ 0.,  1.,  3.,  5.,  7.,  9., 11., 12.]])
        >>> resample(torch.tensor([[7, 7, 7, 5, 5, 5]]), [2], "nearest")
        tensor([[7, 5]])
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}.")
    for axis, size in enumerate(spatial_size, start=1):
        image = (_resample_axis if mode == "linear" else _pick_along_axis)(image, axis, size)
    return image


def _resample_axis(image: torch.Tensor, axis: int, size: int) -> torch.Tensor:
    # Torch smooths pictures only: all lines along the axis are the rows of one.
    lines = image.movedim(axis, -1)
    rows = lines.reshape(1, 1, -1, lines.shape[-1])
    resized = interpolate(rows, (rows.shape[2], size), mode="bilinear", align_corners=False, antialias=True)
    return resized.reshape(*lines.shape[:-1], size).movedim(-1, axis)


def _pick_along_axis(image: torch.Tensor, axis: int, size: int) -> torch.Tensor:
    centres = (torch.arange(size, device=image.device) + 0.5) * (image.shape[axis] / size)
    return image.index_select(axis, centres.long())


def smooth(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Smooth an image with a Gaussian; beyond its edge, the outermost pixels go on.

    Args:
        image: (C, *S), floating point.
        sigma: standard deviation in pixels, >= 0; 0 changes nothing.

    Returns:
        (C, *S).

    Example:
        >>> smooth(torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0]]), sigma=0.7).round(decimals=2)
        tensor([[0.0100, 0.2100, 0.5700, 0.2100, 0.0100]])
    """
    if sigma == 0:
        return image
    kernel = gaussian_1d(torch.tensor(sigma), approx="sampled", normalize=True).to(image)
    return separable_filtering(image[None], [kernel] * (image.ndim - 1), mode="replicate")[0]


def smoothing_reach(sigma: float) -> int:
    """Tell how far in pixels `smooth` looks around each one.

    Example:
        >>> smoothing_reach(0), smoothing_reach(0.7)
        (0, 3)
    """
    return 0 if sigma == 0 else len(gaussian_1d(torch.tensor(sigma), approx="sampled")) // 2


class Rescale(Transform):
    """Enlarge or shrink an image by a factor along each axis, see `resample`, and smooth it a little there.

    Random deformation interpolates, and so takes part of the noise away. A network that has learnt from deformed tiles
    then meets more noise in a whole image than ever before. Smoothed images leave little for interpolation to take.

    Args:
        scale: factor > 0; 1 changes no size.
        mode: "linear", or "nearest" for label maps.
        smoothing: sigma of a Gaussian in pixels of the result, >= 0; 0 for none, and label maps are never smoothed.

    Raises:
        ValueError: for a factor that is not positive, another mode, or negative smoothing.

    Example:
        >>> Rescale(0.5)(torch.ones(1, 5, 8)).shape
        torch.Size([1, 2, 4])
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 (MONAI's attribute)

    def __init__(self, scale: float, mode: str = "linear", smoothing: float = 0.0) -> None:
        if not scale > 0:
            raise ValueError(f"scale must be positive, got {scale}.")
        if not smoothing >= 0:
            raise ValueError(f"smoothing must be at least 0, got {smoothing}.")
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}.")
        self.scale = scale
        self.mode = mode
        self.smoothing = smoothing if mode == "linear" else 0.0

    def __call__(self, image: NdarrayOrTensor) -> NdarrayOrTensor:
        """Rescale an image.

        Args:
            image: (C, *S), array or tensor.

        Returns:
            The same kind and dtype, the sides rounded and at least 1; the affine of a MetaTensor is scaled too.
        """
        if self.scale == 1 and self.smoothing == 0:
            return image
        old_size = image.shape[1:]
        new_size = [max(round(side * self.scale), 1) for side in old_size]
        pixels = convert_data_type(image, torch.Tensor)[0]
        if self.scale != 1:
            pixels = resample(pixels, new_size, self.mode)
        rescaled = convert_to_dst_type(smooth(pixels, self.smoothing), image)[0]
        if isinstance(rescaled, MetaTensor) and isinstance(image, MetaTensor):
            shrinking = to_affine_nd(len(image.affine) - 1, scale_affine(old_size, new_size))
            rescaled.affine = image.affine @ torch.as_tensor(shrinking)
        return rescaled


class Rescaled(MapTransform):
    """Dictionary form of `Rescale`.

    Args:
        keys: keys of the images and label maps.
        scale: factor > 0; 1 changes no size.
        mode: "linear", or "nearest" for label maps; one for all keys or one for each.
        smoothing: sigma of a Gaussian in pixels of the result, >= 0; label maps are never smoothed.
        allow_missing_keys: do not raise if a key is missing.
    """

    backend = Rescale.backend

    def __init__(
        self,
        keys: KeysCollection,
        scale: float,
        mode: str | Sequence[str] = "linear",
        smoothing: float = 0.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transforms = [Rescale(scale, each, smoothing) for each in ensure_tuple_rep(mode, len(self.keys))]

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Return a copy of `data` with the images and label maps named by `keys` rescaled."""
        pairs = self.key_iterator(dict(data), self.transforms)
        return {**data, **{key: transform(data[key]) for key, transform in pairs}}
