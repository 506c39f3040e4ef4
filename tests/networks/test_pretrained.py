from __future__ import annotations

import logging
from math import nan
from pathlib import Path
from typing import Any

import pytest
import torch
from unet_monai.networks import ValidUNet, load_pretrained

BUFFERS = ("image_scale", "image_smoothing", "cell_diameter")


def make(seed: int, **options: Any) -> ValidUNet:
    torch.manual_seed(seed)
    return ValidUNet(**{"features": (2, 4), "norm": "batch", "out_channels": 3, **options})


def save(folder: Path, **options: Any) -> str:
    network = make(1, **options)
    for name, tensor in network.state_dict().items():
        if name not in BUFFERS:
            # Biases and running statistics that no fresh network has.
            tensor.add_(1)
    torch.save(network.state_dict(), folder / "model.pt")
    return str(folder / "model.pt")


def loaded(network: ValidUNet, path: str) -> tuple[set[str], set[str]]:
    """Load, and return the names that then equal the file, and those that equal what they were."""
    fresh = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert load_pretrained(network, path) is network
    learnt = torch.load(path, weights_only=True)
    now = network.state_dict()
    of_file = {name for name in now if name in learnt and torch.equal(now[name], learnt[name])}
    return of_file, {name for name in now if torch.equal(now[name], fresh[name])}


def test_none_leaves_the_network_as_it_is() -> None:
    network = make(0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert load_pretrained(network, None) is network
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0, equal_nan=True)


def test_all_weights_and_statistics_but_the_size_of_the_cells(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="unet_monai")
    path = save(tmp_path, image_scale=0.5, image_smoothing=1, cell_diameter=50)
    network = make(0, image_scale=0.75, image_smoothing=0.5, cell_diameter=40)
    of_file, untouched = loaded(network, path)
    assert untouched == set(BUFFERS)
    assert of_file | untouched == set(network.state_dict())
    assert (network.image_scale, network.image_smoothing, network.cell_diameter) == (0.75, 0.5, 40)
    assert caplog.messages == [
        f"starting from the weights of {path}",
        "cells as the network sees them: 25.0 px across in the earlier training, 30.0 px now",
    ]


@pytest.mark.parametrize(
    ("options", "layers", "lines"),
    [
        ({"in_channels": 2}, ["input_block.conv1"], ["input_block.conv1 starts anew, with 2 channels instead of 1"]),
        ({"out_channels": 5}, ["output_conv"], ["output_conv starts anew, with 5 classes instead of 3"]),
        (
            {"in_channels": 4, "out_channels": 2},
            ["input_block.conv1", "output_conv"],
            [
                "input_block.conv1 starts anew, with 4 channels instead of 1",
                "output_conv starts anew, with 2 classes instead of 3",
            ],
        ),
    ],
)
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_other_channels_and_classes(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    spatial_dims: int,
    options: dict[str, int],
    layers: list[str],
    lines: list[str],
) -> None:
    caplog.set_level(logging.INFO, logger="unet_monai")
    path = save(tmp_path, spatial_dims=spatial_dims)
    network = make(0, spatial_dims=spatial_dims, cell_diameter=30, **options)
    of_file, untouched = loaded(network, path)
    anew = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    assert untouched == anew | set(BUFFERS)
    assert of_file == set(network.state_dict()) - anew - {"cell_diameter"}
    assert caplog.messages[1:-1] == lines


@pytest.mark.parametrize(
    ("options", "name", "theirs", "ours"),
    [
        ({"features": (3, 4)}, "input_block.conv1.weight", "(2, 1, 3, 3)", "(3, 1, 3, 3)"),
        ({"features": (3, 4), "in_channels": 2}, "input_block.conv1.weight", "(2, 1, 3, 3)", "(3, 2, 3, 3)"),
        ({"features": (2, 5)}, "downs.0.convs.conv1.weight", "(4, 2, 3, 3)", "(5, 2, 3, 3)"),
        ({"features": (2, 4, 8)}, "downs.1.convs.conv1.weight", "None", "(8, 4, 3, 3)"),
        ({"kernel_size": 5}, "input_block.conv1.weight", "(2, 1, 3, 3)", "(2, 1, 5, 5)"),
        ({"spatial_dims": 3}, "input_block.conv1.weight", "(2, 1, 3, 3)", "(2, 1, 3, 3, 3)"),
        ({"norm": None}, "input_block.norm1.weight", "(2,)", "None"),
    ],
)
def test_any_other_difference_is_refused(
    tmp_path: Path, options: dict[str, Any], name: str, theirs: str, ours: str
) -> None:
    path = save(tmp_path)
    network = make(0, **options)
    before = network.output_conv.weight.clone()
    with pytest.raises(ValueError, match="pretrained must fit the network in all but channels and classes") as error:
        load_pretrained(network, path)
    assert str(error.value).endswith(f", got {name} of shape {theirs} for {ours}.")
    assert torch.equal(network.output_conv.weight, before), "nothing is loaded"


def test_a_training_state_is_not_taken_for_weights(tmp_path: Path) -> None:
    torch.save({"network": make(1).state_dict(), "epoch": 3}, tmp_path / "last.pt")
    with pytest.raises(ValueError, match=r"got image_scale of shape None for \(\)\."):
        load_pretrained(make(0), str(tmp_path / "last.pt"))


def test_a_missing_file(tmp_path: Path) -> None:
    for missing in (tmp_path / "model.pt", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"pretrained must be an existing file, got .*\.") as error:
            load_pretrained(make(0), str(missing))
        assert str(missing) in str(error.value)


@pytest.mark.parametrize(
    ("learnt", "now", "remedy"),
    [
        # (image_scale, cell_diameter) of both; 20 px to the network before.
        ((0.5, 40), (1.0, 20), None),
        ((0.5, 40), (0.5, 79), None),
        ((0.5, 40), (0.5, 80), "0.25"),
        ((0.5, 40), (1.0, 10), "2"),
        ((0.5, 40), (1.0, 10.1), None),
        ((1.0, 20), (0.4, 150), "0.133"),
        ((0.5, nan), (1.0, 10), None),
        ((0.5, 40), (1.0, nan), None),
    ],
)
def test_cells_of_another_size_are_warned_of(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    learnt: tuple[float, float],
    now: tuple[float, float],
    remedy: str | None,
) -> None:
    path = save(tmp_path, image_scale=learnt[0], cell_diameter=learnt[1])
    load_pretrained(make(0, image_scale=now[0], cell_diameter=now[1]), path)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    text = "one is at least twice the other: --scale {} shows the network these cells as it learnt them"
    assert warnings == ([] if remedy is None else [text.format(remedy)])
    if remedy is not None:
        # With the remedy the cells have the size that was learnt.
        caplog.clear()
        load_pretrained(make(0, image_scale=float(remedy), cell_diameter=now[1]), path)
        assert not caplog.records
