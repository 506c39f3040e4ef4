"""The command line: what it writes, and errors of one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from unet_monai.export.__main__ import main
from unet_monai.networks import ValidUNet


@pytest.fixture
def weights(network: ValidUNet, tmp_path: Path) -> Path:
    torch.save(network.state_dict(), tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_writes_the_network_of_the_weights(
    network: ValidUNet, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = weights.with_suffix(".pt2")
    main(["torch", "--weights", str(weights), "--output", str(written)])
    tiles = torch.rand(1, 1, 40, 60, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(torch.export.load(written).module()(tiles), network(tiles))
    assert capsys.readouterr().out.startswith(f"wrote {written}, 0.")


def test_absent_weights_are_named() -> None:
    with pytest.raises(SystemExit, match=r"^error: weights must be an existing file, got none\.pt\.$"):
        main(["onnx", "--weights", "none.pt", "--output", "none.onnx"])


def test_missing_extra_is_one_line(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bioimageio.spec", None)
    with pytest.raises(
        SystemExit, match=r'^error: bioimageio.spec must be installed, by: pip install "unet-monai\[export\]"$'
    ):
        main(["bioimageio", "--weights", str(weights), "--output", str(weights.with_suffix(".zip"))])


def test_empty_authors_are_refused(weights: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: authors must be filled in, got ''\.$"):
        main(["bioimageio", "--weights", str(weights), "--output", "cells.zip", "--authors", ""])
