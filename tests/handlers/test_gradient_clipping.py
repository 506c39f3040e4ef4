from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from monai.engines import SupervisedTrainer
from unet_monai.handlers import GradientClippingHandler
from unet_monai.losses import WeightedCrossEntropyLoss
from unet_monai.networks import ValidUNet

from tests.handlers.training import make_training


def make_trainer(tiles: list[torch.Tensor], *, learning_rate: float = 0.01, handled: bool = True) -> SupervisedTrainer:
    """Train a network of the bundle's depth with one tile a step, whose upper quarter is cell."""
    torch.manual_seed(0)
    network = ValidUNet(out_channels=2, features=(2, 4, 8, 16, 32), norm="batch", dropout=0.0)
    target = torch.ones(1, 2, 20, 20)
    target[:, 0, 5:] = 0
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[{"image": tile, "label": target} for tile in tiles],
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), lr=learning_rate),
        loss_function=WeightedCrossEntropyLoss(),
        train_handlers=[GradientClippingHandler(network)] if handled else [],
    )


def tiles(*contrasts: float) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return [0.3 + contrast * torch.rand((1, 1, 204, 204), generator=random) for contrast in contrasts]


def largest_moment(trainer: SupervisedTrainer) -> float:
    """Return by the square of what Adam divides its steps at most; NaN and infinity count as infinity."""
    moments = [state["exp_avg_sq"] for state in trainer.optimizer.state.values()]
    return max(float(moment.nan_to_num(torch.inf).max()) for moment in moments)


def test_after_a_tile_without_contrast_all_layers_go_on_learning() -> None:
    stopped, undisturbed = make_trainer(tiles(1, 0, 1), handled=False), make_trainer(tiles(1, 1, 1), handled=False)
    handled = make_trainer(tiles(1, 0, 1))
    for trainer in (stopped, undisturbed, handled):
        trainer.run()
    assert largest_moment(stopped) > 1e6 * largest_moment(undisturbed), "test invalid"
    assert largest_moment(handled) < 1


@pytest.mark.parametrize("spoilt", [torch.inf, torch.nan, 1e30])  # of which the last one's square is infinite
def test_a_gradient_that_is_not_finite_makes_no_step(caplog: pytest.LogCaptureFixture, spoilt: float) -> None:
    network = torch.nn.Linear(2, 1, bias=False)
    before = network.weight.detach().clone()
    optimizer, handler = torch.optim.Adam(network.parameters()), GradientClippingHandler(network)
    for step in (7, 8):
        network.weight.grad = torch.tensor([[1.0, spoilt]])
        handler(SimpleNamespace(optimizer=optimizer, state=SimpleNamespace(iteration=step)))
        optimizer.step()
    assert torch.equal(network.weight, before)
    said = [record.message for record in caplog.records if "left out" in record.message]
    assert said == ["step 7 is left out: its gradient is not finite, as that of a tile without contrast (said once)."]


def test_other_gradients_stay_as_they_are(tmp_path: Path) -> None:
    plain, clipped = (make_training(tmp_path / name, epochs=2) for name in ("plain", "clipped"))
    GradientClippingHandler(clipped.network).attach(clipped.trainer)
    for training in (plain, clipped):
        training.trainer.run()
    for name, weight in plain.network.state_dict().items():
        assert torch.equal(clipped.network.state_dict()[name], weight), name


def test_a_large_gradient_keeps_its_direction() -> None:
    network = torch.nn.Linear(2, 1, bias=False)
    network.weight.grad = torch.tensor([[300.0, 400.0]])
    GradientClippingHandler(network, max_norm=5)(None)
    torch.testing.assert_close(network.weight.grad, torch.tensor([[3.0, 4.0]]))
