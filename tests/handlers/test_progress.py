from __future__ import annotations

import logging
from pathlib import Path

import pytest
from ignite.engine import Engine, Events
from unet_monai.handlers import FileProgressHandler, ProgressHandler

from tests.handlers.training import make_training


def interrupt(engine: Engine) -> None:
    raise RuntimeError("out of luck")


class TestProgressHandler:
    def test_counts_every_step_and_shows_loss_and_metric(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        training = make_training(tmp_path, epochs=3)
        handler = ProgressHandler(training.evaluator)
        handler.attach(training.trainer)
        training.trainer.run()
        assert (handler.bar.n, handler.bar.total) == (6, 6)
        shown = capsys.readouterr().err.split("\r")[-1]
        best = training.evaluator.state.best_metric
        for text in ("training: 100%", "6/6", "epoch=3/3", f"loss={handler.loss:.3f}", "error=", f"best={best:.3f}"):
            assert text in shown

    def test_the_loss_is_a_running_mean(self, tmp_path: Path) -> None:
        training = make_training(tmp_path, epochs=2, validate=False)
        handler = ProgressHandler(training.evaluator)
        handler.attach(training.trainer)
        losses: list[float] = []
        training.trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda engine: losses.append(float(engine.state.output[0]["loss"]))
        )
        training.trainer.run()
        expected = losses[0]
        for loss in losses[1:]:
            expected = 0.95 * expected + 0.05 * loss
        assert handler.loss == pytest.approx(expected)

    def test_a_resumed_training_starts_where_it_stopped(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        make_training(tmp_path, epochs=2).trainer.run()
        training = make_training(tmp_path, epochs=3, resume=True)
        handler = ProgressHandler(training.evaluator)
        handler.attach(training.trainer)
        training.trainer.run()
        assert (handler.bar.initial, handler.bar.n, handler.bar.total) == (4, 6, 6)
        assert "4/6" in capsys.readouterr().err

    def test_passes_an_error_on_and_closes_the_bar(self, tmp_path: Path) -> None:
        training = make_training(tmp_path, epochs=3)
        handler = ProgressHandler(training.evaluator)
        handler.attach(training.trainer)
        training.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=3), interrupt)
        with pytest.raises(RuntimeError, match="out of luck"):
            training.trainer.run()
        assert handler.bar.disable, "the bar is closed"

    def test_passes_an_error_on_that_comes_before_the_bar(self, tmp_path: Path) -> None:
        # As in the bundle: the handler that resumes is attached first, and finds nothing to resume.
        training = make_training(tmp_path, epochs=3, resume=True)
        ProgressHandler(training.evaluator).attach(training.trainer)
        with pytest.raises(FileNotFoundError, match="no training to resume"):
            training.trainer.run()


class TestFileProgressHandler:
    def test_counts_images_and_names_the_folder(
        self, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
    ) -> None:
        caplog.set_level(logging.INFO, logger="unet_monai")
        engine = Engine(lambda engine, batch: batch)
        handler = FileProgressHandler("some/results")
        handler.attach(engine)
        engine.run([["a"], [], ["c"]])  # the second one failed
        assert handler.bar.n == handler.bar.total == 3
        assert "segmenting: 100%" in capsys.readouterr().err
        assert caplog.messages == ["2 images segmented, results in some/results"]
