"""Elastic deformation, https://arxiv.org/abs/1505.04597 section 3.1, with rotation, shift, scale, mirroring and crop.

All of them are one map from tile to image coordinates, so image and label are resampled once.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
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


def cubic_upsampling(control_points: int, size: int) -> np.ndarray:
    """Build the matrix that interpolates control points to pixels by the natural cubic spline.

    The spline passes through the control points, so a spread of 10 px there is 10 px in the field; it keeps constant
    and linear displacements as they are.

    Returns:
        (size, control_points), float64.

    Example:
        >>> cubic_upsampling(3, 5).round(3).tolist()[1]
        [0.406, 0.688, -0.094]
    """
    spline = CubicSpline(np.arange(control_points), np.eye(control_points), bc_type="natural")
    return spline(np.linspace(0, control_points - 1, size))


def displacement_field(displacements: torch.Tensor, tile_size: Sequence[int]) -> torch.Tensor:
    """Interpolate the displacements (D, *grid) of the control points to every pixel of the tile, (D, *tile_size)."""
    field = displacements
    for axis, (points, size) in enumerate(zip(displacements.shape[1:], tile_size, strict=True), start=1):
        matrix = torch.as_tensor(cubic_upsampling(points, size), dtype=field.dtype, device=field.device)
        field = torch.movedim(torch.tensordot(matrix, field, dims=([1], [axis])), 0, axis)
    return field


def source_coordinates(deformation: Deformation, device: torch.device | None = None) -> torch.Tensor:
    """Compute where in the image each pixel of the tile comes from.

    Returns:
        Image positions in pixels, float32 (D, *tile_size).

    Example:
        >>> still = Deformation((2, 2), np.array([5.5, 7.5]), np.eye(2), np.zeros((2, 3, 3)))
        >>> source_coordinates(still)[:, 0, 0].tolist()
        [5.0, 7.0]
    """
    size = deformation.tile_size
    axes = [torch.arange(n, dtype=torch.float32, device=device) - (n - 1) / 2 for n in size]
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    centre, linear, displacements = (torch.as_tensor(x, dtype=torch.float32, device=device) for x in deformation[1:])
    moved = torch.tensordot(linear, offsets, dims=1) + centre.reshape(-1, *[1] * len(size))
    return moved + displacement_field(displacements, size)


def resample(image: torch.Tensor, coordinates: torch.Tensor, mode: str) -> torch.Tensor:
    """Sample an image at the given positions, mirrored at its edge pixels as often as it takes.

    Args:
        image: (C, *S), 2-D or 3-D.
        coordinates: positions in pixels (D, *T).
        mode: ``"bilinear"`` (trilinear in 3-D) or ``"bicubic"`` (2-D only) for images; ``"nearest"`` for labels.

    Returns:
        float32 (C, *T).
    """
    sizes = torch.tensor(image.shape[1:], dtype=torch.float32, device=image.device)
    spans = (sizes - 1).clamp(min=1).reshape(-1, *[1] * (coordinates.ndim - 1))
    # grid_sample wants the last axis first, and -1 ... 1 from the first to the last pixel's centre.
    grid = torch.movedim((2 * coordinates / spans - 1).flip(0), 0, -1)
    sampled = grid_sample(image[None].float(), grid[None], mode=mode, padding_mode="reflection", align_corners=True)
    return sampled[0]


def outside_image(coordinates: torch.Tensor, image_size: Sequence[int]) -> torch.Tensor:
    """Mark the positions (D, *T) that lie beyond the image's outermost pixels, where it is mirrored; bool (*T)."""
    last = torch.tensor(image_size, device=coordinates.device).reshape(-1, *[1] * (coordinates.ndim - 1)) - 0.5
    return ((coordinates < -0.5) | (coordinates > last)).any(dim=0)


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

    def __call__(self, img: NdarrayOrTensor, mode: str = "bilinear", randomize: bool = True) -> NdarrayOrTensor:
        """Deform one image or label.

        Args:
            img: (C, *S), 2-D or 3-D.
            mode: ``"bilinear"`` or ``"bicubic"`` for images, ``"nearest"`` for labels.
            randomize: False to repeat the last drawn deformation, so that a label follows its image.

        Returns:
            The tile (C, *spatial_size): float32, or for ``"nearest"`` the label's own type, signed.

        Raises:
            RuntimeError: when nothing has been drawn yet and ``randomize`` is False.
        """
        look_up_option(mode, GridSampleMode)
        if randomize:
            self.randomize(img.shape[1:])
        if self.deformation is None:
            raise RuntimeError("call randomize() or pass randomize=True before randomize=False.")
        image = convert_to_tensor(img, track_meta=False)
        coordinates = source_coordinates(self.deformation, image.device)
        tile = resample(image, coordinates, mode)
        if mode == GridSampleMode.NEAREST:
            signed = torch.promote_types(image.dtype, torch.int16)
            tile = tile.masked_fill(outside_image(coordinates, image.shape[1:]), IGNORE_LABEL).to(signed)
        return convert_to_dst_type(tile, img, dtype=tile.dtype)[0]


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
        mode: Sequence[str] | str = ("bilinear", "nearest"),
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
        for key, mode in self.key_iterator(d, self.mode):
            d[key] = self.transform(d[key], mode=mode, randomize=False)
        return d
