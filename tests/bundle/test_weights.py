from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from unet_monai.bundle import find_weights
from unet_monai.networks import ValidUNet

from tests.bundle.conftest import REPOSITORY

SHIPPED = sorted((REPOSITORY / "bundle" / "weights").glob("*.pt"))


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"weights")


@pytest.mark.parametrize(
    ("present", "checkpoint", "found"),
    [
        (("own.pt", "models/model.pt", "weights/a.pt"), "own.pt", "own.pt"),
        (("models/model.pt", "weights/a.pt"), None, "models/model.pt"),
        (("models/other.pt", "weights/a.pt", "weights/readme.txt"), None, "weights/a.pt"),
        (("models/model.pt", "weights/a.pt", "weights/b.pt"), None, "models/model.pt"),
        (("weights/a.pt", "weights/b.pt"), "weights/b.pt", "weights/b.pt"),
    ],
)
def test_given_then_trained_then_shipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, present: tuple[str, ...], checkpoint: str | None, found: str
) -> None:
    caplog.set_level(logging.INFO, logger="unet_monai")
    put(tmp_path, *present)
    given = None if checkpoint is None else str(tmp_path / checkpoint)
    assert find_weights(str(tmp_path), given) == str(tmp_path / found)
    assert caplog.messages == [f"weights: {tmp_path / found}"]


def test_trained_weights_may_lie_elsewhere(tmp_path: Path) -> None:
    put(tmp_path, "models/model.pt", "elsewhere/model.pt")
    assert find_weights(str(tmp_path), ckpt_dir=str(tmp_path / "elsewhere")) == str(tmp_path / "elsewhere" / "model.pt")
    with pytest.raises(FileNotFoundError, match=r"no weights at .*nowhere.model\.pt"):
        find_weights(str(tmp_path), ckpt_dir=str(tmp_path / "nowhere"))


@pytest.mark.parametrize("present", [(), ("models/last.pt",), ("weights/readme.txt",)])
def test_none_at_all(tmp_path: Path, present: tuple[str, ...]) -> None:
    put(tmp_path, *present)
    with pytest.raises(FileNotFoundError, match=r"no weights at .*model\.pt: train first, or give .* --checkpoint\."):
        find_weights(str(tmp_path))


def test_a_given_file_that_is_missing_is_not_replaced_by_another(tmp_path: Path) -> None:
    put(tmp_path, "models/model.pt", "weights/a.pt")
    for checkpoint in (tmp_path / "other.pt", tmp_path / "models"):
        with pytest.raises(FileNotFoundError, match=r"checkpoint must be an existing file, got .*(other\.pt|models)\."):
            find_weights(str(tmp_path), str(checkpoint))


def test_several_shipped_files_are_a_choice(tmp_path: Path) -> None:
    put(tmp_path, "weights/a.pt", "weights/b.pt")
    with pytest.raises(ValueError, match=r"checkpoint must name one of .*a\.pt, .*b\.pt, got None\."):
        find_weights(str(tmp_path))


FEATURES = (2, 4, 8)


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({"features": (4, 8, 16)}, r"--network_def#features '\[4,8,16\]'"),
        ({"features": (2, 4)}, r"--network_def#features '\[2,4\]'"),
        ({"out_channels": 2}, "--network_def#out_channels 2"),
        ({"norm": None}, r"--network_def#norm '\$None'"),
        ({"in_channels": 3, "out_channels": 4}, "--in_channels 3 --network_def#out_channels 4"),
        ({"spatial_dims": 3}, "--spatial_dims 3"),
    ],
)
def test_weights_of_another_network_are_named_with_its_settings(tmp_path: Path, settings: dict, options: str) -> None:
    common = {"features": FEATURES, "out_channels": 3, "norm": "batch"}
    network, path = ValidUNet(**common), tmp_path / "model.pt"
    torch.save(ValidUNet(**{**common, **settings}).state_dict(), path)
    with pytest.raises(ValueError, match=rf"^checkpoint must fit the network, got .* {path}: add {options}$"):
        find_weights(str(tmp_path), str(path), network=network)
    for state in (network.state_dict(), {"model": network.state_dict()}):
        torch.save(state, path)
        assert find_weights(str(tmp_path), str(path), network=network) == str(path)


def test_a_difference_that_no_setting_names(tmp_path: Path) -> None:
    torch.save(ValidUNet(features=FEATURES, kernel_size=5).state_dict(), tmp_path / "a.pt")
    message = r"got downs\.0\.convs\.conv1\.weight of shape \(4, 2, 5, 5\) for \(4, 2, 3, 3\) in .*a\.pt\.$"
    with pytest.raises(ValueError, match=message):
        find_weights(str(tmp_path), str(tmp_path / "a.pt"), network=ValidUNet(features=FEATURES))


def test_files_that_hold_no_weights(tmp_path: Path) -> None:
    network = ValidUNet(features=FEATURES)
    torch.save(network.state_dict(), tmp_path / "cut.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "cut.pt").read_bytes()[:3000])
    (tmp_path / "empty.pt").touch()
    (tmp_path / "text.pt").write_text("no weights")
    torch.save(network, tmp_path / "code.pt")
    for name in ("cut.pt", "empty.pt", "text.pt", "code.pt"):
        with pytest.raises(ValueError, match=rf"must be a file of weights such as model\.pt, got .*{name} \(\w+\)\.$"):
            find_weights(str(tmp_path), str(tmp_path / name), network=network)
    torch.save({"network": network.state_dict(), "epoch": 3}, tmp_path / "last.pt")
    with pytest.raises(ValueError, match=r"must hold the weights of a ValidUNet, got none for '\S+' in .*last\.pt\.$"):
        find_weights(str(tmp_path), str(tmp_path / "last.pt"), network=network)


def test_at_most_one_file_is_shipped() -> None:
    """With several, inference without `--checkpoint` would not know which to take."""
    assert len(SHIPPED) <= 1


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_weights_are_small_and_fit_the_inference(path: Path) -> None:
    assert path.stat().st_size <= 25e6
    parser = ConfigParser()
    parser.read_config(str(REPOSITORY / "bundle" / "configs" / "inference.json"))
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    assert 1 < network.cell_diameter < 1000
    assert 0 < network.image_scale <= 1
