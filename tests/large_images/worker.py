"""Segment an image as one of several processes: python -m tests.large_images.worker IMAGE WEIGHTS OUTPUT [SETTINGS]."""

from __future__ import annotations

import json
import sys

from unet_monai.large_images import BlockSettings, LargeImageSegmenter, open_image
from unet_monai.networks import load_network
from unet_monai.transforms import LogitsToInstances


def main(image: str, weights: str, output: str, settings: str = "{}") -> None:
    blocks = BlockSettings(**{"reach": 16, "chunk": 32, "memory_budget": 10**6, **json.loads(settings)})
    # Of an untrained network: these thresholds split its scores into many cells.
    knobs = LogitsToInstances(threshold=0.25, edge_threshold=0.52, min_size=4)
    LargeImageSegmenter(
        open_image(image), load_network(weights), knobs, output, blocks, save_scores=True, save_tiff=True
    ).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
