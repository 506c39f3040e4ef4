"""The config for large images, run by torchrun as users run it: two processes on one image, on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tifffile
import torch

from tests.bundle.conftest import REPOSITORY, run_bundle
from tests.large_images.images import make_finding_network
from tests.large_images.test_segmenter import draw_nuclei, read
from tests.large_images.test_workers import files

CONFIG = REPOSITORY / "bundle" / "configs" / "inference_large.json"
START_UP = 120  # seconds, on a busy machine


def holders(output: Path) -> set[int]:
    """List the processes whose claims on blocks to score stand in the folder now."""
    found = set()
    for claim in output.glob(".part-cells/scores/*.claim-*"):
        try:
            found.add(json.loads(claim.read_text())["process"])
        except (FileNotFoundError, json.JSONDecodeError):  # the run is over, or the claim was created just now
            continue
    return found


@pytest.mark.slow
def test_two_processes_share_the_blocks_and_end_with_the_bytes_of_one(tmp_path: Path) -> None:
    torch.save(make_finding_network().state_dict(), tmp_path / "model.pt")
    tifffile.imwrite(tmp_path / "cells.tif", draw_nuclei(500, 600), tile=(64, 64))
    words: list[object] = ["evaluating", "--config_file", CONFIG, "--input", tmp_path / "cells.tif"]
    words += ["--checkpoint", tmp_path / "model.pt", "--chunk", 32, "--reach", 32, "--memory_budget", 2_000_000]
    words += ["--save_scores", "True", "--save_tiff", "True", "--output_dir"]
    torchrun = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*torchrun, "-m", "monai.bundle", "run", *map(str, words), str(tmp_path / "two")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    seen: set[int] = set()
    with (tmp_path / "log.txt").open("wb") as log:
        job = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT)
        while job.poll() is None and len(seen) < 2:
            seen |= holders(tmp_path / "two")
            time.sleep(0.01)
        assert job.wait(timeout=5 * START_UP) == 0, (tmp_path / "log.txt").read_text()
    assert len(seen) == 2, "both processes must claim blocks"
    one = run_bundle(tmp_path, *words, tmp_path / "one")
    assert one.returncode == 0, one.stderr
    assert read(tmp_path / "one" / "cells_cells.zarr").max() > 100, "test invalid"
    assert files(tmp_path / "two") == files(tmp_path / "one")
