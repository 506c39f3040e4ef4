from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from unet_monai.networks import OnnxNetwork


@pytest.fixture
def foreign_file(tmp_path: Path) -> Path:
    """A graph that another program wrote."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "relu.onnx")
    return tmp_path / "relu.onnx"


def test_file_of_another_program_is_refused(foreign_file: Path) -> None:
    with pytest.raises(ValueError, match=r"metadata must be those that unet_monai\.export writes, got none for border"):
        OnnxNetwork(foreign_file)


def test_provider_that_is_not_there_is_refused(foreign_file: Path) -> None:
    with pytest.raises(ValueError, match=r"providers must be among .*CPUExecutionProvider, got Abacus\."):
        OnnxNetwork(foreign_file, providers=["Abacus"])


def test_absent_file_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"path must be an existing ONNX file, got none\.onnx\."):
        OnnxNetwork("none.onnx")


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        ModuleNotFoundError, match=r'onnxruntime must be installed, by: pip install "unet-monai\[export'
    ):
        OnnxNetwork("none.onnx")
