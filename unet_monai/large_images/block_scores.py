"""Scores of one block of an image, as those of the whole image: its own window, read with all the context it needs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from monai.networks.layers import gaussian_1d
from monai.transforms import ScaleIntensityRange

from unet_monai.inferers import OverlapTileInferer
from unet_monai.large_images.block_grid import Block
from unet_monai.large_images.lazy_image import LazyImage
from unet_monai.networks import ValidUNet
from unet_monai.networks.tile_shapes import mirrored_indices, tile_starts
from unet_monai.transforms.rescale import smooth


class BlockScorer:
    """Score blocks of an image exactly as :class:`OverlapTileInferer` scores all of it, in memory.

    A block is read with the network's border and the reach of the smoothing around it, and mirrored at the image's own
    edges only. It starts at a multiple of the pooling step, so scores are equal up to float rounding.

    Args:
        image: what to score.
        network: a trained network, in evaluation mode.
        intensity_range: (low, high) for each channel: the values that become 0 and 1.
        roi_size: side of the network's input tiles; None chooses one that fits the block.
        device: device of the network.

    Raises:
        ValueError: if the network works at another scale than the image's.
    """

    def __init__(
        self,
        image: LazyImage,
        network: ValidUNet,
        intensity_range: Sequence[tuple[float, float]],
        *,
        roi_size: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if float(network.image_scale) != 1:
            raise ValueError(
                "network must have been trained at scale 1 for images larger than memory (rescale the image "
                f"beforehand), got image_scale {float(network.image_scale):g}."
            )
        self.image = image
        self.network = network
        self.normalise = [ScaleIntensityRange(low, high, b_min=0, b_max=1) for low, high in intensity_range]
        self.inferer = OverlapTileInferer(
            roi_size, border=network.border, poolings=network.poolings, bytes_per_pixel=network.bytes_per_pixel
        )
        self.sigma = float(network.image_smoothing)
        self.device = device

    def __call__(self, block: Block) -> torch.Tensor:
        """Compute the scores (K, *S) of a block, float32 on the CPU.

        Raises:
            ValueError: if the block does not start at a multiple of the pooling step.
        """
        steps = [2**poolings for poolings in self.network.poolings]
        if any(start % step for start, step in zip(block.start, steps, strict=True)):
            raise ValueError(f"block must start at multiples of {steps} px, got {block.start}.")
        tile = self.inferer.tile_output_size(block.shape)
        starts = [tile_starts(n, t, step) for n, t, step in zip(block.shape, tile, steps, strict=True)]
        window = self._mirrored_window(block, [s[-1] + t for s, t in zip(starts, tile, strict=True)])
        scores: torch.Tensor | None = None
        for corner in product(*starts):
            cut = tuple(slice(c, c + t + 2 * b) for c, t, b in zip(corner, tile, self.network.border, strict=True))
            with torch.inference_mode():
                tile_scores = self.network(window[(slice(None), *cut)][None].to(self.device))[0].cpu()
            if scores is None:
                scores = torch.empty((len(tile_scores), *block.shape), dtype=tile_scores.dtype)
            inside = tuple(slice(min(t, n - c)) for c, t, n in zip(corner, tile, block.shape, strict=True))
            there = tuple(slice(c, c + s.stop) for c, s in zip(corner, inside, strict=True))
            scores[(slice(None), *there)] = tile_scores[(slice(None), *inside)]
        if scores is None:
            raise ValueError(f"block must hold at least one pixel, got {block}.")
        return scores

    def _mirrored_window(self, block: Block, covered: Sequence[int]) -> torch.Tensor:
        """Cut (C, *S) from a border before the block up to a border after the tiles that cover it."""
        positions = [
            mirrored_indices(start - border, start + length + border, size)
            for start, length, border, size in zip(
                block.start, covered, self.network.border, self.image.shape, strict=True
            )
        ]
        needed = Block(tuple(int(p.min()) for p in positions), tuple(int(p.max()) + 1 for p in positions))
        reach = len(gaussian_1d(torch.tensor(self.sigma), approx="sampled")) // 2 if self.sigma > 0 else 0
        read = needed.widened(reach, reach, self.image.shape)
        raw = self.image.read(read.slices).astype(np.float32)
        channels = [torch.as_tensor(normalise(channel)) for normalise, channel in zip(self.normalise, raw, strict=True)]
        pixels = smooth(torch.stack(channels), self.sigma)
        for axis, (places, first) in enumerate(zip(positions, read.start, strict=True), start=1):
            pixels = pixels.index_select(axis, places - first)
        return pixels
