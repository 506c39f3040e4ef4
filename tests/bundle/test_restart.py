"""Training killed by SIGKILL and resumed, by the real command: the same weights, bit for bit, as undisturbed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from unet_monai.handlers.checkpoints import save_atomically

from tests.bundle.conftest import REPOSITORY

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
TRAIN = REPOSITORY / "bundle" / "configs" / "train.json"
SETTINGS = ["--network_def#features", "[2,4,8,16,32]", "--network_def#dropout", "0.5", "--tile_size", "204"]
SETTINGS += ["--steps_per_epoch", "2", "--val_interval", "2", "--device", "cpu"]
START_UP = 120  # seconds, on a busy machine


def start(root: Path, cells: Path, epochs: int, *, resume: bool) -> subprocess.Popen[bytes]:
    """Start the real command; its output goes to `log.txt`."""
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", "training", "--config_file", str(TRAIN)]
    command += ["--bundle_root", str(root), "--dataset_dir", str(cells), "--epochs", str(epochs), *SETTINGS]
    command += ["--resume", str(resume)]
    root.mkdir(exist_ok=True)
    with (root / "log.txt").open("ab") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, cwd=root, env=environment, stdout=log, stderr=subprocess.STDOUT)


def wait_for(training: subprocess.Popen[bytes], root: Path) -> None:
    assert training.wait(timeout=600) == 0, (root / "log.txt").read_text()


def kill_after_checkpoint(root: Path, cells: Path, epochs: int, delay: float, *, resume: bool) -> None:
    """Start a training and kill it `delay` seconds after the first checkpoint that it writes."""
    state = root / "output" / "last.pt"
    before = state.stat().st_ino if state.exists() else None
    training = start(root, cells, epochs, resume=resume)
    end = time.monotonic() + START_UP
    while not state.exists() or state.stat().st_ino == before:
        assert training.poll() is None, (root / "log.txt").read_text()
        assert time.monotonic() < end, "no checkpoint was written"
        time.sleep(0.01)
    time.sleep(delay)
    os.kill(training.pid, signal.SIGKILL)
    assert training.wait() == -signal.SIGKILL, "test invalid: the training was over before it was killed"


def assert_same(one: Any, other: Any, where: str = "") -> None:
    """Compare two saved states, tensor by tensor and bit for bit."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other) or (one.isnan().all() and other.isnan().all()), where
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where} {key}")
    else:
        assert one == other, where


def assert_same_training(one: Path, other: Path) -> None:
    """Compare the weights kept, and the last state: both networks, the optimiser, the step and the best metric."""
    for name in ("models/model.pt", "output/last.pt"):
        assert_same(*(torch.load(root / name, weights_only=True) for root in (one, other)), name)


def test_one_kill_changes_nothing(cells: Path, tmp_path: Path) -> None:
    epochs = 10
    undisturbed = start(tmp_path / "undisturbed", cells, epochs, resume=False)
    kill_after_checkpoint(tmp_path / "killed", cells, epochs, random.Random(0).uniform(0, 0.5), resume=False)
    reached = torch.load(tmp_path / "killed" / "output" / "last.pt", weights_only=True)["epoch"]
    assert 1 <= reached < epochs
    wait_for(start(tmp_path / "killed", cells, epochs, resume=True), tmp_path / "killed")
    wait_for(undisturbed, tmp_path / "undisturbed")
    assert f"resumed after epoch {reached} from " in (tmp_path / "killed" / "log.txt").read_text()
    assert_same_training(tmp_path / "killed", tmp_path / "undisturbed")


@pytest.mark.slow
def test_twenty_kills_change_nothing(cells: Path, tmp_path: Path) -> None:
    epochs, delays = 120, random.Random(1)
    undisturbed = start(tmp_path / "undisturbed", cells, epochs, resume=False)
    for kill in range(20):
        kill_after_checkpoint(tmp_path / "killed", cells, epochs, delays.uniform(0, 0.6), resume=kill > 0)
    wait_for(start(tmp_path / "killed", cells, epochs, resume=True), tmp_path / "killed")
    wait_for(undisturbed, tmp_path / "undisturbed")
    assert_same_training(tmp_path / "killed", tmp_path / "undisturbed")


WRITE_WITHOUT_END = """
import sys, torch
from unet_monai.handlers.checkpoints import save_atomically
for value in range(10**9):
    save_atomically({"value": torch.full((2_000_000,), value)}, sys.argv[1])
    print(value, flush=True)
"""


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))])
def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path: Path, seed: int) -> None:
    """It does nothing but save, 8 MB each time, so the kill falls into a write, or between two."""
    path = tmp_path / "last.pt"
    command = [sys.executable, "-c", WRITE_WITHOUT_END, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "0\n"
        time.sleep(random.Random(seed).uniform(0.05, 0.3))
        writer.kill()
        reported = [0, *map(int, writer.stdout.read().split())][-1]
    value = torch.load(path, weights_only=True)["value"]
    assert len(value.unique()) == 1
    assert reported <= int(value[0]) <= reported + 1
    save_atomically({"value": torch.tensor(-1)}, path)
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"], "the next save takes over what the kill left"
