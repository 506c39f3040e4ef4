from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from unet_monai.data import draw_cells

REPOSITORY = Path(__file__).parents[2]
# The real configs, with a network and a length that take seconds.
TINY = ["--network_def#features", "[2,4,8,16,32]", "--tile_size", "204", "--epochs", "1", "--steps_per_epoch", "2"]
TINY += ["--val_interval", "1"]

Run = Callable[..., subprocess.CompletedProcess[str]]


def run_bundle(cwd: Path, *args: object) -> subprocess.CompletedProcess[str]:
    """Run `python -m monai.bundle run ...` in a process of its own, as a user does."""
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", *map(str, args)]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240
    )


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed bundle, where nobody has run anything: configs and package side by side."""
    root = tmp_path_factory.mktemp("bundles") / "cell_unet_segmentation"
    shutil.copytree(REPOSITORY / "bundle" / "configs", root / "configs")
    shutil.copytree(REPOSITORY / "unet_monai", root / "unet_monai", ignore=shutil.ignore_patterns("__pycache__"))
    return root


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of a user: five small, non-square images and their labels."""
    root = tmp_path_factory.mktemp("user dätä 細胞")
    for i in range(5):
        for folder, array in zip(("images", "labels"), draw_cells(i, (72, 96)), strict=True):
            (root / folder).mkdir(exist_ok=True)
            Image.fromarray(array).save(root / folder / f"cell {i}.png")
    return root


@pytest.fixture(scope="session")
def trained(packed: Path, cells: Path) -> Path:
    """The packed bundle after a short training on the user's data."""
    result = run_bundle(packed, "training", "--config_file", "configs/train.json", "--dataset_dir", cells, *TINY)
    assert result.returncode == 0, result.stderr
    return packed
