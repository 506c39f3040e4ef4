"""A training that takes a fraction of a second: everything that the bundle's has, in small."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, MeanAbsoluteError, ValidationHandler, from_engine
from monai.optimizers import WarmupCosineSchedule
from monai.transforms import Compose, RandGaussianNoised
from unet_monai.data import DrawSampler, TileDataset
from unet_monai.handlers import (
    CheckpointHandler,
    DivergenceHandler,
    EpochSeedHandler,
    ResumeHandler,
    WeightAveragingHandler,
)
from unet_monai.losses import WeightedCrossEntropyLoss
from unet_monai.networks import ValidUNet


class Training(NamedTuple):
    trainer: SupervisedTrainer
    evaluator: SupervisedEvaluator
    network: ValidUNet
    averaged_network: ValidUNet
    optimizer: torch.optim.Optimizer
    lr_scheduler: WarmupCosineSchedule
    weights_path: Path
    state_path: Path

    @property
    def resume_handler(self) -> ResumeHandler:
        parts = (self.network, self.averaged_network, self.optimizer, self.lr_scheduler, self.evaluator)
        return ResumeHandler(str(self.state_path), *parts, map_location="cpu")


def items(count: int) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    images = random.random((count, 1, 20, 20), dtype=np.float32)
    targets = [np.concatenate([image[:, 8:-8, 8:-8].round(), np.ones((1, 4, 4), np.float32)]) for image in images]
    return [{"image": image, "label": target} for image, target in zip(images, targets, strict=True)]


def make_training(
    folder: Path, *, epochs: int, resume: bool = False, validate: bool = True, steps_per_epoch: int = 2
) -> Training:
    """Build a training with dropout, random tiles, a schedule and (if `validate`) a key metric, seeded with 0."""
    torch.manual_seed(0)
    network = ValidUNet(features=(2, 4), norm="batch", dropout=0.5, cell_diameter=9)
    averaged = deepcopy(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    lr_scheduler = WarmupCosineSchedule(optimizer, warmup_steps=0, t_total=epochs)
    tiles = TileDataset(items(3), Compose([RandGaussianNoised("image", prob=1.0)]), progress=False)
    error = MeanAbsoluteError(output_transform=lambda output: cell_probability(from_engine(["pred", "label"])(output)))
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items(2) if validate else []), batch_size=1),
        network=averaged,
        key_val_metric={"error": error},
        metric_cmp_fn=lambda current, best: current < best,
    )
    folder.mkdir(parents=True, exist_ok=True)
    weights_path, state_path = folder / "models" / "model.pt", folder / "output" / "last.pt"
    handlers = [
        EpochSeedHandler(seed=0),
        DivergenceHandler(network),
        WeightAveragingHandler(network, averaged, steps=3),
        LrScheduleHandler(lr_scheduler, print_lr=False),
        *([ValidationHandler(1, evaluator)] if validate else []),
        CheckpointHandler(str(weights_path), str(state_path), network, averaged, optimizer, evaluator),
    ]
    training = Training(None, evaluator, network, averaged, optimizer, lr_scheduler, weights_path, state_path)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=DataLoader(tiles, batch_size=2, sampler=DrawSampler(tiles, num_samples=2 * steps_per_epoch)),
        network=network,
        optimizer=optimizer,
        loss_function=WeightedCrossEntropyLoss(),
        train_handlers=[training.resume_handler, *handlers] if resume else handlers,
    )
    return training._replace(trainer=trainer)


def cell_probability(output: tuple[list[torch.Tensor], list[torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the probability of a cell and the true class."""
    pred, label = (torch.stack(list(values)) for values in output)
    return pred.softmax(dim=1)[:, 1], label[:, 0]
