"""Networks and images for the tests of large images."""

from __future__ import annotations

from typing import Any

import torch

from unet_monai.networks import ValidUNet


def make_network(seed: int = 0, **options: Any) -> ValidUNet:
    torch.manual_seed(seed)
    return ValidUNet(**{"features": (2, 4, 8), "out_channels": 3, "norm": "batch", "dropout": 0.0, **options}).eval()
