"""Networks and images for the tests of large images."""

from __future__ import annotations

from typing import Any

import torch
from unet_monai.networks import ValidUNet


def make_network(seed: int = 0, **options: Any) -> ValidUNet:
    torch.manual_seed(seed)
    return ValidUNet(**{"features": (2, 4, 8), "out_channels": 3, "norm": "batch", "dropout": 0.0, **options}).eval()


def make_finding_network(spatial_dims: int = 2) -> ValidUNet:
    """Make a small network that finds bright cells: an image comes through its skip connection, a little blurred."""
    network = ValidUNet(spatial_dims, features=(2, 4), out_channels=2, dropout=0.0).eval()
    for name, weight in network.state_dict().items():
        if name.endswith(("weight", "bias")):
            weight.zero_()
    middle, up = (1,) * spatial_dims, network.ups[0].convs
    network.input_block.conv1.weight.data[0, 0] = 0.5 / 3**spatial_dims
    network.input_block.conv1.weight.data[(0, 0, *middle)] += 0.5
    for conv, channel in ((network.input_block.conv2, 0), (up.conv1, 2), (up.conv2, 0)):
        conv.weight.data[(0, channel, *middle)] = 1
    network.output_conv.weight.data[:, 0].view(-1)[:] = torch.tensor([-20.0, 20.0])
    network.output_conv.bias.data[:] = torch.tensor([8.0, -8.0])
    return network
