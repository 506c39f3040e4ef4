"""Elastic deformation, https://arxiv.org/abs/1505.04597 section 3.1, with rotation, shift, scale, mirroring and crop.

All of them are one map from tile to image coordinates, so image and label are resampled once.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from math import cos, sin
from typing import NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, Randomizable, Transform
from monai.utils import (
    GridSampleMode,
    TransformBackends,
    convert_data_type,
    convert_to_dst_type,
    convert_to_tensor,
    ensure_tuple_rep,
    look_up_option,
)
from scipy.interpolate import CubicSpline
from torch.nn.functional import grid_sample
from unet_monai.data.image_io import IGNORE_LABEL

# Between its control points a natural cubic spline stays below this multiple of the largest, along one axis.
OVERSHOOT = 1.6
# Draws of a tile centre before the last one is taken, whatever it lies on: an image may be ignored altogether.
MAX_DRAWS = 1000


class Deformation(NamedTuple):
    """One drawn deformation, in pixels: a tile pixel x comes from ``centre + linear @ (x - tile centre) + u(x)``.

    Attributes:
        tile_size: pixels of the tile, per axis.
        centre: image position of the tile's centre (D,).
        linear: rotation, scale and mirroring (D, D).
        displacements: u at the control points (D, *grid), which span the tile from its first to its last pixel.
    """

    tile_size: tuple[int, ...]
    centre: np.ndarray
    linear: np.ndarray
    displacements: np.ndarray


@lru_cache
def cubic_upsampling(control_points: int, size: int) -> np.ndarray:
    """Build the matrix that interpolates control points to pixels by the natural cubic spline.

    The spline passes through the control points, so a spread of 10 px there is 10 px in the field; it keeps constant
    and linear displacements as they are.

    Returns:
        (size, control_points), float64, read-only.

    Example:
        >>> cubic_upsampling(3, 5).round(3).tolist()[1]
        [0.406, 0.688, -0.094]
    """
    spline = CubicSpline(np.arange(control_points), np.eye(control_points), bc_type="natural")
    matrix = spline(np.linspace(0, control_points - 1, size))
    matrix.flags.writeable = False
    return matrix


def source_window(deformation: Deformation, image_size: Sequence[int]) -> tuple[slice, ...]:
    """Bound the part of the image that a tile comes from, so that only this part of a large image is converted.

    An axis along which the tile may leave the image stays whole, because it is mirrored there.

    Example:
        >>> still = Deformation((4, 4), np.array([9.5, 1.5]), np.eye(2), np.zeros((2, 3, 3)))
        >>> source_window(still, (40, 40))
        (slice(6, 14, None), slice(0, 40, None))
    """
    tile_size, centre, linear, displacements = deformation
    farthest = OVERSHOOT ** len(tile_size) * np.abs(displacements).max()
    reach = np.abs(linear) @ ((np.array(tile_size) - 1) / 2) + farthest + 2  # bicubic reads two pixels off
    first, stop = np.floor(centre - reach).astype(int), np.ceil(centre + reach).astype(int) + 1
    inside = (first >= 0) & (stop <= image_size)
    return tuple(map(slice, np.where(inside, first, 0).tolist(), np.where(inside, stop, image_size).tolist()))


def sampling_grid(
    deformation: Deformation, window: Sequence[slice], device: torch.device | None = None
) -> torch.Tensor:
    """Compute where each pixel of the tile comes from, as torch's ``grid_sample`` counts with ``align_corners=True``.

    Both parts of the map are built axis by axis: the affine part adds up one step per axis, the displacements are a
    product with one spline matrix per axis. They are small and float64 up to the last axis.

    Args:
        deformation: map from tile to image.
        window: part of the image that will be sampled.
        device: where to build the grid.

    Returns:
        float32 (*tile_size, D), the image's last axis first: -1 is the first pixel of the window, 1 the last.

    Example:
        >>> still = Deformation((2, 2), np.array([4.5, 7.5]), np.eye(2), np.zeros((2, 3, 3)))
        >>> sampling_grid(still, (slice(0, 9), slice(0, 17)))[1, 0].tolist()
        [-0.125, 0.25]
    """
    tile_size, centre, linear, displacements = deformation
    first, last = np.array([(part.start, part.stop - 1) for part in window]).T
    # From pixels off the window's middle to grid_sample's coordinates; it ignores those along an axis of one pixel.
    to_grid = np.diag(2 / np.maximum(last - first, 1))[::-1]
    steps, splines = [], []
    for axis, n in enumerate(tile_size):
        step = np.outer(to_grid @ linear[:, axis], np.arange(n) - (n - 1) / 2)
        steps.append(step.reshape(len(tile_size), *[1] * axis, n))
        splines.append(cubic_upsampling(displacements.shape[axis + 1], n))

    affine = to_grid @ (centre - (first + last) / 2)
    displaced = np.tensordot(to_grid, displacements, axes=1)
    for step, spline in zip(steps[:-1], splines[:-1], strict=True):
        affine = affine[..., None] + step
        displaced = np.tensordot(displaced, spline, axes=([1], [1]))  # puts the axis, now of pixels, last
    displaced = np.moveaxis(displaced, 1, -1).reshape(-1, displaced.shape[1])

    def float32(array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(array.astype(np.float32), device=device)

    grid = float32(affine)[..., None] + float32(steps[-1])
    # Positions stay out of the product, which a GPU may be set to round to three digits (TF32).
    grid.flatten(0, -2).addmm_(float32(displaced), float32(splines[-1]).T)
    return grid.movedim(0, -1)


def sample(image: torch.Tensor, grid: torch.Tensor, mode: str, padding_mode: str) -> torch.Tensor:
    """Sample one image (C, *S) at a grid (*T, D) by torch's ``grid_sample``, modes as there; float32 (C, *T).

    One more mode is ``"sharp"``, bicubic in 2-D and bilinear in 3-D, where torch has no cubic one. Linear interpolation
    smooths noise away. A network that has seen nothing else meets the noise of a real image unprepared: on electron
    micrographs, where it is strong, that cost more than anything else.
    """
    if mode == "sharp":
        mode = "bicubic" if grid.shape[-1] == 2 else "bilinear"
    image = image.float()
    if image.device.type != "cpu":
        return grid_sample(image[None], grid[None], mode=mode, padding_mode=padding_mode, align_corners=True)[0]
    # On the CPU its threads share out the items of a batch, so each row is an item; no copy of the image is made.
    images, rows = image.expand(len(grid), *image.shape), grid[:, None]
    tile = grid_sample(images, rows, mode=mode, padding_mode=padding_mode, align_corners=True)
    return tile.squeeze(2).transpose(0, 1).contiguous()


def sample_label(label: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Take the nearest pixels of a label (C, *S) at a grid (*T, D), -1 beyond its outermost pixels.

    Returns:
        (C, *T) of the label's own type, signed.

    Raises:
        ValueError: for ids that float32, in which torch samples, does not tell apart.
    """
    largest = label.max().item()
    if largest >= 2**24:
        raise ValueError(f"label ids must be below 2**24, got {largest}.")
    # grid_sample gives 0 beyond the label. Sampled one higher than they are, ids come back with -1 there.
    tile = sample(label.float() - IGNORE_LABEL, grid, "nearest", "zeros").add_(IGNORE_LABEL)
    for axis, n in enumerate(label.shape[:0:-1]):
        if n == 1:  # all positions count as this pixel
            tile.masked_fill_(grid[..., axis].abs() > 1, IGNORE_LABEL)
    return tile.to(torch.promote_types(label.dtype, torch.int16))


