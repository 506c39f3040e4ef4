"""Read a file of weights without running what it holds, and say how its network differs from ours."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn
from unet_monai.networks.valid_unet import ValidUNet, settings_of_weights, shapes_of_weights


def read_weights_file(path: str | PathLike[str], name: str, map_location: torch.device | str = "cpu") -> dict[str, Any]:
    """Load a dictionary that ``torch.save`` wrote: tensors, numbers and texts only, never code.

    Args:
        path: the file, such as ``model.pt``; its format is Python's pickle, which can hold any program.
        name: what to call it in errors, such as the setting that named it.
        map_location: device of the tensors.

    Raises:
        ValueError: when the file is no such dictionary, or holds code, which is not run.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"weight": torch.ones(2)}, f"{folder}/model.pt")
        ...     read_weights_file(f"{folder}/model.pt", "checkpoint")
        {'weight': tensor([1., 1.])}
    """
    try:
        state = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # wrong bytes lead to any
        raise ValueError(
            f"{name} must be a file of weights such as model.pt, got {path} ({type(error).__name__})."
        ) from None
    if not isinstance(state, dict):
        raise ValueError(f"{name} must be a file of weights such as model.pt, got {path} ({type(state).__name__}).")
    return state


def load_network(weights: str | PathLike[str], device: torch.device | str = "cpu") -> ValidUNet:
    """Load a trained network, ready to score.

    Args:
        weights: path of its weights, such as ``bundle/models/model.pt``.
        device: where it is to compute.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it holds something else than the weights of a ValidUNet.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save(ValidUNet(features=(4, 8)).state_dict(), f"{folder}/model.pt")
        ...     load_network(f"{folder}/model.pt").border
        (8, 8)
    """
    if not Path(weights).is_file():
        raise FileNotFoundError(f"weights must be an existing file, got {weights}.")
    state = read_weights_file(weights, "weights")
    try:
        network = ValidUNet.from_state_dict(state)
    # Layers are missing, or too many, or not of the shapes that their names promise.
    except (ValueError, RuntimeError, IndexError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"weights must be those of a ValidUNet, got {weights}: {reason}") from None
    return network.to(device).eval()


def check_weights_fit(state: Any, network: nn.Module, *, name: str, path: str | Path) -> None:
    """Refuse weights of another network; the error names the settings of theirs, as on the command line.

    Args:
        state: the weights by their names; anything else does not fit.
        network: the network that they are for.
        name: what to call the weights in errors.
        path: the file that they were read from.

    Raises:
        ValueError: when a weight is missing, too many, or of another shape.
    """
    ours, theirs = shapes_of_weights(network.state_dict()), shapes_of_weights(state)
    if ours == theirs:
        return
    try:
        wanted, given = options_of_weights(ours), options_of_weights(theirs)
    except KeyError as missing:
        raise ValueError(f"{name} must hold the weights of a ValidUNet, got none for {missing} in {path}.") from None
    options = " ".join(f"--{key} {shlex.quote(value)}" for key, value in given.items() if value != wanted[key])
    if options:
        raise ValueError(f"{name} must fit the network, got the weights of another one, {path}: add {options}")
    layer = min(layer for layer in ours | theirs if ours.get(layer) != theirs.get(layer))
    raise ValueError(
        f"{name} must fit the network, got {layer} of shape {theirs.get(layer)} for {ours.get(layer)} in {path}."
    )


def options_of_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Write the settings of the network that has these weights as a command line has them, but for the quotes.

    Args:
        shapes: shape of each weight by its name, see `shapes_of_weights`.

    Raises:
        KeyError: when these are not the weights of a ValidUNet; holds the name of one that is missing.

    Example:
        >>> options_of_weights(shapes_of_weights(ValidUNet(features=(4, 8)).state_dict()))["network_def#features"]
        '[4,8]'
    """
    settings = settings_of_weights(shapes)
    features = ",".join(map(str, settings["features"]))
    return {
        "spatial_dims": str(settings["spatial_dims"]),
        "in_channels": str(settings["in_channels"]),
        "network_def#features": f"[{features}]",
        "network_def#out_channels": str(settings["out_channels"]),
        "network_def#norm": settings["norm"] or "$None",
    }
