from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import unet_monai
from ignite.engine import Engine, Events
from monai.data import Dataset
from unet_monai.handlers import EvaluationReportHandler, TrainingReportHandler
from unet_monai.handlers.history import History

from tests.handlers.validation import ITEMS, make_evaluator, make_metrics, make_trainer
from tests.pictures.test_report import Page

STEPS = 4


def train(
    folder: Path,
    found: list[int],
    *,
    items: list[dict] = ITEMS,
    resumed_after: int = 0,
    best: tuple[float, int] = (-1, -1),
    stop_after: int | None = None,
    **options: Any,
) -> TrainingReportHandler:
    metrics = make_metrics()
    evaluator = make_evaluator(items, metrics)
    evaluator.state.best_metric, evaluator.state.best_metric_epoch = best
    trainer = make_trainer(evaluator, found, resumed_after=resumed_after)
    lists = [
        Dataset([{"image": f"/data/{use}/{i}.png", "label": "x"} for i in range(n)]) for use, n in (("t", 5), ("v", 3))
    ]
    handler = TrainingReportHandler(str(folder), evaluator, metrics, *lists, {"epochs": len(found)}, **options)
    handler.attach(trainer)
    if stop_after is not None:
        trainer.add_event_handler(Events.EPOCH_COMPLETED(once=stop_after), interrupt)
    trainer.run([0] * STEPS, max_epochs=len(found))
    return handler


def interrupt(engine: Engine) -> None:
    raise RuntimeError("killed")


