from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine, Events
from unet_monai.data import demo_dataset

from benchmarks.time_to_seg import PEER, SET, Stopwatch, train


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def run(monkeypatch: pytest.MonkeyPatch, segs: list[float], target: float, limit: float) -> Stopwatch:
    """Four steps of 2 s an epoch, and a validation of 100 s after each."""
    clock = Clock()
    monkeypatch.setattr("benchmarks.time_to_seg.time.perf_counter", clock)

    def step(engine: Engine, batch: int) -> None:
        clock.now += 2.0

    def validate(engine: Engine, batch: int) -> None:
        clock.now += 100.0
        engine.state.metrics["SEG"] = segs[trainer.state.epoch - 1]

    trainer, evaluator = Engine(step), Engine(validate)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run([0]))
    stopwatch = Stopwatch(target, limit)
    stopwatch.attach(trainer, evaluator)
    trainer.run(range(4), max_epochs=len(segs))
    return stopwatch


def test_validations_do_not_count_and_the_target_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stopwatch = run(monkeypatch, [0.3, 0.6, 0.9, 0.95], target=0.85, limit=1000)
    assert stopwatch.reached == 24
    assert stopwatch.curve == [(8, 0.3), (16, 0.6), (24, 0.9)]


def test_the_limit_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stopwatch = run(monkeypatch, [0.1] * 9, target=0.85, limit=11)
    assert stopwatch.reached is None
    assert 11 < stopwatch.seconds < 17


@pytest.mark.parametrize("overrides", [SET, {**SET, **PEER}])
def test_both_sides_train_and_are_validated(overrides: dict, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.time_to_seg.STEPS_PER_EPOCH", 1)
    monkeypatch.setattr("benchmarks.time_to_seg.VAL_INTERVAL", 1)
    torch.manual_seed(0)
    stopwatch = train(demo_dataset(str(tmp_path / "demo")), {**overrides, "validation": "*19"}, 2.0, epochs=1, limit=60)
    assert len(stopwatch.curve) == 1
    assert 0 <= stopwatch.curve[0][1] <= 1
