"""Training on files read by windows, killed by SIGKILL and resumed: the same weights, bit for bit, as undisturbed."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
import torch

from tests.bundle import test_restart as restart
from tests.large_images.test_large_training import FILES
from tests.large_images.test_large_training import dataset as dataset  # a fixture


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_kill_changes_nothing(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Places of tiles are drawn by worker processes, from a scan of the labels that the resumed run repeats."""
    epochs, settings = 6, ["--largest_diameter", "20", "--num_workers", "1"]
    monkeypatch.setattr(restart, "TRAIN", FILES)
    monkeypatch.setattr(restart, "SETTINGS", [*restart.SETTINGS, *settings])
    undisturbed = restart.start(tmp_path / "undisturbed", dataset, epochs, resume=False)
    delay = random.Random(0).uniform(0, 0.5)
    restart.kill_after_checkpoint(tmp_path / "killed", dataset, epochs, delay, resume=False)
    reached = torch.load(tmp_path / "killed" / "output" / "last.pt", weights_only=True)["epoch"]
    assert 1 <= reached < epochs, "test invalid"
    restart.wait_for(restart.start(tmp_path / "killed", dataset, epochs, resume=True), tmp_path / "killed")
    restart.wait_for(undisturbed, tmp_path / "undisturbed")
    assert f"resumed after epoch {reached} from " in (tmp_path / "killed" / "log.txt").read_text()
    restart.assert_same_training(tmp_path / "killed", tmp_path / "undisturbed")
    before, after = (
        torch.load(tmp_path / "killed" / name, weights_only=True) for name in ("output/last.pt", "models/model.pt")
    )
    assert before["epoch"] == epochs
    assert after, "test invalid"
