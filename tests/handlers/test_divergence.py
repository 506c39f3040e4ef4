from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Events
from unet_monai.handlers import DivergenceHandler
from unet_monai.networks import ValidUNet

from tests.handlers.training import Training, make_training


def spoil_weights(training: Training) -> None:
    with torch.no_grad():
        training.network.output_conv.weight[0] = torch.inf


def spoil_statistics(training: Training) -> None:
    next(m for m in training.network.modules() if isinstance(m, torch.nn.BatchNorm2d)).running_var.fill_(torch.nan)


def kept_epoch(training: Training) -> int:
    """Return the epoch that was kept, of weights that can be used; 0 for none."""
    if not training.state_path.exists():
        return 0
    state = torch.load(training.state_path, weights_only=True)
    assert all(values.isfinite().all() for values in state["network"].values())
    return state["epoch"]


@pytest.mark.parametrize("step", [1, 3, 4])
def test_stops_at_the_step_and_keeps_the_epochs_before(tmp_path: Path, step: int) -> None:
    training = make_training(tmp_path, epochs=3, steps_per_epoch=2)
    trainer = training.trainer
    trainer.add_event_handler(Events.ITERATION_STARTED(once=step), lambda engine: spoil_weights(training))
    message = rf"^loss must stay finite, got nan at step {step}: the training diverged, try a lower --learning_rate\.$"
    with pytest.raises(ValueError, match=message):
        trainer.run()
    assert trainer.state.iteration == step
    assert kept_epoch(training) == (step - 1) // 2


@pytest.mark.parametrize("spoil", [spoil_weights, spoil_statistics])
def test_weights_that_the_last_step_spoilt_are_not_kept(tmp_path: Path, spoil: Callable[[Training], None]) -> None:
    training = make_training(tmp_path, epochs=2, steps_per_epoch=2)
    training.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=4), lambda engine: spoil(training))
    with pytest.raises(ValueError, match=r"^weights must stay finite, got others in \S+ after epoch 2: the training "):
        training.trainer.run()
    assert kept_epoch(training) == 1


def test_an_unknown_cell_diameter_is_no_divergence() -> None:
    network = ValidUNet(features=(2, 4))
    assert network.cell_diameter.isnan()
    DivergenceHandler(network).check_weights(SimpleNamespace(state=SimpleNamespace(epoch=1)))
