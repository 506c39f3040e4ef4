"""Trainings recorded by mlflow in a local database, read back by mlflow's own client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigWorkflow
from monai.utils import path_to_sqlite_uri

from tests.bundle.conftest import REPOSITORY, TINY, run_bundle
from tests.bundle.test_multi_gpu import finish, torchrun

mlflow = pytest.importorskip("mlflow", reason='NOT RUN: mlflow is not installed: pip install "unet-monai[tracking]"')
CONFIGS = REPOSITORY / "bundle" / "configs"
SETTINGS = {"network_def#features": [2, 4, 8, 16, 32], "tile_size": 204, "epochs": 2, "steps_per_epoch": 2}
METRICS = {"SEG", "DET", "AP50", "AP75", "PQ"}


@pytest.fixture(autouse=True)
def local_store_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing goes to a server that the machine's settings name, nor to mlflow's makers."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)


def open_store(output_dir: Path) -> Any:
    """Open the database of an output folder, which must exist: the client would make a new one."""
    assert (output_dir / "mlruns.db").is_file()
    return mlflow.MlflowClient(path_to_sqlite_uri(output_dir / "mlruns.db"))


def runs_of(client: Any, experiment: str) -> list[Any]:
    """List the runs of an experiment, the oldest first."""
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return sorted(found, key=lambda run: run.info.start_time)


def history(client: Any, run: Any, metric: str) -> list[int]:
    return [entry.step for entry in client.get_metric_history(run.info.run_id, metric)]


def artifacts(client: Any, run: Any) -> list[str]:
    return [entry.path for entry in client.list_artifacts(run.info.run_id)]


def train_here(folder: Path, cells: Path, tracking: str, **settings: object) -> None:
    """Run the training config in this process, with the tiny settings."""
    places = {"bundle_root": str(folder), "dataset_dir": str(cells), "val_interval": 1}
    workflow = ConfigWorkflow(
        str(CONFIGS / "train.json"), logging_file=False, tracking=tracking, **{**SETTINGS, **places, **settings}
    )
    workflow.initialize()
    workflow.run()


def test_a_training_is_recorded(cells: Path, tmp_path: Path) -> None:
    train_here(tmp_path, cells, "mlflow")
    client = open_store(tmp_path / "output")
    (run,) = runs_of(client, "monai_experiment")
    assert run.info.status == "FINISHED"
    assert run.data.params == {"max_epochs": "2", "epoch_length": "2"}
    assert run.data.metrics.keys() == {*METRICS, "train_loss", "lr_group_0"}
    assert history(client, run, "train_loss") == [1, 2, 3, 4]
    assert history(client, run, "SEG") == [1, 2]
    (config,) = artifacts(client, run)
    executed = json.loads(Path(client.download_artifacts(run.info.run_id, config)).read_text())
    assert executed["tile_size"] == 204
    assert executed["dataset_dir"] == str(cells)


def test_the_bundles_own_settings_record_more(cells: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a user's"
    for seed in (0, 1):
        train_here(folder, cells, str(CONFIGS / "mlflow.json"), seed=seed)
    client = open_store(folder / "output")
    runs = runs_of(client, "cell_unet_segmentation")
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    assert [run.data.params["seed"] for run in runs] == ["0", "1"]
    settings = json.loads((CONFIGS / "train.json").read_text())["settings"]
    assert runs[0].data.params.keys() == {*settings, "max_epochs", "epoch_length"}
    assert runs[0].data.metrics.keys() == {*METRICS, "train_loss", "lr_group_0"}
    assert history(client, runs[1], "train_loss") == [1, 2, 3, 4]
    assert history(client, runs[1], "SEG") == [1, 2]
    assert artifacts(client, runs[1]) == ["report.html"]
    kept = {path.name for path in (folder / "output" / "mlruns").iterdir()}
    assert kept == {run.info.run_id for run in runs}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tracking", "experiment", "mixed"),
    [("mlflow", "monai_experiment", True), (str(CONFIGS / "mlflow.json"), "cell_unet_segmentation", False)],
)
def test_a_training_after_one_that_was_killed(
    cells: Path, tmp_path: Path, tracking: str, experiment: str, mixed: bool
) -> None:
    """MONAI goes on in any run that has no end, unless the new one has a name of its own."""
    (tmp_path / "output").mkdir()
    client = mlflow.MlflowClient(path_to_sqlite_uri(tmp_path / "output" / "mlruns.db"))
    number = client.create_experiment(experiment, artifact_location=(tmp_path / "output" / "mlruns").as_uri())
    killed = client.create_run(number, run_name="killed")
    train_here(tmp_path, cells, tracking)
    first, *others = runs_of(client, experiment)
    assert first.info.run_id == killed.info.run_id
    assert [run.info.status for run in (first, *others)] == (["FINISHED"] if mixed else ["RUNNING", "FINISHED"])
    assert ("SEG" in first.data.metrics) == mixed


@pytest.mark.slow
def test_an_evaluation_is_recorded_by_the_bundles_settings(cells: Path, tmp_path: Path) -> None:
    train_here(tmp_path, cells, str(CONFIGS / "mlflow.json"), epochs=1)
    names = ["train.json", "evaluate.json"]
    places = {"bundle_root": str(tmp_path), "dataset_dir": str(cells), "output_dir": str(tmp_path / "evaluated")}
    workflow = ConfigWorkflow(
        [str(CONFIGS / name) for name in names],
        logging_file=False,
        tracking=str(CONFIGS / "mlflow.json"),
        **{**SETTINGS, **places},
    )
    workflow.initialize()
    workflow.run()
    (run,) = runs_of(open_store(tmp_path / "evaluated"), "cell_unet_segmentation")
    assert run.data.metrics.keys() == METRICS


@pytest.mark.slow
@pytest.mark.parametrize("tracking", ["mlflow", "configs/mlflow.json"])
def test_the_packed_bundle_records_from_the_command_line(
    packed: Path, cells: Path, tmp_path: Path, tracking: str
) -> None:
    output = tmp_path / "elsewhere"
    places = ["--dataset_dir", cells, "--ckpt_dir", tmp_path / "models", "--output_dir", output]
    command = ["training", "--config_file", "configs/train.json", "--tracking", tracking]
    result = run_bundle(packed, *command, *places, *TINY)
    assert result.returncode == 0, result.stderr
    client = open_store(output)
    (run,) = runs_of(client, "monai_experiment" if tracking == "mlflow" else "cell_unet_segmentation")
    assert run.info.status == "FINISHED"
    assert run.data.metrics.keys() == {*METRICS, "train_loss", "lr_group_0"}
    assert run.data.params["max_epochs"] == "1"
    # MONAI's own settings cannot keep the config where the folder is given as plain text.
    assert artifacts(client, run) == ([] if tracking == "mlflow" else ["report.html"])


@pytest.mark.slow
def test_evaluation_and_inference_are_recorded(trained: Path, cells: Path, tmp_path: Path) -> None:
    features = ["--network_def#features", "[2,4,8,16,32]", "--tracking", "mlflow"]
    files = "['configs/train.json','configs/evaluate.json']"
    args = ["--dataset_dir", cells, "--output_dir", tmp_path / "evaluated"]
    result = run_bundle(trained, "evaluating", "--config_file", files, *args, *features)
    assert result.returncode == 0, result.stderr
    (run,) = runs_of(open_store(tmp_path / "evaluated"), "monai_experiment")
    assert run.data.metrics.keys() == METRICS
    args = ["--input", cells / "images", "--output_dir", tmp_path / "found"]
    result = run_bundle(trained, "run", "--config_file", "configs/inference.json", *args, *features)
    assert result.returncode == 0, result.stderr
    (run,) = runs_of(open_store(tmp_path / "found"), "monai_experiment")
    assert run.info.status == "FINISHED"
    assert run.data.params["epoch_length"] == "5"


@pytest.mark.slow
def test_of_two_processes_one_records(cells: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "val_interval": 1, "validation": 0.6, "tracking": CONFIGS / "mlflow.json"}
    files = ["train.json", "multi_gpu_train.json"]
    finish(torchrun("training", files, bundle_root=tmp_path, dataset_dir=cells, **settings))
    client = open_store(tmp_path / "output")
    (run,) = runs_of(client, "cell_unet_segmentation")
    assert run.info.status == "FINISHED"
    assert run.data.params["processes"] == "2"
    assert history(client, run, "train_loss") == [1, 2, 3, 4]
    assert history(client, run, "SEG") == [1, 2]
    assert artifacts(client, run) == ["report.html"]
