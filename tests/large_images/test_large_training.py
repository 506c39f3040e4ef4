"""The real training command on files that are read window by window."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.bundle import ConfigParser
from unet_monai.data import draw_cells
from unet_monai.large_images.lazy_image import PixelGrid

from tests.bundle.conftest import REPOSITORY, TINY, run_bundle
from tests.large_images.pairs import write_tiff, write_zarr

CONFIGS = REPOSITORY / "bundle" / "configs"
FILES = f"['{CONFIGS}/train.json','{CONFIGS}/train_large.json']"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiled TIFF of 1300 x 700 px, of which an OME-Zarr labels 1150 x 620 px."""
    folder = tmp_path_factory.mktemp("large")
    image, label = (array.T for array in draw_cells(0, (700, 1300)))
    write_tiff(folder / "images" / "a.tif", image)
    grid = PixelGrid((1.0, 1.0), (100.0, 40.0), None)
    write_zarr(folder / "labels" / "a.zarr", label[100:1250, 40:660].astype(np.uint32), grid)
    return folder


def train(dataset: Path, output: Path, *settings: object) -> Any:
    places = ["--ckpt_dir", output / "models", "--output_dir", output]
    return run_bundle(
        REPOSITORY, "training", "--config_file", FILES, "--dataset_dir", dataset, *places, *TINY, *settings
    )


def test_training_runs_to_the_end_and_writes_weights(dataset: Path, tmp_path: Path) -> None:
    result = train(dataset, tmp_path, "--largest_diameter", 20, "--num_workers", 1)
    assert result.returncode == 0, result.stderr
    assert "1 files, 6 blocks with cells, 1 validate." in result.stdout + result.stderr
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["model.pt", "split.json"]
    split = json.loads((tmp_path / "models" / "split.json").read_text())
    assert [item["held_out"] for item in split["training"]] == [[3]]
    assert [item["block"] for item in split["validation"]] == [3]
    assert any(path.name.endswith("a_612-552.png") for path in (tmp_path / "report").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--border_label", "2"], "border_label must be None for labels that are read by windows, got 2."),
        (["--validation", "t0*"], "validation must be a share of the blocks, at least 0 and below 1, got 't0*'."),
        (["--ignore_label", "7.5"], "--ignore_label must be a whole number, got 7.5."),
    ],
)
def test_wrong_settings_end_in_one_line(dataset: Path, tmp_path: Path, settings: list[str], message: str) -> None:
    result = train(dataset, tmp_path, *settings)
    assert result.returncode == 1
    assert message in result.stderr.splitlines()[-1]


def test_all_but_the_place_of_a_tile_is_as_in_memory() -> None:
    """The overlay's lists repeat what train.json says."""
    train, large = (
        ConfigParser.load_config_files([str(CONFIGS / name) for name in names])
        for names in (["train.json"], ["train.json", "train_large.json"])
    )
    lazy, *others = large["train"]["tile_transforms"]
    rescaled, deformed, *others_in_memory = train["train"]["tile_transforms"]
    assert others == others_in_memory
    own = ("_target_", "keys", "label_key")
    in_memory = {name: value for name, value in deformed.items() if name not in own}
    assert {name: value for name, value in lazy["deformation"].items() if name != "_target_"} == in_memory
    assert {name: lazy[name] for name in ("scale", "smoothing")} == {
        name: rescaled[name] for name in ("scale", "smoothing")
    }
