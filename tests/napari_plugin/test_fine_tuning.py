"""The command of a round, and a real round in a process of its own."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
import torch
from unet_monai.data import draw_cells, load_split
from unet_monai.napari_plugin.fine_tuning import Progress, Round, Training, prepare_round, read_progress
from unet_monai.napari_plugin.training_pair import save_pair

from tests.napari_plugin.networks import write_weights

SHORT = ["--tile_size", "204", "--steps_per_epoch", "2", "--val_interval", "1", "--device", "cpu"]


def annotate(root: Path, *seeds: int) -> None:
    for seed in seeds:
        save_pair(root, f"cells {seed}", *draw_cells(seed, (64, 80)))


def option(plan: Round, name: str) -> str:
    return plan.command[plan.command.index(name) + 1]


def test_rounds_are_numbered_and_images_keep_their_use(tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "own.pt")
    annotate(tmp_path / "set", 1, 2, 3, 4, 9)
    first = prepare_round(tmp_path / "set", weights, epochs=3, settings=["--max_minutes", "2"])
    annotate(tmp_path / "set", 5, 6, 7, 8)
    second = prepare_round(tmp_path / "set", weights)
    assert (first.folder.name, second.folder.name) == ("1", "2")
    assert first.weights == tmp_path / "set" / "fine_tuned" / "1" / "models" / "model.pt"
    assert option(first, "--validation") == "['images/cells 9.tif']"
    assert option(second, "--validation") == "['images/cells 9.tif']", "an image must not move"
    assert (option(first, "--epochs"), option(first, "--max_minutes")) == ("3", "2")
    assert option(first, "--network_def#features") == "[2,4,8,16,32]"
    assert len(json.loads((tmp_path / "set" / "fine_tuned" / "split.json").read_text())) == 9
    split = load_split(tmp_path / "set", validation=["images/cells 9.tif"])
    assert [len(split[part]) for part in ("training", "validation")] == [8, 1]


def test_a_set_without_pairs_makes_no_round(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^dataset_dir must be an existing folder"):
        prepare_round(tmp_path / "set", write_weights(tmp_path / "own.pt"))
    with pytest.raises(FileNotFoundError, match=r"^weights must be an existing file"):
        prepare_round(tmp_path, tmp_path / "none.pt")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["own.pt"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("training:   0%|          | 0/240 [00:00<?, ?step/s]", Progress(0, 240, "")),
        (
            "training:   7%|▋         | 16/240 [01:05<15:02,  4.03s/step, epoch=1/8, loss=0.851, SEG=0.1, best=0.1]",
            Progress(16, 240, "epoch=1/8, loss=0.851, SEG=0.1, best=0.1"),
        ),
        ("segmenting:  50%|#####     | 1/2 [00:01<00:01,  1.00image/s]", None),
        ("2026-01-01 12:00:00 - INFO - starting from the weights of own.pt", None),
        ("", None),
    ],
)
def test_progress_is_read_from_the_bar(line: str, expected: Progress | None) -> None:
    assert read_progress(line) == expected


@pytest.mark.slow
def test_one_annotated_image_is_enough(tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "own.pt")
    annotate(tmp_path / "set", 1)
    plan = prepare_round(tmp_path / "set", weights, epochs=2, settings=SHORT)
    items = list(Training(plan).follow())
    steps = [item for item in items if isinstance(item, Progress)]
    assert steps[-1][:2] == (4, 4)
    assert any("starting from the weights of" in item for item in items if isinstance(item, str))
    assert plan.report.is_file()
    assert "starting from the weights" in (plan.folder / "training.log").read_text()
    before, after = (torch.load(path, weights_only=True) for path in (weights, plan.weights))
    assert (before["output_conv.weight"] != after["output_conv.weight"]).any()


@pytest.mark.slow
def test_a_mistyped_setting_is_named(tmp_path: Path) -> None:
    annotate(tmp_path / "set", 1)
    plan = prepare_round(tmp_path / "set", write_weights(tmp_path / "own.pt"), settings=["--epocs", "5"])
    with pytest.raises(RuntimeError, match=r"^training must end without an error, got .*did you mean '--epochs'.*log"):
        list(Training(plan).follow())


def test_a_round_that_fails_says_why(tmp_path: Path) -> None:
    code = "import sys; print('first'); print('ValueError: last', file=sys.stderr); sys.exit(3)"
    training = Training(Round(tmp_path, [sys.executable, "-u", "-c", code], tmp_path, tmp_path))
    with pytest.raises(
        RuntimeError, match=r"^training must end without an error, got 'ValueError: last'; see .*log\.$"
    ):
        list(training.follow())
    assert (tmp_path / "training.log").read_text() == "first\nValueError: last\n"


def test_a_silent_training_is_cancelled(tmp_path: Path) -> None:
    waiting = Round(tmp_path, [sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, tmp_path)
    training = Training(waiting)
    lines = training.follow()
    assert next(lines) == ""
    assert training.runs()
    start = time.monotonic()
    training.cancel()
    assert all(line == "" for line in lines)
    assert not training.runs()
    assert time.monotonic() - start < 10
