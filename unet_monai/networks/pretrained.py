"""Start a training from the weights of another one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from unet_monai.data.cell_size import diameters_disagree
from unet_monai.networks.valid_unet import ValidUNet, shapes_of_weights
from unet_monai.networks.weights_file import read_weights_file

logger = logging.getLogger(__name__)

# The layers that may differ: the axis of their weights that does, and what it counts.
OPEN_LAYERS = {"input_block.conv1": (1, "channels"), "output_conv": (0, "classes")}
# These tell of the training's own images.
OWN_BUFFERS = ("image_scale", "image_smoothing", "cell_diameter")


def load_pretrained(network: ValidUNet, pretrained: str | None) -> ValidUNet:
    """Load the weights that a training starts from, as far as its channels and classes allow.

    With other ``in_channels`` the first convolution stays as it was drawn, with other ``out_channels`` the last one.
    The network keeps its own ``image_scale``, ``image_smoothing`` and ``cell_diameter``. What stays, and how large the
    cells of both trainings are to the network, is logged, with a warning if one is at least twice the other.

    Args:
        network: the network to train; its weights are replaced in place.
        pretrained: path of the weights, such as ``models/model.pt`` of another training; None leaves all as it is.

    Returns:
        The network.

    Raises:
        FileNotFoundError: when the file does not exist.
        ValueError: when it holds weights of another network, naming the first that differs, or no weights.

    Example:
        >>> load_pretrained(ValidUNet(features=(2, 4)), None).image_scale
        tensor(1.)
    """
    if pretrained is None:
        return network
    if not Path(pretrained).is_file():
        raise FileNotFoundError(f"pretrained must be an existing file, got {pretrained}.")
    learnt = read_weights_file(pretrained, "pretrained")
    logger.info("starting from the weights of %s", pretrained)
    anew = _layers_that_start_anew(network.state_dict(), learnt)
    kept = {name: w for name, w in learnt.items() if name not in OWN_BUFFERS and _layer(name) not in anew}
    network.load_state_dict(kept, strict=False)
    _compare_cells(network, learnt)
    return network


def _layers_that_start_anew(state: Mapping[str, torch.Tensor], learnt: Mapping[str, Any]) -> list[str]:
    """List the layers whose channels or classes differ; refuse any other difference."""
    ours, theirs = shapes_of_weights(state), shapes_of_weights(learnt)
    anew = []
    for layer, (axis, noun) in OPEN_LAYERS.items():
        new, old = ours[f"{layer}.weight"], theirs.get(f"{layer}.weight", ())
        if new != old and _without(new, axis) == _without(old, axis):
            anew.append(layer)
            logger.info("%s starts anew, with %d %s instead of %d", layer, new[axis], noun, old[axis])
    for name in ours | theirs:
        if ours.get(name) != theirs.get(name) and _layer(name) not in anew:
            raise ValueError(
                "pretrained must fit the network in all but channels and classes, "
                f"got {name} of shape {theirs.get(name)} for {ours.get(name)}."
            )
    return anew


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _compare_cells(network: ValidUNet, learnt: Mapping[str, torch.Tensor]) -> None:
    """Log how large the cells of both trainings are to the network, and warn if they need another scale."""
    diameter = float(network.cell_diameter)
    before, now = float(learnt["image_scale"] * learnt["cell_diameter"]), float(network.image_scale) * diameter
    logger.info("cells as the network sees them: %.1f px across in the earlier training, %.1f px now", before, now)
    if diameters_disagree(before, now):
        logger.warning(
            "one is at least twice the other: --scale %.3g shows the network these cells as it learnt them",
            before / diameter,
        )
