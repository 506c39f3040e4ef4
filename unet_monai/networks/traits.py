"""What the inferers ask of a network besides its scores, as texts that travel inside an exported file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from torch import nn
from unet_monai.networks.valid_unet import ValidUNet


class NetworkTraits(NamedTuple):
    """The attributes of a :class:`ValidUNet` of the same names, as plain numbers.

    Attributes:
        border: pixels lost on each side, per axis.
        poolings: number of halvings, per axis.
        bytes_per_pixel: memory of the maps alive at the same time, per input pixel.
        in_channels: channels of the image.
        out_channels: classes.
        image_scale: factor to rescale images by.
        image_smoothing: sigma in pixels to smooth them with after that.
        cell_diameter: diameter in pixels of the cells for which that factor is right; nan if unknown.
    """

    border: tuple[int, ...]
    poolings: tuple[int, ...]
    bytes_per_pixel: int
    in_channels: int
    out_channels: int
    image_scale: float
    image_smoothing: float
    cell_diameter: float

    @classmethod
    def of(cls, network: ValidUNet) -> NetworkTraits:
        """Read them off a network.

        Example:
            >>> NetworkTraits.of(ValidUNet(features=(2, 4))).border
            (8, 8)
        """
        last = network.output_conv
        if not isinstance(last, nn.Conv2d | nn.Conv3d):
            raise TypeError(f"network must end with a convolution, got {type(last).__name__}.")
        return cls(
            border=network.border,
            poolings=network.poolings,
            bytes_per_pixel=network.bytes_per_pixel,
            in_channels=network.in_channels,
            out_channels=last.out_channels,
            image_scale=float(network.image_scale),
            image_smoothing=float(network.image_smoothing),
            cell_diameter=float(network.cell_diameter),
        )

    def to_texts(self) -> dict[str, str]:
        """Write each as JSON, by its name.

        Example:
            >>> NetworkTraits.of(ValidUNet(features=(2, 4))).to_texts()["poolings"]
            '[1, 1]'
        """
        return {name: json.dumps(value) for name, value in self._asdict().items()}

    @classmethod
    def from_texts(cls, texts: Mapping[str, str]) -> NetworkTraits:
        """Read what :meth:`to_texts` wrote, among whatever else an exported file holds.

        Raises:
            ValueError: when one is missing, because another program wrote the file.
        """
        missing = [name for name in cls._fields if name not in texts]
        if missing:
            raise ValueError(
                f"metadata must be those that unet_monai.export writes, got none for {', '.join(missing)}."
            )
        values = (json.loads(texts[name]) for name in cls._fields)
        return cls._make(tuple(v) if isinstance(v, list) else v for v in values)
