"""Minutes of training until the validation images reach a SEG: ours against MONAI's usual recipe.

The usual recipe is a padded `BasicUNet` of the same widths, Dice and cross entropy on cell against background, random
crops with flips and affine maps, and the connected parts of the prediction as cells. Both start from scratch, read the
same images and validate on the same ones; the time of the validations does not count.
"""

from __future__ import annotations

import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.utils import set_determinism

from benchmarks.harness import REPOSITORY, Row, faster

STEPS_PER_EPOCH = 30
VAL_INTERVAL = 3
# The set's own split, batch and thresholds hold for both sides, but for what the peer's recipe says.
SET: dict[str, Any] = ConfigParser.load_config_file(str(REPOSITORY / "bundle/configs/experiments/nuclei_dsb2018.json"))
PEER: dict[str, Any] = ConfigParser.load_config_file(str(REPOSITORY / "benchmarks/basic_unet.json"))


class Stopwatch:
    """Add up the seconds of the steps, data included, and end the training once a validation reaches the target."""

    def __init__(self, target: float, limit: float) -> None:
        self.target, self.limit = target, limit
        self.seconds, self.started = 0.0, 0.0
        self.curve: list[tuple[float, float]] = []
        self.reached: float | None = None

    def attach(self, trainer: Engine, evaluator: Engine) -> None:
        """Time each step of the trainer; look at SEG after each validation."""
        trainer.add_event_handler(Events.GET_BATCH_STARTED, self._start)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._stop)
        evaluator.add_event_handler(Events.COMPLETED, self._look, trainer)

    def _start(self, _: Engine) -> None:
        self.started = time.perf_counter()

    def _stop(self, trainer: Engine) -> None:
        self.seconds += time.perf_counter() - self.started
        if self.seconds > self.limit:
            trainer.terminate()

    def _look(self, evaluator: Engine, trainer: Engine) -> None:
        seg = evaluator.state.metrics["SEG"]
        self.curve.append((round(self.seconds, 1), round(seg, 4)))
        print(f"  {self.seconds:6.0f} s  SEG {seg:.3f}", file=sys.stderr, flush=True)
        if seg >= self.target and self.reached is None:
            self.reached = self.seconds
            trainer.terminate()


def train(dataset_dir: str, overrides: dict[str, Any], target: float, epochs: int, limit: float) -> Stopwatch:
    """Train from scratch with `train.json` and overrides of it until SEG reaches the target, or time is up."""
    set_determinism(0)
    with tempfile.TemporaryDirectory() as work:
        config = ConfigParser(ConfigParser.load_config_file(str(REPOSITORY / "bundle/configs/train.json")))
        config.update(
            {
                **overrides,
                "bundle_root": work,
                "dataset_dir": dataset_dir,
                "epochs": epochs,
                "steps_per_epoch": STEPS_PER_EPOCH,
                "val_interval": VAL_INTERVAL,
            }
        )
        trainer = config.get_parsed_content("train#trainer")
        stopwatch = Stopwatch(target, limit)
        stopwatch.attach(trainer, config.get_parsed_content("validate#evaluator"))
        trainer.run()
        config.get_parsed_content("summary_writer").close()  # it writes from a thread of its own
    return stopwatch


def rows(options: Namespace) -> Iterator[Row]:
    """Yield the one row; a side that never gets there counts with the seconds it was given."""
    target, limit = options.seg, 60 * options.minutes
    ours = train(options.dataset_dir, SET, target, options.epochs, limit)
    peer = train(options.dataset_dir, {**SET, **PEER}, target, options.epochs, limit)
    sides = {"ours": ours, "BasicUNet": peer}
    missed = [
        f"{name} did not reach it in {side.seconds:.0f} s (best {max(seg for _, seg in side.curve):.3f})"
        for name, side in sides.items()
        if side.reached is None
    ]
    yield faster(
        f"time to SEG {target:g} on the DSB2018 validation images",
        "BasicUNet of the same widths, Dice + cross entropy, flips and affine maps",
        [ours.reached or ours.seconds],
        [peer.reached or peer.seconds],
        2.0,
        "; ".join(missed) or "both reached it",
    )
