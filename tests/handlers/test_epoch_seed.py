from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine, Events
from unet_monai.handlers import EpochSeedHandler


def draws(seed: int, epochs: int, disturbance: int = 0) -> list[float]:
    """Return one random number of each epoch."""
    torch.manual_seed(1)
    torch.rand(disturbance)
    numbers: list[float] = []
    engine = Engine(lambda engine, batch: numbers.append(torch.rand(1).item()))
    EpochSeedHandler(seed).attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: torch.rand(disturbance))
    engine.run([0], max_epochs=epochs)
    return numbers


def test_an_epoch_draws_what_seed_and_epoch_say() -> None:
    numbers = draws(seed=5, epochs=3)
    assert len(set(numbers)) == 3
    assert draws(seed=5, epochs=3, disturbance=17) == numbers
    assert draws(seed=6, epochs=2) == numbers[1:]


@pytest.mark.parametrize("seed", ["abc", 1.5, None])
def test_rejects_what_is_no_seed(seed: object) -> None:
    with pytest.raises(TypeError, match=rf"^seed must be a whole number, got {seed!r}\.$"):
        EpochSeedHandler(seed)
