from __future__ import annotations

import pytest
from ignite.engine import Engine
from ignite.handlers import time_limit
from unet_monai.handlers import TimeLimitHandler


def test_ends_after_the_step_in_which_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time_limit.time, "time", lambda: clock[0])

    def step(engine: Engine, batch: int) -> None:
        clock[0] += 25

    engine = Engine(step)
    TimeLimitHandler(minutes=1).attach(engine)
    clock[0] += 500  # the clock starts with the training
    engine.run(range(10), max_epochs=2)
    assert engine.state.iteration == 3


def test_rejects_minutes() -> None:
    for minutes in (0, -1, float("nan")):
        with pytest.raises(ValueError, match=rf"minutes must be positive, got {minutes}\."):
            TimeLimitHandler(minutes)
