"""Time a training step from files against the same step on a tensor in memory."""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, median

import torch
from monai.bundle import ConfigParser
from monai.engines import SupervisedTrainer

from benchmarks.harness import REPOSITORY, Row, alternate, cost

TARGET = 1.05
# Steps are timed in turn, one by one; a round is the mean of this many, for some transforms act on some tiles only.
STEPS = 10


def build_trainer(bundle_root: Path, **settings: object) -> SupervisedTrainer:
    """Build the trainer of `train.json` on the demo, which is drawn first; its epochs have one step and no handlers.

    Args:
        bundle_root: folder to draw the demo into.
        settings: further entries of the config to change.
    """
    config = ConfigParser(ConfigParser.load_config_file(str(REPOSITORY / "bundle/configs/train.json")))
    step_only = {"epochs": 1, "steps_per_epoch": 1, "train#trainer#train_handlers": []}
    config.update({"bundle_root": str(bundle_root), **step_only, **settings})
    return config.get_parsed_content("train#trainer")


def step_from_files(trainer: SupervisedTrainer) -> None:
    """Let the trainer go on for an epoch, which is one step on the next tile."""
    trainer.state.max_epochs = trainer.state.epoch + 1
    trainer.run()


def step_in_memory(trainer: SupervisedTrainer, image: torch.Tensor, target: torch.Tensor) -> None:
    """Take a step of the same network by the same optimiser: forward, backward and update, nothing else."""
    trainer.network.train()
    trainer.optimizer.zero_grad()
    trainer.loss_function(trainer.network(image), target).backward()
    trainer.optimizer.step()


def means(seconds: Sequence[float], count: int) -> list[float]:
    """Average each ``count`` consecutive values."""
    return [mean(seconds[i : i + count]) for i in range(0, len(seconds), count)]


def rows(options: Namespace) -> Iterator[Row]:
    """Compare the two kinds of step."""
    with tempfile.TemporaryDirectory() as root:
        trainer = build_trainer(Path(root))
        batch = next(iter(trainer.data_loader))
        image, target = (torch.tensor(batch[key].numpy(), device=trainer.state.device) for key in ("image", "label"))
        contestants = (
            lambda: step_from_files(trainer),
            lambda: step_in_memory(trainer, image, target),
            lambda: next(iter(trainer.data_loader)),
        )
        seconds = alternate(contestants, STEPS * options.rounds, warm_up=2)
    files, memory, loading = (means(times, STEPS) for times in seconds)
    yield cost(
        "training step from files",
        "forward, backward and update on a tensor in memory",
        files,
        memory,
        TARGET,
        f"same network, loss, optimiser and shapes; images are read once, before, as in training; "
        f"the loader alone takes {1000 * median(loading):.1f} ms",
    )
