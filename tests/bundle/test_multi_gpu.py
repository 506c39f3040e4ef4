"""The configs for several devices, run by torchrun as users run them: two processes on the CPU."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image

from tests.bundle.conftest import REPOSITORY

CONFIGS = REPOSITORY / "bundle" / "configs"
# Without normalisation, whose biases before it have gradients of rounding only, which Adam makes steps of. Two images
# train, three validate.
SETTINGS: dict[str, Any] = {"network_def#features": [2, 4, 8, 16, 32], "network_def#norm": "$None", "tile_size": 204}
SETTINGS |= {"steps_per_epoch": 2, "val_interval": 1, "validation": 0.6, "lr_scheduler#t_total": 9}
# An untrained network gives each class about a third; so it finds cells all the same.
FINDING: dict[str, Any] = {"threshold": 0.335, "edge_threshold": 0.66, "min_size": 3}
TIMEOUT = 600


def torchrun(run_id: str, files: list[str], *, job: str = "", **settings: object) -> subprocess.Popen[str]:
    """Start `torchrun -m monai.bundle run ...` with two processes, maybe in a job of Slurm."""
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "monai.bundle", "run", run_id, "--config_file", str([f"{CONFIGS}/{name}" for name in files])]
    command += [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    if job:
        environment |= {"SLURM_JOB_ID": job, "SLURM_LOCALID": "0"}  # torchrun itself is the one task of its machine
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(job: subprocess.Popen[str]) -> str:
    """Wait for a job that ends well, and return what it said."""
    output, _ = job.communicate(timeout=TIMEOUT)
    assert job.returncode == 0, output
    return output


def run_alone(files: list[str], **settings: object) -> None:
    """Run configs in this process."""
    workflow = ConfigWorkflow([str(CONFIGS / name) for name in files], logging_file=False, **settings)
    workflow.initialize()
    workflow.run()


def train_alone(root: Path, cells: Path, epochs: int) -> None:
    """Train with the tiles of both processes in one batch."""
    places = {"bundle_root": str(root), "dataset_dir": str(cells), "device": "cpu"}
    run_alone(["train.json"], batch_size=2, epochs=epochs, **SETTINGS, **places)


def largest_difference(*roots: Path) -> float:
    """Compare the networks, and their averages, that two trainings ended with."""
    states = [torch.load(root / "output" / "last.pt", weights_only=True) for root in roots]
    assert states[0]["epoch"] == states[1]["epoch"]
    return max(
        float((weight - states[1][part][name]).abs().nan_to_num().max())
        for part in ("network", "averaged_network")
        for name, weight in states[0][part].items()
    )


def files_of(folder: Path) -> list[str]:
    """List the files in a folder; TensorBoard's are named by machine and process."""
    names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    return sorted(re.sub(r"tfevents.*", "tfevents", name) for name in names)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, cells: Path) -> tuple[Path, str]:
    """A bundle after a training by two processes, and what they said."""
    root = tmp_path_factory.mktemp("together")
    files = ["train.json", "multi_gpu_train.json"]
    job = torchrun("training", files, bundle_root=root, dataset_dir=cells, epochs=2, **SETTINGS)
    return root, finish(job)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, cells: Path) -> Path:
    """A bundle after the same training by one process."""
    root = tmp_path_factory.mktemp("alone")
    train_alone(root, cells, epochs=2)
    return root


def test_two_processes_train_like_one_with_both_batches(together: tuple[Path, str], alone: Path) -> None:
    root, _ = together
    assert "input_block.norm1.weight" not in torch.load(root / "models" / "model.pt", weights_only=True)
    assert largest_difference(root, alone) < 1e-5


def test_they_do_so_with_the_default_normalisation_too(tmp_path: Path, cells: Path) -> None:
    settings = {**SETTINGS, "network_def#norm": "batch", "optimizer#_target_": "torch.optim.SGD"}
    files = ["train.json", "multi_gpu_train.json"]
    finish(torchrun("training", files, bundle_root=tmp_path / "two", dataset_dir=cells, epochs=1, **settings))
    places = {"bundle_root": str(tmp_path / "one"), "dataset_dir": str(cells), "device": "cpu"}
    run_alone(["train.json"], batch_size=2, epochs=1, **{**settings, **places})
    two, one = (torch.load(tmp_path / name / "output" / "last.pt", weights_only=True) for name in ("two", "one"))
    assert int(two["network"]["input_block.norm1.num_batches_tracked"]) == 2
    for name, weight in one["network"].items():
        largest = max(1.0, float(weight.abs().max().nan_to_num()))
        torch.testing.assert_close(two["network"][name], weight, rtol=0, atol=1e-5 * largest, equal_nan=True)


def test_one_process_writes_and_speaks(together: tuple[Path, str], alone: Path) -> None:
    root, output = together
    assert files_of(root) == files_of(alone)
    for line in ("2 training, 3 validation images", "model.pt: SEG", "report: "):
        assert output.count(line) == 1
    assert ">processes<" in (root / "output" / "report.html").read_text()


def test_losses_and_images_of_all_are_reported(together: tuple[Path, str], alone: Path) -> None:
    root, _ = together
    ours, expected = (json.loads((p / "output" / "report" / "history.json").read_text()) for p in (root, alone))
    for epoch, epoch_alone in zip(ours["epochs"], expected["epochs"], strict=True):
        for key in ("loss", "loss_low", "loss_high"):
            assert epoch[key] == pytest.approx(epoch_alone[key], abs=1e-5)
    assert [Path(result["address"]).stem for result in ours["results"]] == ["cell 2", "cell 3", "cell 4"]


