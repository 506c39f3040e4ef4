from __future__ import annotations

from pathlib import Path

import pytest
import torch
from unet_monai.export import save_onnx, save_torch_program
from unet_monai.networks import ValidUNet


def draw_network(**settings: object) -> ValidUNet:
    """A small network whose two axes differ, with statistics that batch normalisation has to apply."""
    torch.manual_seed(2015)
    small = {"features": (2, 4), "kernel_size": (3, 5), "norm": "batch", "out_channels": 3, "dropout": 0.0}
    network = ValidUNet(**{**small, **settings})  # type: ignore[arg-type]
    for name, statistics in network.named_buffers():
        if name.endswith("running_mean"):
            statistics.uniform_(-1.0, 0.0)  # so that few channels fall silent
        elif name.endswith("running_var"):
            statistics.uniform_(0.5, 1.5)
    return network.eval()


@pytest.fixture(scope="session")
def network() -> ValidUNet:
    return draw_network(image_scale=0.8, image_smoothing=0.7, cell_diameter=20)


@pytest.fixture(scope="session")
def onnx_file(network: ValidUNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    save_onnx(network, path)
    return path


@pytest.fixture(scope="session")
def torch_file(network: ValidUNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("torch") / "model.pt2"
    save_torch_program(network, path)
    return path
