"""Both kinds of step train the same network; the loader goes on from step to step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.engines import IterationEvents, SupervisedTrainer
from unet_monai.data import demo_dataset

from benchmarks.training_step import build_trainer, means, step_from_files, step_in_memory


@pytest.fixture
def trainer(tmp_path: Path) -> SupervisedTrainer:
    torch.manual_seed(0)
    demo = demo_dataset(str(tmp_path / "demo"), num_images=2)
    tiny = {"network_def#features": [2, 4, 8, 16, 32], "tile_size": 204, "dataset_dir": demo}
    return build_trainer(tmp_path, **tiny)


def weights(trainer: SupervisedTrainer) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in trainer.network.state_dict().items()}


def test_means_of_consecutive_values() -> None:
    assert means([1.0, 3.0, 5.0, 6.0], 2) == [2, 5.5]


def test_each_step_from_files_takes_the_next_tile(trainer: SupervisedTrainer) -> None:
    images = []
    trainer.add_event_handler(
        IterationEvents.FORWARD_COMPLETED, lambda: images.append(trainer.state.output["image"].clone())
    )
    for _ in range(3):
        step_from_files(trainer)
    assert len(images) == 3
    assert not any(torch.equal(images[i], images[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_both_kinds_of_step_learn_the_same_from_a_tile(trainer: SupervisedTrainer) -> None:
    trainer.data_loader.sampler.set_epoch(1)
    (batch,) = trainer.data_loader
    before, optimizer = weights(trainer), trainer.optimizer.state_dict()
    step_from_files(trainer)
    from_files = weights(trainer)
    assert not torch.equal(from_files["output_conv.weight"], before["output_conv.weight"]), "test invalid"

    trainer.network.load_state_dict(before)
    trainer.optimizer.load_state_dict(optimizer)
    step_in_memory(trainer, batch["image"], batch["label"])
    torch.testing.assert_close(weights(trainer), from_files)
