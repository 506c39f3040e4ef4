"""Time the U-Net's predecessor, one patch of context per pixel, against dense inference of the same image.

The predecessor is that of Ciresan et al. (NIPS 2012), which the paper's section 1 starts from: a classifier scores the
central pixel of a patch, so that each pixel of an image takes a pass of its own.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from monai.bundle import ConfigParser
from torch import nn
from unet_monai.data import draw_cells
from unet_monai.inferers import OverlapTileInferer
from unet_monai.networks.tile_shapes import mirrored_indices

from benchmarks.harness import REPOSITORY, Row, alternate, faster

SIZE = (512, 512)
PIXELS = 1000
# Larger batches take longer per patch, because the maps of a batch leave the processor's cache.
BATCH = 4
MEGAPIXEL = 1e6


def patch_classifier(features: Sequence[int], side: int) -> nn.Sequential:
    """Build a classifier of the central pixel of a patch: the U-Net's contracting path, then one linear layer.

    It is as fast as can be: no normalisation (the U-Net's is part of its convolutions then), channels last in memory.

    Args:
        features: channels of each level, as those of the U-Net.
        side: side of the patch in pixels.

    Returns:
        A network from (N, 1, side, side) to the scores (N, 2).
    """
    layers: list[nn.Module] = []
    channels, width = 1, side
    for level, out_channels in enumerate(features):
        if level:
            layers.append(nn.MaxPool2d(2))
            width //= 2
        for _ in range(2):
            layers += [nn.Conv2d(channels, out_channels, 3), nn.ReLU(inplace=True)]
            channels, width = out_channels, width - 2
    classifier = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * width**2, 2))
    return classifier.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def pixel_patches(image: torch.Tensor, side: int) -> torch.Tensor:
    """Give every pixel the patch around it, mirrored beyond the image's edges (edge pixel not repeated).

    Args:
        image: (C, H, W).
        side: side of the patches, odd; a pixel lies in the middle of its patch.

    Returns:
        (H, W, C, side, side), a view that holds no pixel twice: index it by pixels to get a batch.

    Raises:
        ValueError: when ``side`` is even.
    """
    if side % 2 == 0:
        raise ValueError(f"side must be odd, got {side}.")
    reach = side // 2
    rows, columns = (mirrored_indices(-reach, n + reach, n) for n in image.shape[1:])
    mirrored = image[:, rows[:, None], columns]
    return mirrored.unfold(1, side, 1).unfold(2, side, 1).movedim(0, 2)


def rows(options: Namespace) -> Iterator[Row]:
    """Compare both per megapixel, each with the widths of `train.json`."""
    config = ConfigParser(ConfigParser.load_config_file(str(REPOSITORY / "bundle/configs/train.json")))
    network = config.get_parsed_content("network_def").eval()
    side = 2 * network.border[0] + 1
    classifier = patch_classifier(config["network_def#features"], side)
    image = torch.as_tensor(draw_cells(seed=0, size=SIZE)[0].astype(np.float32) / 255)[None]
    patches = pixel_patches(image, side)
    pixels = torch.randint(SIZE[0] * SIZE[1], (PIXELS,), generator=torch.Generator().manual_seed(0))
    inferer = OverlapTileInferer()

    @torch.inference_mode()
    def dense() -> None:
        inferer(image[None], network)

    @torch.inference_mode()
    def per_pixel() -> None:
        for batch in pixels.split(BATCH):
            classifier(patches[batch // SIZE[1], batch % SIZE[1]])

    dense_seconds, patch_seconds = alternate((dense, per_pixel), options.rounds)
    yield faster(
        "a megapixel by the U-Net, overlap-tile",
        f"a megapixel by a classifier of one {side} px patch per pixel",
        [MEGAPIXEL / (SIZE[0] * SIZE[1]) * seconds for seconds in dense_seconds],
        [MEGAPIXEL / PIXELS * seconds for seconds in patch_seconds],
        None,
        f"untrained networks of the same widths and context; scaled linearly from {PIXELS} pixels in batches of "
        f"{BATCH}, and from an image of {SIZE[0]} x {SIZE[1]}",
    )
