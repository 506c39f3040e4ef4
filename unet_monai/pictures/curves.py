"""Draw how a training went: loss and measures against epochs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure


@dataclass
class EpochResult:
    """What one epoch of a training came to.

    Attributes:
        epoch: its number, from 1.
        loss: mean loss of its steps.
        loss_low: 10th percentile of their losses.
        loss_high: 90th percentile of their losses.
        measures: value of each measure on the validation images; empty where the epoch was not validated.
    """

    epoch: int
    loss: float
    loss_low: float
    loss_high: float
    measures: dict[str, float] = field(default_factory=dict)


def draw_curves(epochs: Sequence[EpochResult], best_epoch: int | None = None) -> bytes:
    """Draw the loss of all epochs and, beside it, each measure of the validated ones.

    Args:
        epochs: the epochs in their order.
        best_epoch: the epoch to mark; None for none.

    Returns:
        The picture, PNG.

    Raises:
        ValueError: when there is no epoch.

    Example:
        >>> draw_curves([EpochResult(1, 0.7, 0.6, 0.8, {"SEG": 0.1})], best_epoch=1)[1:4]
        b'PNG'
    """
    if not epochs:
        raise ValueError("epochs must hold at least one, got none.")
    validated = [epoch for epoch in epochs if epoch.measures]
    names = list(dict.fromkeys(name for epoch in validated for name in epoch.measures))
    # Made without pyplot, which would keep the figure and may look for a screen.
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    loss_axes, *measure_axes = figure.subplots(1, 2 if names else 1, squeeze=False)[0]
    numbers = [epoch.epoch for epoch in epochs]
    low, high = ([getattr(epoch, edge) for epoch in epochs] for edge in ("loss_low", "loss_high"))
    loss_axes.fill_between(numbers, low, high, alpha=0.25, label="middle 80 % of the steps")
    loss_axes.plot(numbers, [epoch.loss for epoch in epochs], marker=".", label="mean of the epoch")
    loss_axes.set(xlabel="epoch", ylabel="training loss")
    for axes in measure_axes:
        for name, marker in zip(names, "osv^Dx*P<>" * len(names), strict=False):
            points = [(epoch.epoch, epoch.measures[name]) for epoch in validated if name in epoch.measures]
            axes.plot(*zip(*points, strict=True), marker=marker, markersize=4, label=name)
        axes.set(xlabel="epoch", ylabel="on the validation images")
    for axes in (loss_axes, *measure_axes):
        if best_epoch is not None:
            axes.axvline(best_epoch, color="grey", linestyle="--", linewidth=1, label=f"best epoch, {best_epoch}")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    return file.getvalue()