class RandElasticDeformation(Randomizable, Transform):
    """Cut a random tile out of an image, deformed as if the tissue had been stretched; one resampling for everything.

    Source: https://arxiv.org/abs/1505.04597, section 3.1: random displacement vectors on a coarse 3 x 3 grid, Gaussian
    with 10 px standard deviation, cubic interpolation per pixel. Here the spread is that **at the control points**,
    which the field passes through, and the grid spans the tile. Displacements are interpolated, not positions, so
    magnitude 0 changes nothing. (The authors' release smooths with a B-spline, which leaves about half of the spread.)

    Beyond the image it is mirrored; a label (mode ``"nearest"``) becomes -1 there, ignored: weight 0.

    Args:
        spatial_size: pixels of the tile, one side or one per axis; None for the image's own size.
        magnitude: standard deviation of the displacements in pixels, one for all axes or one per axis.
        grid_size: control points along each axis, at least 2.
        rotate_range: largest angle in radians, either way, in the plane of the first two axes.
        shift_range: largest shift in pixels, either way, along each axis.
        scale_range: largest relative change of scale, either way: 0.1 draws zooms of 1/1.1 ... 1.1.
        flip_prob: probability of mirroring, drawn for each axis.
        output_size: pixels that the network keeps of the tile; before the shift, this window lies inside the image
            where it fits. None for the whole tile.
        background_density: how likely the tile's centre falls on a background pixel, against 1 on a cell and 0 on an
            ignored pixel. Used when a label is given.

    Raises:
        ValueError: for an argument outside of the above.

    Example:
        >>> transform = RandElasticDeformation(spatial_size=(8, 6), magnitude=2).set_random_state(seed=0)
        >>> transform(torch.rand(1, 20, 30)).shape
        torch.Size([1, 8, 6])
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 (MONAI's attribute)

    def __init__(
        self,
        spatial_size: Sequence[int] | int | None = None,
        *,
        magnitude: Sequence[float] | float = 10.0,
        grid_size: int = 3,
        rotate_range: float = 0.0,
        shift_range: float = 0.0,
        scale_range: float = 0.0,
        flip_prob: float = 0.0,
        output_size: Sequence[int] | int | None = None,
        background_density: float = 0.1,
    ) -> None:
        if grid_size < 2:
            raise ValueError(f"grid_size must be at least 2, got {grid_size}.")
        if not 0 <= background_density <= 1:
            raise ValueError(f"background_density must be within 0 ... 1, got {background_density}.")
        if scale_range < 0 or np.min(magnitude) < 0:
            raise ValueError(f"magnitude and scale_range must not be negative, got {magnitude} and {scale_range}.")
        self.spatial_size = spatial_size
        self.magnitude = magnitude
        self.grid_size = grid_size
        self.rotate_range = rotate_range
        self.shift_range = shift_range
        self.scale_range = scale_range
        self.flip_prob = flip_prob
        self.output_size = output_size
        self.background_density = background_density
        self.deformation: Deformation | None = None

    def randomize(self, image_size: Sequence[int], label: np.ndarray | None = None) -> None:
        """Draw a deformation for an image of ``image_size`` pixels; ``label`` (*S) guides where the tile lies."""
        dims = len(image_size)
        tile = tuple(image_size) if self.spatial_size is None else ensure_tuple_rep(self.spatial_size, dims)
        window = tile if self.output_size is None else ensure_tuple_rep(self.output_size, dims)
        first = self._draw_position(image_size, label) - np.array(window) // 2
        # The window stays inside the image; where it is larger, the image stays inside the window.
        low, high = np.minimum(0, np.array(image_size) - window), np.maximum(0, np.array(image_size) - window)
        centre = np.clip(first, low, high) + (np.array(window) - 1) / 2
        if self.spatial_size is None:
            centre = (np.array(image_size) - 1) / 2

        angle = self.R.uniform(-self.rotate_range, self.rotate_range)
        zoom = (1 + self.scale_range) ** self.R.uniform(-1, 1)
        flips = np.where(self.R.random_sample(dims) < self.flip_prob, -1.0, 1.0)
        rotation = np.eye(dims)
        rotation[:2, :2] = [[cos(angle), -sin(angle)], [sin(angle), cos(angle)]]
        shift = self.R.uniform(-self.shift_range, self.shift_range, size=dims)
        spread = np.reshape(ensure_tuple_rep(self.magnitude, dims), (dims, *[1] * dims))
        displacements = spread * self.R.standard_normal((dims, *[self.grid_size] * dims))
        self.deformation = Deformation(tile, centre + shift, rotation * flips / zoom, displacements)

    def _draw_position(self, image_size: Sequence[int], label: np.ndarray | None) -> np.ndarray:
        """Draw a pixel, on cells, background and ignored pixels with density 1, ``background_density`` and 0."""
        for _ in range(MAX_DRAWS):
            position = self.R.randint(0, image_size)
            if label is None or label[tuple(position)] > 0:
                break
            if label[tuple(position)] != IGNORE_LABEL and self.R.random_sample() < self.background_density:
                break
        return position

    def __call__(self, img: NdarrayOrTensor, mode: str = "sharp", randomize: bool = True) -> NdarrayOrTensor:
        """Deform one image or label.

        Args:
            img: (C, *S), 2-D or 3-D.
            mode: ``"sharp"``, ``"bilinear"`` or ``"bicubic"`` for images, see :func:`sample`; ``"nearest"`` for labels.
            randomize: False to repeat the last drawn deformation, so that a label follows its image.

        Returns:
            The tile (C, *spatial_size): float32, or for ``"nearest"`` the label's own type, signed.

        Raises:
            RuntimeError: when nothing has been drawn yet and ``randomize`` is False.
            ValueError: for an unknown mode, or a label with ids that float32 does not tell apart.
        """
        if randomize:
            self.randomize(img.shape[1:])
        return self.deform([img], [mode])[0]

    def deform(self, images: Sequence[NdarrayOrTensor], modes: Sequence[str]) -> list[NdarrayOrTensor]:
        """Cut the last drawn tile out of images and labels of equal size; see :meth:`__call__` for each of them."""
        if self.deformation is None:
            raise RuntimeError("call randomize() or pass randomize=True before randomize=False.")
        tensors = [convert_to_tensor(image, track_meta=False) for image in images]
        window = source_window(self.deformation, tensors[0].shape[1:])
        grid = sampling_grid(self.deformation, window, tensors[0].device)
        tiles = []
        for image, tensor, mode in zip(images, tensors, modes, strict=True):
            part, grid = tensor[(slice(None), *window)], grid.to(tensor.device)
            if look_up_option(mode, ["sharp", *GridSampleMode]) == GridSampleMode.NEAREST:
                tile = sample_label(part, grid)
            else:
                tile = sample(part, grid, mode, "reflection")
            tiles.append(convert_to_dst_type(tile, image, dtype=tile.dtype)[0])
        return tiles


class RandElasticDeformationd(Randomizable, MapTransform):
    """Dictionary twin of :class:`RandElasticDeformation`: the same deformation for image and label.

    Args:
        keys: keys of equal spatial size to deform.
        mode: sampling of each key; one for all or one per key.
        label_key: key of the instances that guide where tiles lie; None to draw them uniformly.
        spatial_size: see :class:`RandElasticDeformation`, as all that follow.
        magnitude: standard deviation of the displacements in pixels.
        grid_size: control points along each axis.
        rotate_range: largest angle in radians.
        shift_range: largest shift in pixels.
        scale_range: largest relative change of scale.
        flip_prob: probability of mirroring, per axis.
        output_size: pixels that the network keeps of the tile.
        background_density: how likely the tile's centre falls on a background pixel, against 1 on a cell.
        allow_missing_keys: whether to pass over missing keys.

    Example:
        >>> cells = {"image": torch.rand(1, 20, 30), "label": torch.ones(1, 20, 30, dtype=torch.int32)}
        >>> tile = RandElasticDeformationd(["image", "label"], spatial_size=8).set_random_state(seed=0)(cells)
        >>> tile["image"].shape, tile["label"].dtype
        (torch.Size([1, 8, 8]), torch.int32)
    """

    backend = RandElasticDeformation.backend

    def __init__(
        self,
        keys: KeysCollection,
        mode: Sequence[str] | str = ("sharp", "nearest"),
        label_key: str | None = None,
        *,
        spatial_size: Sequence[int] | int | None = None,
        magnitude: Sequence[float] | float = 10.0,
        grid_size: int = 3,
        rotate_range: float = 0.0,
        shift_range: float = 0.0,
        scale_range: float = 0.0,
        flip_prob: float = 0.0,
        output_size: Sequence[int] | int | None = None,
        background_density: float = 0.1,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.mode = ensure_tuple_rep(mode, len(self.keys))
        self.label_key = label_key
        self.transform = RandElasticDeformation(
            spatial_size,
            magnitude=magnitude,
            grid_size=grid_size,
            rotate_range=rotate_range,
            shift_range=shift_range,
            scale_range=scale_range,
            flip_prob=flip_prob,
            output_size=output_size,
            background_density=background_density,
        )

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandElasticDeformationd:
        """Seed this transform and the deformation that it draws from."""
        super().set_random_state(seed, state)
        self.transform.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Return a copy of ``data`` with the tile of each key."""
        d = dict(data)
        first = self.first_key(d)
        if first == ():
            return d
        label = None if self.label_key is None else convert_data_type(d[self.label_key][0], np.ndarray)[0]
        self.transform.randomize(d[first].shape[1:], label)
        keys, modes = zip(*self.key_iterator(d, self.mode), strict=True)
        d.update(zip(keys, self.transform.deform([d[key] for key in keys], modes), strict=True))
        return d
