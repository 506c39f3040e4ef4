"""Decide which weights inference uses, say so, and check that they fit the network."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unet_monai.networks.valid_unet import settings_of_weights

logger = logging.getLogger(__name__)


def find_weights(
    bundle_root: str, checkpoint: str | None = None, ckpt_dir: str | None = None, *, network: nn.Module | None = None
) -> str:
    """Find the weights: ``checkpoint`` if given, else what training wrote, else what the bundle was shipped with.

    Args:
        bundle_root: folder of the bundle; training writes ``models/model.pt`` in it, and ``weights/`` is shipped.
        checkpoint: path given by the user, or None.
        ckpt_dir: where training writes ``model.pt`` instead of ``models/``, or None.
        network: the ``ValidUNet`` that the weights are for; None leaves the file unread.

    Returns:
        The path of the weights; it is logged.

    Raises:
        FileNotFoundError: when the given file does not exist, or none was given and there is none.
        ValueError: when several files were shipped and none is given, when the file holds something else than weights,
            and when these are of another network; names the settings of theirs.
    """
    root = Path(bundle_root)
    trained = (root / "models" if ckpt_dir is None else Path(ckpt_dir)) / "model.pt"
    shipped = sorted((root / "weights").glob("*.pt"))
    if checkpoint is not None:
        path = Path(checkpoint)
        if not path.is_file():
            raise FileNotFoundError(f"checkpoint must be an existing file, got {checkpoint}.")
    elif trained.is_file():
        path = trained
    elif len(shipped) == 1:
        path = shipped[0]
    elif shipped:
        raise ValueError(f"checkpoint must name one of {', '.join(map(str, shipped))}, got None.")
    else:
        raise FileNotFoundError(f"no weights at {trained}: train first, or give a file with --checkpoint.")
    logger.info("weights: %s", path)
    if network is not None:
        _check_fit(path, network)
    return str(path)


def _check_fit(path: Path, network: nn.Module) -> None:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # wrong bytes lead to any
        raise ValueError(
            f"checkpoint must be a file of weights such as model.pt, got {path} ({type(error).__name__})."
        ) from None
    ours, theirs = _shapes(network.state_dict()), _shapes(state)
    if ours == theirs:
        return
    try:
        wanted, given = _settings(ours), _settings(theirs)
    except KeyError as missing:
        raise ValueError(
            f"checkpoint must hold the weights of a ValidUNet, got none for {missing} in {path}."
        ) from None
    options = " ".join(f"--{name} {value}" for name, value in given.items() if value != wanted[name])
    if options:
        raise ValueError(f"checkpoint must fit the network, got the weights of another one, {path}: add {options}")
    name = min(name for name in ours | theirs if ours.get(name) != theirs.get(name))
    raise ValueError(
        f"checkpoint must fit the network, got {name} of shape {theirs.get(name)} for {ours.get(name)} in {path}."
    )


def _shapes(state: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights in a file: a plain state dict, or one under ``model``, as MONAI saves it."""
    weights = state.get("model", state) if isinstance(state, Mapping) else {}
    return {name: tuple(weight.shape) for name, weight in weights.items() if isinstance(weight, torch.Tensor)}


def _settings(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Write the settings of the network that has these weights, as one would on the command line."""
    settings = settings_of_weights(shapes)
    features = ",".join(map(str, settings["features"]))
    return {
        "spatial_dims": str(settings["spatial_dims"]),
        "in_channels": str(settings["in_channels"]),
        "network_def#features": f"[{features}]",
        "network_def#out_channels": str(settings["out_channels"]),
        "network_def#norm": settings["norm"] or "'$None'",
    }
