"""The 2-D planes of what napari holds as one layer: a picture, or a stack of them with any further axes in front."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from typing import Any

import numpy as np
import torch
from unet_monai.data import CellImageReader
from unet_monai.data.image_formats import Picture, channel_first
from unet_monai.networks import ValidUNet, load_network
from unet_monai.segmentation import segment


def load_plane_network(weights: str | PathLike[str]) -> ValidUNet:
    """Load a network for planes.

    Args:
        weights: file of the weights, such as ``bundle/weights/nuclei.pt``.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it holds something else than the weights of a 2-D ``ValidUNet``.
    """
    network = load_network(weights)
    if len(network.border) != 2:
        raise ValueError(f"weights must be of a 2-D network, got {len(network.border)}-D in {weights}.")
    return network


def plane_indices(shape: tuple[int, ...], *, rgb: bool) -> list[tuple[int, ...]]:
    """List where the planes of a layer are: ``image[index]`` is (H, W), or (H, W, C) of a colour image.

    Args:
        shape: (..., H, W), or (..., H, W, C) of a colour image.
        rgb: whether the last axis holds colours.

    Raises:
        ValueError: when there are too few axes.

    Example:
        >>> plane_indices((2, 64, 64), rgb=False), plane_indices((64, 64, 3), rgb=True)
        ([(0,), (1,)], [()])
    """
    leading = len(shape) - (3 if rgb else 2)
    if leading < 0:
        raise ValueError(f"image must have at least {3 if rgb else 2} axes, got shape {shape}.")
    return list(np.ndindex(*shape[:leading]))


def picture_of(plane: Any, name: str) -> Picture:
    """Make a plane what its file would be read as: channels first, columns before rows, without an alpha channel.

    Args:
        plane: (H, W), or (H, W, C) of a colour image.
        name: what errors call it.

    Raises:
        ValueError: when the plane does not hold finite real numbers.

    Example:
        >>> picture_of(np.zeros((40, 60, 4), np.uint8), "cells").array.shape
        (3, 60, 40)
    """
    array = np.asarray(plane)
    return Picture(name, channel_first(array, "YXS"[: array.ndim], 2, name), np.eye(3), 0, 1)


def segment_planes(
    image: Any,
    network: ValidUNet,
    *,
    rgb: bool = False,
    cell_diameter: float | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """Segment the planes of a layer one after the other, as inference would segment their files.

    A colour image is turned to grey for a network of one channel, as the bundle's reader does.

    Args:
        image: (..., H, W), or (..., H, W, C) of a colour image; an array, or something that is read plane by plane.
        network: what `load_plane_network` returns.
        rgb: whether the last axis holds colours.
        cell_diameter: typical diameter in pixels of the cells in the image; None for that of the training images.
        device: device to compute on.

    Yields:
        The index of a plane, and its instances (H, W), int32: 0 background, 1, 2, ... the cells.

    Raises:
        ValueError: as `plane_indices` and `picture_of`.

    Example:
        >>> network = ValidUNet(features=(2, 4, 8, 16, 32))
        >>> [(index, cells.shape) for index, cells in segment_planes(np.random.rand(2, 40, 60), network)]
        [((0,), (40, 60)), ((1,), (40, 60))]
    """
    reader = CellImageReader(2, network.in_channels)
    for index in plane_indices(tuple(image.shape), rgb=rgb):
        rows_first = reader.convert(picture_of(image[index], "image")).transpose()
        pixels = rows_first[..., 0] if network.in_channels == 1 else rows_first
        yield index, segment(pixels, network, cell_diameter=cell_diameter, device=device)
