"""Average the scores of mirrored and rotated copies of an image, https://arxiv.org/abs/1505.04597 section 4."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any, NamedTuple

import torch
from monai.inferers.inferer import Inferer

VIEW_SETS = ("identity", "mirrors", "rotations", "all")


class View(NamedTuple):
    """A copy of an image: mirrored along some axes, then turned.

    Attributes:
        mirrored: spatial axes to mirror, counted from 0.
        quarter_turns: turns by 90 degrees in the plane of the first two spatial axes.
    """

    mirrored: tuple[int, ...]
    quarter_turns: int

    def apply(self, image: torch.Tensor) -> torch.Tensor:
        """Make the copy of an image (B, C, *S)."""
        return torch.rot90(image.flip([axis + 2 for axis in self.mirrored]), self.quarter_turns, (2, 3))

    def undo(self, scores: torch.Tensor) -> torch.Tensor:
        """Turn the scores of the copy (B, K, *S') back into the image's frame (B, K, *S)."""
        return torch.rot90(scores, -self.quarter_turns, (2, 3)).flip([axis + 2 for axis in self.mirrored])


def view_set(name: str, spatial_dims: int) -> list[View]:
    """List the views of a named set, each once, the image itself first.

    ``"identity"`` is the image alone; ``"mirrors"`` mirrors every choice of axes (4 views in 2-D, 8 in 3-D);
    ``"rotations"`` turns by 0, 90, 180 and 270 degrees in the plane of the first two axes; ``"all"`` is every
    combination of both (8 views in 2-D, 16 in 3-D).

    Raises:
        ValueError: for another name, or fewer than two axes.

    Example:
        >>> view_set("mirrors", 2)[3]
        View(mirrored=(0, 1), quarter_turns=0)
    """
    if name not in VIEW_SETS:
        raise ValueError(f"views must be one of {', '.join(VIEW_SETS)}, got {name!r}.")
    if spatial_dims < 2:
        raise ValueError(f"spatial_dims must be at least 2, got {spatial_dims}.")
    axes = range(spatial_dims)
    mirrors = [choice for count in range(spatial_dims + 1) for choice in combinations(axes, count)]
    # Mirroring both axes of the plane is a half turn, so "all" takes each turn with its first axis as it is.
    still: list[tuple[int, ...]] = [()]
    unturned = {"identity": still, "mirrors": mirrors, "rotations": still, "all": [m for m in mirrors if 0 not in m]}
    turns = range(4) if name in ("rotations", "all") else range(1)
    return [View(mirrored, quarter_turns) for quarter_turns in turns for mirrored in unturned[name]]


class ViewAveragingInferer(Inferer):
    """Score mirrored and rotated copies of an image with another inferer, and average the scores before the softmax.

    Source: https://arxiv.org/abs/1505.04597, section 4, averages over "7 rotated versions of the input data", which
    quarter turns alone cannot be; the authors' release averages four mirrored ones, the set ``"mirrors"`` in 2-D.

    Args:
        inferer: scores one copy, for example an :class:`OverlapTileInferer`; it sees each copy as an image of its own.
        views: ``"identity"``, ``"mirrors"``, ``"rotations"`` or ``"all"``; see :func:`view_set`.

    Raises:
        ValueError: for another set of views.

    Example:
        >>> from unet_monai.inferers import OverlapTileInferer
        >>> average = ViewAveragingInferer(OverlapTileInferer(border=1, poolings=0), views="all")
        >>> average(torch.ones(1, 1, 4, 6), lambda tile: tile[:, :, 1:-1, 1:-1]).shape
        torch.Size([1, 1, 4, 6])
    """

    def __init__(self, inferer: Inferer, views: str = "mirrors") -> None:
        super().__init__()
        view_set(views, spatial_dims=2)
        self.inferer = inferer
        self.views = views

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Score a batch of images.

        Args:
            inputs: images (B, C, *S), two spatial axes or more; metadata travels if the inner inferer keeps it.
            network: what the inner inferer calls.
            args: passed on.
            kwargs: passed on.

        Returns:
            Mean scores (B, K, *S).
        """
        first, *others = view_set(self.views, inputs.ndim - 2)
        scores = first.undo(self.inferer(first.apply(inputs), network, *args, **kwargs)).clone()
        for view in others:
            scores += view.undo(self.inferer(view.apply(inputs), network, *args, **kwargs))
        return scores / (1 + len(others))
