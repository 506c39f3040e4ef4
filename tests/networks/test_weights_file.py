from __future__ import annotations

from pathlib import Path

import pytest
import torch

from unet_monai.networks import ValidUNet
from unet_monai.networks.weights_file import check_weights_fit, read_weights_file


def test_reads_what_was_saved(tmp_path: Path) -> None:
    torch.save({"weight": torch.arange(3), "epoch": 2}, tmp_path / "a.pt")
    state = read_weights_file(tmp_path / "a.pt", "checkpoint")
    assert state["weight"].tolist() == [0, 1, 2]
    assert state["epoch"] == 2


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "EOFError"), (b"no weights", "UnpicklingError"), (b"PK\x03\x04", "RuntimeError")]
)
def test_bytes_that_are_no_weights(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"^here must be a file of weights such as model\.pt, got {path} \({reason}\)\.$"
    ):
        read_weights_file(path, "here")


def test_objects_that_are_no_weights(tmp_path: Path) -> None:
    for value, kind in ((torch.ones(2), "Tensor"), ([1], "list")):
        torch.save(value, tmp_path / "a.pt")
        with pytest.raises(ValueError, match=rf"^here must be a file of weights .*a\.pt \({kind}\)\.$"):
            read_weights_file(tmp_path / "a.pt", "here")


def test_fit() -> None:
    network, other = ValidUNet(features=(2, 4)), ValidUNet(features=(2, 4), out_channels=3)
    check_weights_fit(network.state_dict(), network, name="here", path="a.pt")
    with pytest.raises(
        ValueError, match=r"^here must fit the network, .* one, a\.pt: add --network_def#out_channels 3$"
    ):
        check_weights_fit(other.state_dict(), network, name="here", path="a.pt")
    for nothing in ({}, 5, {"weight": torch.ones(1)}):
        with pytest.raises(
            ValueError, match=r"^here must hold the weights of a ValidUNet, got none for '\S+' in a\.pt\.$"
        ):
            check_weights_fit(nothing, network, name="here", path="a.pt")
