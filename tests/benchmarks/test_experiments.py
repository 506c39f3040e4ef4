"""The runner with trainings that are only said to have run, and one that has."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from monai.bundle import ConfigParser
from PIL import Image
from unet_monai.bundle.overrides import command_line_settings, mistyped_value, unknown_override
from unet_monai.data import draw_cells

from benchmarks import experiments
from benchmarks.experiment_tables import SECTIONS, TARGETS, write_tables
from benchmarks.experiments import FOLDERS, ROWS, SETS, Length, Row, RowError, plan
from benchmarks.harness import REPOSITORY

TEN_MINUTES = Length(10, 1)
HEADLINE = Row("headline", "dic_hela", "ours", 0)


def config_of(row: Row) -> dict:
    """Read the config files that train a row."""
    words = experiments.bundle_command(row, "training", "DATA", "OUT")
    files = words[words.index("--config_file") + 1].strip("[]").replace("'", "").split(",")
    return ConfigParser.load_config_files([str(REPOSITORY / file) for file in files])


def pretend(monkeypatch: pytest.MonkeyPatch, *failing: str) -> list[str]:
    """Let rows take no time; those named fail. Return the titles of the rows that were run, filled as they are."""
    run = []

    def run_row(row: Row, data: str, length: Length, out: Path) -> dict[str, object]:
        run.append(row.title)
        if row.title in failing:
            raise RowError("no cells anywhere")
        return {"minutes_asked": length.minutes, "threads": length.threads, "minutes": 9, "steps": 1, "measures": {}}

    monkeypatch.setattr(experiments, "run_row", run_row)
    return run


def run_main(results: Path, *words: str) -> None:
    experiments.main(["--data_root", "DATA", "--results", str(results), "--kind", "headline", *words])


def test_rows_are_all_names_of_all_sets_one_seed_after_the_other() -> None:
    rows = plan("ablation", ["dic_hela"], ["nothing", "no_elastic"], [3, 5])
    assert [row.title for row in rows] == [
        "ablation-dic_hela-nothing-3",
        "ablation-dic_hela-no_elastic-3",
        "ablation-dic_hela-nothing-5",
        "ablation-dic_hela-no_elastic-5",
    ]


def test_own_scale_is_left_out_where_images_keep_theirs() -> None:
    rows = plan("ablation", SETS["ablation"], ["own_scale"], [0])
    assert [row.data_set for row in rows] == ["dic_hela"]


def test_weights_that_saw_a_set_are_no_start_for_it() -> None:
    rows = plan("learning_curve", SETS["learning_curve"], ["images_1", "images_1_pretrained"], [0])
    assert [(row.data_set, row.name) for row in rows] == [
        ("dic_hela", "images_1"),
        ("dic_hela", "images_1_pretrained"),
        ("nuclei_dsb2018", "images_1"),
    ]
    assert rows[1].overrides == {"training_images": 1, "pretrained": "bundle/weights/nuclei.pt"}


def test_each_set_has_an_overlay_and_a_target() -> None:
    overlays = {path.stem for path in (REPOSITORY / "bundle/configs/experiments").glob("*.json")}
    assert overlays == set(FOLDERS) == set(TARGETS)


@pytest.mark.parametrize("kind", ROWS)
def test_changes_are_of_real_settings(kind: str) -> None:
    for name, overrides in ROWS[kind].items():
        row = Row(kind, "dic_hela", name, 0)
        assert unknown_override(overrides, config_of(row)) is None
        words = experiments.bundle_command(row, "training", "DATA", "OUT")
        assert mistyped_value(command_line_settings(words)) is None


def test_commands_hold_the_changes_and_can_be_typed() -> None:
    row = Row("ablation", "dic_hela", "own_scale", 1)
    words = experiments.row_commands(row, 7, "my data/hela", "OUT")["training"]
    text = experiments.as_typed(words)
    assert shlex.split(text) == words
    assert "--config_file \"['bundle/configs/train.json','bundle/configs/experiments/dic_hela.json']\"" in text
    places = "--dataset_dir 'my data/hela' --output_dir OUT --ckpt_dir OUT/models"
    assert f"{places} --seed 1 --largest_diameter '$None'" in text
    assert text.endswith("--epochs 40 --steps_per_epoch 7 --val_interval 41")


def test_evaluation_builds_the_trained_network_and_scores_it_in_both_ways() -> None:
    row = Row("ablation", "dic_hela", "ridge_as_background", 0)
    commands = experiments.row_commands(row, 7, "DATA", "OUT")
    assert list(commands) == ["training", "identity", "mirrors"]
    for views in ("identity", "mirrors"):
        text = experiments.as_typed(commands[views])
        assert "run evaluating" in text
        assert ",'bundle/configs/evaluate.json']\"" in text
        assert "'--network_def#out_channels' 2" in text
        assert text.endswith(f"--views {views} --report_dir OUT/{views}")


def test_peer_is_scored_as_its_set_is() -> None:
    membranes = config_of(Row("peers", "em_isbi2012", "basic_unet", 0))
    assert membranes["network_def"]["_target_"] == "BasicUNet"
    assert membranes["find_instances"]["transforms"][0]["name"] == "probability"
    assert list(membranes["key_metric"]) == ["VRand"]
    cells = config_of(Row("peers", "dic_hela", "basic_unet", 0))
    assert (
        cells["find_instances"] | {"threshold": 0.5, "edge_threshold": 0.5, "min_size": "@min_size"}
        == (cells["find_instances"])
    )
    assert cells["min_size"] == config_of(HEADLINE)["min_size"]


def test_steps_follow_from_the_time_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def take_half_a_second_each(words: Sequence[str], threads: int) -> None:
        out = Path(words[words.index("--output_dir") + 1])
        (out / "report").mkdir()
        (out / "report" / "history.json").write_text(json.dumps({"seconds": 0.5 * experiments.PROBE_STEPS}))

    monkeypatch.setattr(experiments, "call", take_half_a_second_each)
    assert experiments.steps_per_epoch(HEADLINE, "DATA", TEN_MINUTES) == 10 * 60 / 0.5 / 40
    assert experiments.steps_per_epoch(HEADLINE, "DATA", Length(0.01, 1)) == 1


@pytest.mark.parametrize(("steps", "expected"), [(1200, 30), (1, 1), (41, 2)])
def test_steps_as_asked(steps: int, expected: int) -> None:
    assert experiments.steps_per_epoch(HEADLINE, "DATA", Length(None, 1, steps)) == expected


def test_finished_rows_are_skipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = pretend(monkeypatch)
    run_main(tmp_path, "--sets", "dic_hela", "--seeds", "0")
    run_main(tmp_path, "--sets", "dic_hela", "phc_u373", "--seeds", "0")
    assert run == ["headline-dic_hela-ours-0", "headline-phc_u373-ours-0"]
    assert {path.name for path in tmp_path.iterdir()} == {f"{title}.json" for title in run}


def test_finished_rows_of_another_length_are_not_taken_for_these(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = pretend(monkeypatch)
    run_main(tmp_path, "--sets", "dic_hela", "--seeds", "0", "--minutes", "5")
    for words in (["--minutes", "10"], ["--minutes", "5", "--threads", "2"]):
        with pytest.raises(SystemExit, match=r"got \{.minutes_asked.: 5\.0, .threads.: 1\}: move it away"):
            run_main(tmp_path, "--sets", "dic_hela", "--seeds", "0", *words)
    assert len(run) == 1


def test_failed_rows_are_told_at_the_end_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = pretend(monkeypatch, "headline-dic_hela-ours-0")
    with pytest.raises(SystemExit, match="headline-dic_hela-ours-0 FAILED:\nno cells anywhere") as end:
        run_main(tmp_path, "--sets", "dic_hela", "phc_u373", "--seeds", "0")
    assert end.value.code not in (0, None)
    assert len(run) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["headline-phc_u373-ours-0.json"]
    assert "headline-dic_hela-ours-0: FAILED" in capsys.readouterr().out


def test_interruption_loses_only_the_row_at_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend(monkeypatch)
    run_main(tmp_path, "--sets", "dic_hela", "--seeds", "0")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(experiments, "run_row", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_main(tmp_path, "--sets", "dic_hela", "phc_u373", "--seeds", "0")
    assert [path.name for path in tmp_path.iterdir()] == ["headline-dic_hela-ours-0.json"]


def test_failing_command_says_what_went_wrong() -> None:
    with pytest.raises(RowError, match=r"^exit status 1\nbar: 100 %\nout of cells$"):
        experiments.call(
            ["-c", r"print('bar: 10 %\rbar: 100 %', flush=True); raise SystemExit('out of cells')"], threads=1
        )


def test_command_runs_in_the_repository_with_its_threads() -> None:
    see = "import os; assert os.environ['OMP_NUM_THREADS'] == '3'; assert os.path.exists('pyproject.toml')"
    experiments.call(["-c", see], threads=3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--kind", "headline"], "--kind and --data_root are needed"),
        (["--data_root", "DATA"], "--kind and --data_root are needed"),
        (["--data_root", "DATA", "--kind", "headline", "--rows", "w0"], "--rows must be of ours, got w0"),
        (
            ["--data_root", "DATA", "--kind", "headline", "--folder", "hela=x"],
            "--folder must be SET=PATH .*, got hela=x",
        ),
    ],
)
def test_command_refuses(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        experiments.main(words)
    assert message.split(" .*")[0] in capsys.readouterr().err


def test_rows_are_read_in_the_order_of_the_tables(tmp_path: Path) -> None:
    rows = [
        ("headline", "phc_u373", "ours", 0),
        ("headline", "dic_hela", "ours", 1),
        ("learning_curve", "em_isbi2012", "images_2", 0),
        ("learning_curve", "em_isbi2012", "images_10", 0),
        ("learning_curve", "em_isbi2012", "images_all", 0),
    ]
    for row in rows:
        (tmp_path / f"{Row(*row).title}.json").write_text(json.dumps(Row(*row)._asdict()))
    assert [(row["kind"], row["data_set"], row["name"], row["seed"]) for row in experiments.read_rows(tmp_path)] == rows


def test_page_holds_the_tables_of_the_finished_rows(tmp_path: Path) -> None:
    page = REPOSITORY / "docs" / "experiments.md"
    copy = Path(shutil.copy(page, tmp_path))
    write_tables(experiments.read_rows(REPOSITORY / "docs" / "experiments"), copy)
    assert copy.read_text() == page.read_text(), "run python -m benchmarks.experiments --table"


def test_tables_go_to_the_page_beside_the_folder_of_the_rows(tmp_path: Path) -> None:
    page = tmp_path / "rows.md"
    page.write_text("".join(f"<!-- {kind} -->\n<!-- end of {kind} -->\n" for kind in SECTIONS))
    experiments.main(["--table", "--results", str(tmp_path / "rows")])
    assert page.read_text().count("No row has been run yet.") == len(SECTIONS)


def test_a_row_trains_and_is_evaluated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for i in (1, 2, 3, 4):
        for folder, array in zip(("images", "labels"), draw_cells(i, (72, 96)), strict=True):
            (tmp_path / "cells" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / "cells" / folder / f"{i}.png")
    tiny = {"network_def#features": [2, 4, 8, 16, 32], "tile_size": 204, "training_images": 2}
    monkeypatch.setitem(ROWS, "headline", {"tiny": tiny})
    monkeypatch.setattr(experiments, "EPOCHS", 2)
    monkeypatch.setattr(experiments, "VIEWS", ("mirrors",))
    monkeypatch.setattr(experiments, "steps_per_epoch", lambda *_: 1)
    words = ["--folder", f"nuclei_dsb2018={tmp_path / 'cells'}", "--keep", str(tmp_path / "kept")]
    run_main(tmp_path, "--sets", "nuclei_dsb2018", "--seeds", "4", "--minutes", "0.001", *words)
    title = "headline-nuclei_dsb2018-tiny-4"
    row = json.loads((tmp_path / f"{title}.json").read_text())
    assert (row["steps"], row["threads"], row["images"]) == (2, 1, {"training": 2, "validation": 1})
    assert set(row["measures"]["mirrors"]) >= {"SEG", "AP50", "AP75"}
    assert row["minutes"] < 1
    assert "--dataset_dir DATA/cells --output_dir OUT" in row["commands"]["training"]
    assert str(tmp_path) not in json.dumps(row)
    assert {"commit", "machine", "versions", "overrides"} < set(row)
    assert (tmp_path / "kept" / title / "models" / "model.pt").is_file()
