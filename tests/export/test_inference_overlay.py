"""`inference_onnx.json` over `inference.json`: the same label images from the exported network."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image
from unet_monai.bundle.configs import find_configs
from unet_monai.data import draw_cells
from unet_monai.networks import ValidUNet

CONFIGS = Path(find_configs())


def segment_file(configs: list[str], image: Path, output_dir: Path, **settings: object) -> np.ndarray:
    # Of an untrained network: thresholds such that it finds something.
    knobs = {"threshold": 0.35, "edge_threshold": 0.9, "min_size": 3, "device": "$torch.device('cpu')"}
    workflow = ConfigWorkflow(
        [str(CONFIGS / name) for name in configs],
        workflow_type="infer",
        logging_file=False,
        input=str(image),
        output_dir=str(output_dir),
        **{**knobs, **settings},
    )
    workflow.initialize()
    workflow.run()
    return np.asarray(Image.open(output_dir / image.name))


def test_label_images_are_those_of_torch(
    network: ValidUNet, onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # the configs set it
    image = tmp_path / "cells.png"
    Image.fromarray(draw_cells(3, (72, 96))[0]).save(image)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    own = {"network_def#features": [2, 4], "network_def#kernel_size": [3, 5], "roi_size": 64}
    by_torch = segment_file(["inference.json"], image, tmp_path / "a", checkpoint=str(tmp_path / "model.pt"), **own)
    configs = ["inference.json", "inference_onnx.json"]
    by_onnx = segment_file(configs, image, tmp_path / "b", checkpoint=str(onnx_file), roi_size=64)
    assert by_torch.max() >= 2, "test invalid: no cells"
    assert np.array_equal(by_onnx, by_torch)


def test_handlers_are_those_of_inference_but_the_loader() -> None:
    inference, overlay = (
        json.loads((CONFIGS / name).read_text()) for name in ("inference.json", "inference_onnx.json")
    )
    loader, *others = inference["handlers"]
    assert loader["_target_"] == "CheckpointLoader"
    assert overlay["handlers"] == others