def test_evaluation_by_two_equals_that_by_one(alone: Path, cells: Path, tmp_path: Path) -> None:
    files = ["train.json", "evaluate.json"]
    places = {"bundle_root": str(alone), "dataset_dir": str(cells), **SETTINGS, **FINDING}
    together = torchrun("evaluating", [*files, "multi_gpu_evaluate.json"], output_dir=tmp_path / "two", **places)
    run_alone(files, output_dir=str(tmp_path / "one"), device="cpu", **places)
    output = finish(together)
    assert output.count("report: ") == 1
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")
    one, two = (tmp_path / name / "evaluation" for name in ("one", "two"))
    for table in ("images.csv", "metrics.csv"):
        assert (two / table).read_text() == (one / table).read_text()
    header, *rows = [line.split(",") for line in (two / "images.csv").read_text().splitlines()]
    found = [sum(int(row[i]) for i, name in enumerate(header) if name.startswith("predicted_")) for row in rows]
    assert len(rows) == 3
    assert min(found) > 0, "test invalid: nothing was found"
    for picture in one.glob("report/*.png"):
        np.testing.assert_array_equal(np.asarray(Image.open(two / "report" / picture.name)), Image.open(picture))


def test_inference_by_two_equals_that_by_one(alone: Path, cells: Path, tmp_path: Path) -> None:
    network = {name: value for name, value in SETTINGS.items() if name.startswith("network_def")}
    places = {"bundle_root": str(alone), "input": str(cells / "images"), **network, **FINDING}
    together = torchrun("run", ["inference.json", "multi_gpu_inference.json"], output_dir=tmp_path / "two", **places)
    run_alone(["inference.json"], output_dir=str(tmp_path / "one"), device="cpu", **places)
    assert finish(together).count(f"5 images segmented, results in {tmp_path / 'two'}") == 1
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")
    assert len(files_of(tmp_path / "two")) == 15
    for path in (tmp_path / "one").iterdir():
        assert (tmp_path / "two" / path.name).read_bytes() == path.read_bytes()


def test_a_job_of_slurm_keeps_the_local_ranks(alone: Path, cells: Path, tmp_path: Path) -> None:
    """Ignite takes Slurm's for torchrun's, and all processes of a machine would be its first one."""
    network = {name: value for name, value in SETTINGS.items() if name.startswith("network_def")}
    places = {"bundle_root": str(alone), "input": str(cells / "images"), "output_dir": tmp_path, **network}
    rank = "__import__('ignite.distributed').distributed.get_local_rank()"
    # To files: what two processes print may come mixed.
    notes = f"$__import__('pathlib').Path('{tmp_path}', 'local rank ' + str({rank})).touch()"
    files = ["inference.json", "multi_gpu_inference.json"]
    finish(torchrun("run", files, job="7", **places, finalize=[notes, "$dist.destroy_process_group()"]))
    assert sorted(path.name for path in tmp_path.glob("local*")) == ["local rank 0", "local rank 1"]


def test_fewer_images_than_processes(alone: Path, cells: Path, tmp_path: Path) -> None:
    network = {name: value for name, value in SETTINGS.items() if name.startswith("network_def")}
    places = {"bundle_root": str(alone), "input": str(cells / "images" / "cell 1.png"), "output_dir": tmp_path}
    job = torchrun("run", ["inference.json", "multi_gpu_inference.json"], **places, **network)
    output, _ = job.communicate(timeout=TIMEOUT)
    assert job.returncode != 0
    line = "ValueError: dataset must hold at least one image for each of the 2 processes, got 1: start fewer"
    assert output.count(line) >= 1
    assert 'File "' not in output.partition(line)[0]


@pytest.mark.parametrize(
    "files",
    [
        ["train.json", "multi_gpu_train.json"],
        ["train.json", "evaluate.json", "multi_gpu_evaluate.json"],
        ["inference.json", "multi_gpu_inference.json"],
    ],
    ids=lambda files: files[-1],
)
def test_without_torchrun_one_line_says_so(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(SystemExit, match=r"^multi_gpu_\*\.json needs torchrun: torchrun --nproc_per_node=2"):
        run_alone(files)


def pid_of_rank(job: subprocess.Popen[str], rank: int) -> int:
    """Find the process of a rank among the children of torchrun."""
    children = [pid for path in Path(f"/proc/{job.pid}/task").glob("*/children") for pid in path.read_text().split()]
    wanted = f"RANK={rank}".encode()
    (pid,) = [pid for pid in children if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")]
    return int(pid)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the processes as Linux lists them")
def test_a_dead_process_ends_the_job_and_resume_goes_on(cells: Path, tmp_path: Path) -> None:
    files = ["train.json", "multi_gpu_train.json"]
    places = {"bundle_root": tmp_path / "killed", "dataset_dir": cells, **SETTINGS}
    state_path = tmp_path / "killed" / "output" / "last.pt"
    job = torchrun("training", files, epochs=10_000, **places)
    deadline = time.monotonic() + TIMEOUT
    while not state_path.is_file():
        assert job.poll() is None, job.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(pid_of_rank(job, 1), signal.SIGKILL)
    output, _ = job.communicate(timeout=TIMEOUT)
    assert job.returncode != 0
    assert "Signal 9 (SIGKILL)" in output
    epoch = torch.load(state_path, weights_only=True)["epoch"]
    output = finish(torchrun("training", files, epochs=epoch + 1, resume=True, **places))
    assert output.count(f"resumed after epoch {epoch} from") == 1
    train_alone(tmp_path / "undisturbed", cells, epochs=epoch + 1)
    assert largest_difference(tmp_path / "killed", tmp_path / "undisturbed") < 1e-5 * (epoch + 1)
