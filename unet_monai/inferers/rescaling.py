"""Score images at the scale that a network was trained at."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import isnan
from typing import Any

import torch
from monai.inferers.inferer import Inferer
from unet_monai.data.cell_size import diameters_disagree, median_diameter
from unet_monai.networks import ValidUNet
from unet_monai.transforms.rescale import Rescale, resample

logger = logging.getLogger(__name__)


class RescalingInferer(Inferer):
    """Rescale an image, score it with another inferer, and bring the scores back to the image's own size.

    A network finds cells of about the size that it has learnt, and carries three numbers from its training:
    ``image_scale``, the factor by which the images were rescaled, ``image_smoothing``, how they were smoothed then, and
    ``cell_diameter``, the typical diameter of their cells before that. Without a diameter of your own, images are taken
    to be like the training images; with it, they are rescaled by image_scale * network.cell_diameter / cell_diameter.

    Args:
        inferer: scores the rescaled image, for example an :class:`OverlapTileInferer`.
        cell_diameter: typical diameter in pixels of the cells in the images; None for that of the training images.

    Raises:
        ValueError: for a diameter that is not positive; in a call, for a network that does not know that of its cells.

    Example:
        >>> from unet_monai.inferers import OverlapTileInferer
        >>> from unet_monai.networks import ValidUNet
        >>> network = ValidUNet(features=(2, 4), image_scale=0.5, cell_diameter=30)
        >>> inferer = RescalingInferer(OverlapTileInferer(border=network.border, poolings=network.poolings))
        >>> inferer(torch.ones(1, 1, 41, 60), network).shape
        torch.Size([1, 2, 41, 60])
    """

    def __init__(self, inferer: Inferer, cell_diameter: float | None = None) -> None:
        super().__init__()
        if cell_diameter is not None and not cell_diameter > 0:
            raise ValueError(f"cell_diameter must be positive, got {cell_diameter}.")
        self.inferer = inferer
        self.cell_diameter = cell_diameter

    def __call__(  # type: ignore[override]  # it needs to know the network's scale
        self, inputs: torch.Tensor, network: ValidUNet, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Score a batch of images.

        Args:
            inputs: images (B, C, *S).
            network: what the inner inferer calls.
            args: passed on.
            kwargs: passed on.

        Returns:
            Scores before the softmax (B, K, *S).
        """
        rescale = Rescale(self.scale_for(network), smoothing=float(network.image_smoothing))
        rescaled = torch.stack([torch.as_tensor(rescale(image)) for image in inputs])
        scores = self.inferer(rescaled, network, *args, **kwargs)
        if scores.shape[2:] == inputs.shape[2:]:
            return scores
        return torch.stack([resample(score, inputs.shape[2:]) for score in scores])

    def scale_for(self, network: ValidUNet) -> float:
        """Compute the factor that images are rescaled by for a network."""
        if self.cell_diameter is None:
            return float(network.image_scale)
        learnt = float(network.cell_diameter)
        if isnan(learnt):
            raise ValueError(f"cell_diameter must be None for a network that knows none, got {self.cell_diameter}.")
        return float(network.image_scale) * learnt / self.cell_diameter

    def expected_diameter(self, network: ValidUNet) -> float:
        """Compute the diameter of the cells that come to the network at the size it learnt, in the image's pixels.

        It is nan for a network that does not know that of its cells.
        """
        return float(network.image_scale) * float(network.cell_diameter) / self.scale_for(network)


def warn_of_other_cells(sizes: Sequence[int], network: ValidUNet, inferer: RescalingInferer, setting: str) -> None:
    """Log a warning if the cells found are half or twice as wide, or further off, as those the network looked for.

    Without any cell, and for a network that does not know the diameter of its cells, there is nothing to compare.

    Args:
        sizes: areas (volumes) in pixels of the cells found.
        network: what found them.
        inferer: what brought the images to the network's scale.
        setting: how the user gives the diameter, up to its value, such as ``"--cell_diameter "``.
    """
    found, expected = median_diameter(sizes, len(network.border)), inferer.expected_diameter(network)
    if diameters_disagree(found, expected):
        logger.warning(
            "the cells found have a median diameter of %.1f px, the network looked for %.1f px: "
            "give the true one, %s%.1f if these cells are right",
            *(found, expected, setting, found),
        )
