"""An elastic tile pixel by pixel in float64, sampled by SciPy: slow and obvious."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import make_interp_spline
from scipy.ndimage import map_coordinates
from unet_monai.transforms.elastic_deformation import Deformation


def coordinates_reference(deformation: Deformation) -> np.ndarray:
    """Return the image position (D, *tile) of every tile pixel."""
    size = deformation.tile_size
    field = deformation.displacements
    for axis, n in enumerate(size, start=1):
        control_points = np.linspace(0, n - 1, field.shape[axis])
        field = make_interp_spline(control_points, field, k=3, bc_type="natural", axis=axis)(np.arange(n))
    positions = np.empty((len(size), *size))
    for pixel in np.ndindex(*size):
        offset = np.array(pixel) - (np.array(size) - 1) / 2
        at_pixel = (slice(None), *pixel)
        positions[at_pixel] = deformation.centre + deformation.linear @ offset + field[at_pixel]
    return positions


def resample_reference(image: np.ndarray, positions: np.ndarray, order: int) -> np.ndarray:
    """Return the values of the image (C, *S) at the positions: linear (order 1) or of the nearest pixel (order 0)."""
    return np.stack([map_coordinates(channel, positions, order=order, mode="mirror") for channel in image])
