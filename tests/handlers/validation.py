"""A training whose validation finds just the cells that a test wants, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import IgniteMetricHandler, ValidationHandler, from_engine
from monai.transforms import Lambdad
from unet_monai.metrics import DETMetric, SEGMetric


class Finder(torch.nn.Module):
    """Find the first `cells` cells of images that hold the numbers of their cells."""

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.cells = cells

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.where(image <= self.cells, image, 0)


def make_item(address: str, cells: int, size: tuple[int, ...] = (40, 20)) -> dict[str, torch.Tensor]:
    """Return an image with that many cells in MONAI's axis order (C, X, Y[, Z])."""
    label = np.zeros((1, *size), np.int32)
    for i in range(cells):
        label[:, 5 * i + 1 : 5 * i + 5, 2 : 8 + i] = i + 1
    image = MetaTensor(torch.from_numpy(label.astype(np.float32)), meta={"filename_or_obj": address})
    return {"image": image, "label": torch.from_numpy(label)}


ITEMS = [make_item("/data/two.png", 2), make_item("/data/four.png", 4), make_item("/data/three.png", 3)]


def make_metrics() -> dict[str, IgniteMetricHandler]:
    pairs = from_engine(["pred", "label"])
    return {
        name: IgniteMetricHandler(metric, output_transform=pairs)
        for name, metric in (("SEG", SEGMetric()), ("DET", DETMetric()))
    }


def make_evaluator(
    items: Sequence[dict], metrics: dict[str, IgniteMetricHandler], *, cells: int = 9, batch_size: int = 1
) -> SupervisedEvaluator:
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=batch_size),
        network=Finder(cells),
        postprocessing=Lambdad("pred", lambda pred: pred.int()),
        key_val_metric={"SEG": metrics["SEG"]},
        additional_metrics={"DET": metrics["DET"]},
    )


def make_trainer(evaluator: SupervisedEvaluator, found: Sequence[int], *, resumed_after: int = 0) -> Engine:
    """Return a trainer with a loss of 1 / step; after epoch i the network finds the first `found[i - 1]` cells."""
    trainer = Engine(lambda engine, batch: [{"loss": 1 / engine.state.iteration}])

    @trainer.on(Events.STARTED)
    def resume(engine: Engine) -> None:
        engine.state.epoch, engine.state.iteration = resumed_after, 4 * resumed_after

    @trainer.on(Events.EPOCH_COMPLETED)
    def learn(engine: Engine) -> None:
        evaluator.network.cells = found[engine.state.epoch - 1]

    ValidationHandler(1, evaluator).attach(trainer)
    return trainer
