"""The network with its context inside the graph, for programs that know nothing of borders."""

from __future__ import annotations

import torch
from monai.networks.layers import gaussian_1d, separable_filtering
from torch import nn
from torch.nn.functional import pad
from unet_monai.networks import ValidUNet


class SameSizeUNet(nn.Module):
    """Turn an image into class probabilities of its own size: smooth, mirror by the border, score, crop, softmax.

    Sizes are multiples of the pooling step, so that the context is the same for all of them. Images are rows first, as
    other programs have them; the network itself learnt columns first.

    What is left to the caller: intensities between 0 and 1, and ``image_scale``, cells of the size that the network
    learnt.

    Args:
        network: a trained network.

    Attributes:
        steps: sizes are multiples of these, per axis, rows first.
        halo: context at each side of a tile, in whole steps, per axis, rows first: tiles that overlap by it give the
            same scores as the whole image.
        smallest: least sizes, one step larger than twice the halo, per axis, rows first.

    Example:
        >>> SameSizeUNet(ValidUNet(features=(2, 4)))(torch.zeros(1, 1, 32, 40)).shape
        torch.Size([1, 2, 32, 40])
    """

    kernel: torch.Tensor

    def __init__(self, network: ValidUNet) -> None:
        super().__init__()
        self.network = network
        self.dims = len(network.border)
        borders = network.border[::-1]
        self.steps = tuple(2**p for p in network.poolings[::-1])
        self.halo = tuple(b + -b % s for b, s in zip(borders, self.steps, strict=True))
        self.smallest = tuple(2 * h + s for h, s in zip(self.halo, self.steps, strict=True))
        # What the tile has beyond the border at its end, for its size to fit the poolings; cropped from the scores.
        self.surplus = tuple(-b % s for b, s in zip(network.border, (2**p for p in network.poolings), strict=True))
        self.smoothing = float(network.image_smoothing)
        sigma = torch.tensor(self.smoothing)
        kernel = gaussian_1d(sigma, approx="sampled", normalize=True) if self.smoothing > 0 else torch.ones(1)
        self.register_buffer("kernel", kernel)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Compute the class probabilities of whole images or tiles.

        Args:
            image: (B, C, H, W) or (B, C, D, H, W), intensities of about [0, 1]; sides are multiples of ``steps``, and
                at least ``smallest``.

        Returns:
            Probabilities (B, K, H, W) or (B, K, D, H, W).
        """
        reversed_axes = (0, 1, *range(image.ndim - 1, 1, -1))
        columns_first = image.permute(reversed_axes)
        if self.smoothing > 0:
            columns_first = separable_filtering(columns_first, [self.kernel] * self.dims, mode="replicate")
        margins = [(b, b + r) for b, r in zip(self.network.border, self.surplus, strict=True)]
        # Torch counts axes from the last one.
        context = [side for margin in reversed(margins) for side in margin]
        scores = self.network(pad(columns_first, context, mode="reflect"))
        centre = scores[(..., *(slice(-r or None) for r in self.surplus))]
        return centre.softmax(dim=1).permute(reversed_axes)
