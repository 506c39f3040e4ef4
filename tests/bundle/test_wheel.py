"""The wheel, built and used where the repository is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from unet_monai import segment
from unet_monai.data import draw_cells

from tests.bundle.conftest import REPOSITORY

WEIGHTS = REPOSITORY / "bundle" / "weights" / "nuclei.pt"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `pip install` of the wheel puts into an environment."""
    source, wheels, site = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "site"))
    for name in ("unet_monai", "bundle"):
        shutil.copytree(
            REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "models", "output")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, source]
    subprocess.run(pip, check=True, capture_output=True)
    (wheel,) = wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def run(site: Path, cwd: Path, *words: object) -> str:
    """Run a module of the wheel, or of what it needs, and return what it prints; `-S` hides the repository."""
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{sysconfig.get_path('purelib')}"}
    command = [sys.executable, "-S", "-W", "ignore", "-m", *map(str, words)]
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_segments_and_packs_without_the_repository(site: Path, tmp_path: Path) -> None:
    configs = Path(run(site, tmp_path, "unet_monai.bundle.configs").strip())
    assert site in configs.parents
    picture = draw_cells(3, (72, 96))[0]
    Image.fromarray(picture).save(tmp_path / "a.png")
    places = ["--bundle_root", tmp_path, "--checkpoint", WEIGHTS, "--input", tmp_path / "a.png", "--output_dir", "out"]
    run(site, tmp_path, "monai.bundle", "run", "--config_file", configs / "inference.json", *places)
    expected = segment(picture, WEIGHTS)
    assert expected.max() > 1, "test invalid: nothing was found"
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "a.png")), expected)
    run(site, tmp_path, "unet_monai.bundle.pack", "--weights", WEIGHTS, "--output", "dist")
    packed = tmp_path / "dist" / "cell_unet_segmentation"
    assert (packed / "configs" / "train.json").read_bytes() == (configs / "train.json").read_bytes()
