from __future__ import annotations

from pathlib import Path

import pytest
import torch
from unet_monai.networks import ValidUNet
from unet_monai.networks.weights_file import check_weights_fit, load_network, read_weights_file


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


def test_loads_a_network_ready_to_score(tmp_path: Path) -> None:
    trained = ValidUNet(features=(2, 4), dropout=0.5, norm="batch")
    torch.save(trained.state_dict(), tmp_path / "a.pt")
    network = load_network(tmp_path / "a.pt")
    assert not network.training
    pixels = torch.rand(1, 1, 28, 28)
    assert torch.equal(network(pixels), trained.eval()(pixels))


def test_files_that_are_no_network(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^weights must be an existing file, got .*none\.pt\.$"):
        load_network(tmp_path / "none.pt")
    torch.save({"network": {}, "epoch": 3}, tmp_path / "last.pt")
    with pytest.raises(ValueError, match=r"^weights must be those of a ValidUNet, got .*last\.pt: state must"):
        load_network(tmp_path / "last.pt")
    flat = {name: torch.ones(2) for name in ValidUNet(features=(2, 4)).state_dict()}
    for state, reason in (({0: torch.ones(2)}, "state must"), (flat, "")):
        torch.save(state, tmp_path / "other.pt")
        with pytest.raises(ValueError, match=rf"^weights must be those of a ValidUNet, got .*other\.pt: {reason}"):
            load_network(tmp_path / "other.pt")
    mixed = ValidUNet(features=(2, 4)).state_dict() | {"other.weight": torch.ones(1)}
    torch.save(mixed, tmp_path / "mixed.pt")
    with pytest.raises(ValueError, match=r"^weights must be those of a ValidUNet, got .*mixed\.pt: .*other\.weight"):
        load_network(tmp_path / "mixed.pt")