def page_of(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


class TestTrainingReport:
    def test_shows_the_training(self, tmp_path: Path) -> None:
        handler = train(tmp_path / "output", [1, 4, 2], max_images=2)
        page = page_of(tmp_path / "output")
        assert page.headings == ["curves", "measures", "pictures", "settings", "split", "versions"]
        assert len(page.sources) == 3
        for expected in (
            "SEG, best epoch (2)1.000",
            "true cells found right9 of 9",
            "epochs3",
            "training images5",
            "validation images3",
            "Shown are 2 of 3 images.",
            "/data/t: 0.png, 1.png, 2.png, 3.png, 4.png",
            f"unet_monai {unet_monai.__version__}, monai",
            f"torch {torch.__version__}",
        ):
            assert expected in page.text
        names = {path.name for path in (tmp_path / "output" / "report").iterdir()}
        assert names == {"curves.png", "history.json", "sheet.png", "01_two.png", "02_four.png"}
        assert [epoch.epoch for epoch in handler.history.epochs] == [1, 2, 3]

    def test_loss_of_an_epoch_is_that_of_its_steps(self, tmp_path: Path) -> None:
        first, second = train(tmp_path, [1, 2]).history.epochs
        assert first.loss == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
        assert second.loss == pytest.approx((1 / 5 + 1 / 6 + 1 / 7 + 1 / 8) / 4)
        assert 1 / 4 < first.loss_low < first.loss < first.loss_high < 1
        assert first.measures["SEG"] == pytest.approx(1 / 3)
        assert set(first.measures) == {"SEG", "DET"}

    def test_epochs_between_validations_have_no_measures(self, tmp_path: Path) -> None:
        metrics = make_metrics()
        evaluator = make_evaluator(ITEMS, metrics)
        trainer = Engine(lambda engine, batch: [{"loss": 1.0}])
        trainer.add_event_handler(Events.EPOCH_COMPLETED(every=2), lambda engine: evaluator.run(engine.state.epoch))
        handler = TrainingReportHandler(str(tmp_path), evaluator, metrics, Dataset([]), Dataset([]), {})
        handler.attach(trainer)
        trainer.run([0], max_epochs=5)
        assert [bool(epoch.measures) for epoch in handler.history.epochs] == [False, True, False, True, False]

    def test_without_validation_images(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        train(tmp_path, [1, 1], items=[])
        page = page_of(tmp_path)
        assert page.headings == ["curves", "measures", "settings", "split", "versions"]
        assert "No image was measured." in page.text
        assert "best epoch" not in page.text
        assert not [record for record in caplog.records if record.levelno == logging.WARNING]


class TestResumed:
    def test_shows_the_whole_training(self, tmp_path: Path) -> None:
        undisturbed = train(tmp_path / "a", [1, 4, 2, 3]).history
        with pytest.raises(RuntimeError, match="killed"):
            train(tmp_path / "b", [1, 4, 2, 3], stop_after=3)
        assert not (tmp_path / "b" / "report.html").exists()
        # The state that is resumed may be older than what was noted: epoch 3 is done again.
        resumed = train(tmp_path / "b", [1, 4, 2, 3], resumed_after=2, best=(1.0, 2)).history
        assert resumed.epochs == undisturbed.epochs
        assert (resumed.best_epoch, resumed.results) == (2, undisturbed.results)
        assert resumed.seconds > 0
        pages = [page_of(tmp_path / name) for name in "ab"]
        assert pages[0].sources == pages[1].sources, "curves and pictures"
        assert "SEG, best epoch (2)1.000" in pages[1].text

    def test_a_best_epoch_that_is_to_be_done_again_is_forgotten(self, tmp_path: Path) -> None:
        train(tmp_path, [1, 2, 4])
        history = History.load(tmp_path / "report" / "history.json", last_epoch=2)
        assert (len(history.epochs), history.best_epoch, history.results) == (2, 0, [])

    def test_a_new_training_does_not_go_on_with_an_old_history(self, tmp_path: Path) -> None:
        train(tmp_path, [4, 4, 4])
        again = train(tmp_path, [1, 2]).history
        assert [epoch.measures["SEG"] for epoch in again.epochs] == [pytest.approx(1 / 3), pytest.approx(6 / 9)]
        assert again.best_epoch == 2

    def test_without_a_history_it_begins_one(self, tmp_path: Path) -> None:
        history = train(tmp_path, [1, 2, 3], resumed_after=1).history
        assert [epoch.epoch for epoch in history.epochs] == [2, 3]
        assert page_of(tmp_path).headings[0] == "curves"

    def test_history_is_written_and_read_whole(self, tmp_path: Path) -> None:
        handler = train(tmp_path, [1, 2])
        path = tmp_path / "report" / "history.json"
        assert History.load(path, last_epoch=2) == handler.history
        assert [p.name for p in path.parent.glob("*history*")] == ["history.json"]


class TestWarnings:
    def warnings(self, folder: Path, caplog: pytest.LogCaptureFixture, found: list[int]) -> list[str]:
        caplog.clear()
        caplog.set_level(logging.INFO, logger="unet_monai")
        train(folder, found)
        warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        assert caplog.messages[-1 - len(warnings)] == f"report: {folder / 'report.html'}", "warnings come last"
        text = page_of(folder).text
        assert all(warning.removeprefix("WARNING: ") in text for warning in warnings)
        return warnings

    def test_nothing_found(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        nothing, no_progress = self.warnings(tmp_path, caplog, [0, 0])
        assert nothing.startswith("WARNING: The network finds no cell in any of the 3 images.")
        assert no_progress.startswith("WARNING: SEG is no better at the end")
        assert len(self.warnings(tmp_path, caplog, [0])) == 1

    @pytest.mark.parametrize(("found", "best"), [([2, 1], 1), ([2, 2], 1), ([2, 4, 1], 2)])
    def test_no_better_than_at_the_start(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, found: list[int], best: int
    ) -> None:
        (warning,) = self.warnings(tmp_path, caplog, found)
        last = {1: "0.333", 2: "0.667"}[found[-1]]
        assert (
            f"{last} (epoch {len(found)}) after 0.667 (epoch 1). The weights kept are those of epoch {best}." in warning
        )

    @pytest.mark.parametrize("found", [[1, 2], [2], [1, 4, 2], [0, 1]])
    def test_silent_when_all_is_well(self, tmp_path: Path, caplog: pytest.LogCaptureFixture, found: list[int]) -> None:
        assert self.warnings(tmp_path, caplog, found) == []


class TestEvaluationReport:
    def evaluate(self, folder: Path, cells: int, **options: Any) -> Page:
        metrics = make_metrics()
        evaluator = make_evaluator(ITEMS, metrics, cells=cells)
        EvaluationReportHandler(str(folder), metrics, {"views": "identity"}, **options).attach(evaluator)
        evaluator.run()
        return page_of(folder)

    def test_shows_the_measures_and_the_images(self, tmp_path: Path) -> None:
        page = self.evaluate(tmp_path / "evaluation", 2, max_images=2)
        assert page.headings == ["measures", "pictures", "settings", "split", "versions"]
        for expected in ("SEG0.667", "true cells found right6 of 9", "images3", "viewsidentity", "evaluated, 3 images"):
            assert expected in page.text
        assert len(page.sources) == 2
        names = {path.name for path in (tmp_path / "evaluation" / "report").iterdir()}
        assert names == {"sheet.png", "01_four.png", "02_three.png"}

    def test_a_table_has_a_row_for_each_image(self, tmp_path: Path) -> None:
        self.evaluate(tmp_path, 2)
        with (tmp_path / "images.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [Path(row["image"]).stem for row in rows] == ["four", "three", "two"]
        assert list(rows[0])[:3] == ["image", "SEG", "DET"]
        four = {name: int(value) for name, value in rows[0].items() if name.startswith(("true", "predicted"))}
        assert four["true_right"] == 2
        assert four["true_missed"] == 2
        assert sum(value for name, value in four.items() if name.startswith("true")) == 4
        assert four["predicted_right"] == 2

    def test_a_table_has_the_measures_of_all_images(self, tmp_path: Path) -> None:
        page = self.evaluate(tmp_path, 2)
        measures = dict(line.split(",") for line in (tmp_path / "metrics.csv").read_text().splitlines())
        assert list(measures) == ["SEG", "DET"]
        assert float(measures["SEG"]) == pytest.approx(2 / 3)
        assert f"DET{float(measures['DET']):.3f}" in page.text

    def test_warns_when_nothing_is_found(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.evaluate(tmp_path, 1)
        assert not caplog.records
        page = self.evaluate(tmp_path, 0)
        assert caplog.messages[-1].startswith("WARNING: The network finds no cell in any of the 3 images.")
        assert "The network finds no cell" in page.text
