"""Scores of one block of an image, as those of the whole image: its own window, read with all the context it needs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from monai.transforms import ScaleIntensityRange
from unet_monai.inferers import OverlapTileInferer, RescalingInferer
from unet_monai.large_images.block_grid import Block
from unet_monai.large_images.lazy_image import LazyImage
from unet_monai.large_images.rescaled_blocks import BlockResampling, rescaled_size
from unet_monai.networks import ValidUNet
from unet_monai.networks.tile_shapes import mirrored_indices, tile_starts
from unet_monai.transforms.rescale import smooth, smoothing_reach


def image_scale(network: ValidUNet, cell_diameter: float | None = None) -> float:
    """Compute the factor that images are rescaled by for a network; see `RescalingInferer`, whose errors it raises."""
    return RescalingInferer(OverlapTileInferer(), cell_diameter).scale_for(network)


def tile_inferer(network: ValidUNet, roi_size: int | Sequence[int] | None = None) -> OverlapTileInferer:
    """Make the inferer that chooses the network's tiles; `roi_size`, if it is given, is their side or sides."""
    return OverlapTileInferer(
        roi_size, border=network.border, poolings=network.poolings, bytes_per_pixel=network.bytes_per_pixel
    )


class BlockScorer:
    """Score blocks of an image exactly as :class:`RescalingInferer` and :class:`OverlapTileInferer` score all of it.

    The network scores blocks of the rescaled image, which begin at multiples of its pooling step, and hold all that the
    scores of the block are interpolated from. Each is read with the network's border and the reach of the smoothing
    around it, and mirrored at the rescaled image's own edges only. So scores are equal up to float rounding.

    Args:
        image: what to score.
        network: a trained network, in evaluation mode, on the device that is to compute.
        intensity_range: (low, high) for each channel: the values that become 0 and 1.
        cell_diameter: typical diameter in pixels of the cells in the image; None for that of the training images.
        roi_size: side of the network's input tiles, one or one per axis; None chooses one that fits the block.

    Raises:
        ValueError: for a diameter that is not positive, or a network that does not know that of its cells.
    """

    def __init__(
        self,
        image: LazyImage,
        network: ValidUNet,
        intensity_range: Sequence[tuple[float, float]],
        *,
        cell_diameter: float | None = None,
        roi_size: int | Sequence[int] | None = None,
    ) -> None:
        self.image = image
        self.network = network
        self.normalise = [ScaleIntensityRange(low, high, b_min=0, b_max=1) for low, high in intensity_range]
        self.inferer = tile_inferer(network, roi_size)
        scale = image_scale(network, cell_diameter)
        rescaled = [rescaled_size(size, scale) for size in image.shape]
        self.rescale, self.restore = BlockResampling(image.shape, rescaled), BlockResampling(rescaled, image.shape)
        self.sigma = float(network.image_smoothing)
        self.device = network.image_scale.device

    def __call__(self, block: Block) -> torch.Tensor:
        """Compute the scores (K, *S) of a block of the image, float32 on the CPU."""
        needed, steps = self.restore.needed(block), [2**poolings for poolings in self.network.poolings]
        start = tuple(start - start % step for start, step in zip(needed.start, steps, strict=True))
        rescaled = Block(start, needed.stop)
        return self.restore(self._rescaled_scores(rescaled, steps), rescaled, block)

    def _rescaled_scores(self, block: Block, steps: Sequence[int]) -> torch.Tensor:
        """Compute the scores (K, *S) of a block of the rescaled image that begins in pooling phase."""
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
        """Cut (C, *S) of the rescaled image, from a border before the block to one after the tiles that cover it."""
        size = self.rescale.new_size
        positions = [
            mirrored_indices(start - border, start + length + border, n)
            for start, length, border, n in zip(block.start, covered, self.network.border, size, strict=True)
        ]
        needed = Block(tuple(int(p.min()) for p in positions), tuple(int(p.max()) + 1 for p in positions))
        reach = smoothing_reach(self.sigma)
        smoothed = needed.widened(reach, reach, size)
        read = self.rescale.needed(smoothed)
        raw = self.image.read(read.slices).astype(np.float32)
        channels = [torch.as_tensor(normalise(channel)) for normalise, channel in zip(self.normalise, raw, strict=True)]
        pixels = smooth(self.rescale(torch.stack(channels), read, smoothed), self.sigma)
        for axis, (places, first) in enumerate(zip(positions, smoothed.start, strict=True), start=1):
            pixels = pixels.index_select(axis, places - first)
        return pixels
