"""Exported graphs score as the network does, at any batch and tile size."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest
import torch
from unet_monai.export import save_onnx
from unet_monai.networks import NetworkTraits, OnnxNetwork, ValidUNet

from tests.bundle.conftest import REPOSITORY
from tests.export.conftest import draw_network

# The borders are 8 and 16 px, and sides are even: the first is the smallest tile.
TILES = [(1, (18, 34)), (1, (60, 34)), (2, (22, 46)), (3, (40, 40))]


@pytest.mark.parametrize(("batch", "size"), TILES)
def test_onnx_scores_as_torch_does(network: ValidUNet, onnx_file: Path, batch: int, size: tuple[int, int]) -> None:
    tiles = torch.rand(batch, 1, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(tiles)
        scores = OnnxNetwork(onnx_file)(tiles)
    assert expected.std() > 0.01, "test invalid: all scores are alike"
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-4)


def test_the_shipped_weights_score_as_in_torch(tmp_path: Path) -> None:
    network = ValidUNet.from_state_dict(torch.load(REPOSITORY / "bundle" / "weights" / "nuclei.pt", weights_only=True))
    save_onnx(network.eval(), tmp_path / "nuclei.onnx")
    tiles = torch.rand(2, 1, 204, 236, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(OnnxNetwork(tmp_path / "nuclei.onnx")(tiles), network(tiles), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("batch", "size"), TILES)
def test_torch_program_scores_as_the_network_does(
    network: ValidUNet, torch_file: Path, batch: int, size: tuple[int, int]
) -> None:
    tiles = torch.rand(batch, 1, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        scores = torch.export.load(torch_file).module()(tiles)
        torch.testing.assert_close(scores, network(tiles), rtol=0, atol=1e-6)


def test_torch_program_refuses_sizes_that_the_poolings_do_not_fit(torch_file: Path) -> None:
    with pytest.raises(AssertionError, match=r"Guard failed: .*% 2"):
        torch.export.load(torch_file).module()(torch.zeros(1, 1, 41, 40))


def test_both_files_hold_the_traits(network: ValidUNet, onnx_file: Path, torch_file: Path) -> None:
    expected = NetworkTraits(
        (8, 16), (1, 1), network.bytes_per_pixel, 1, 3, *(float(torch.tensor(v)) for v in (0.8, 0.7, 20))
    )
    in_onnx = {prop.key: prop.value for prop in onnx.load(onnx_file).metadata_props}
    in_torch = dict.fromkeys(NetworkTraits._fields, "")
    torch.export.load(torch_file, extra_files=in_torch)
    assert NetworkTraits.from_texts(in_onnx) == expected
    assert NetworkTraits.from_texts(in_torch) == expected


def test_batch_normalisation_is_folded_into_the_convolutions(onnx_file: Path) -> None:
    operators = {node.op_type for node in onnx.load(onnx_file).graph.node}
    assert operators == {"Conv", "Relu", "MaxPool", "ConvTranspose", "Slice", "Concat"}


def test_network_of_three_axes_one_without_pooling(tmp_path: Path) -> None:
    network = draw_network(spatial_dims=3, kernel_size=3, pool_size=[[2, 2, 1]], in_channels=2)
    save_onnx(network, tmp_path / "model.onnx")
    for size in ((18, 20, 14), (20, 18, 15)):
        tiles = torch.rand(2, 2, *size, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            expected = network(tiles)
        torch.testing.assert_close(OnnxNetwork(tmp_path / "model.onnx")(tiles), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("module", ["onnx", "onnxscript.optimizer"])
def test_missing_extra_is_named(
    module: str, network: ValidUNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("unet_monai.export.graphs.export_tiles", lambda network: None)
    with pytest.raises(
        ModuleNotFoundError, match=rf'{module} must be installed, by: pip install "unet-monai\[export\]"'
    ):
        save_onnx(network, tmp_path / "model.onnx")
