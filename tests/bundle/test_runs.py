"""The real configs, run as users run them, in processes of their own."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from PIL import Image
from unet_monai import segment
from unet_monai.bundle.errors import first_cause
from unet_monai.data import draw_cells

from tests.bundle.conftest import REPOSITORY, TINY, run_bundle


@pytest.mark.parametrize(("start", "configs"), [(".", "bundle/configs"), ("bundle", "configs"), ("/", None)])
def test_trains_from_three_working_directories(start: str, configs: str | None, cells: Path, tmp_path: Path) -> None:
    folder = configs or REPOSITORY / "bundle" / "configs"
    places = ["--ckpt_dir", tmp_path / "models", "--output_dir", tmp_path / "output"]
    result = run_bundle(
        REPOSITORY / start, "training", "--config_file", f"{folder}/train.json", "--dataset_dir", cells, *places, *TINY
    )
    assert result.returncode == 0, result.stderr
    assert sorted(p.name for p in (tmp_path / "models").iterdir()) == ["model.pt", "split.json"]
    assert {"last.pt", "report", "report.html", "tensorboard"} <= {p.name for p in (tmp_path / "output").iterdir()}


def test_defaults_of_a_packed_bundle_draw_and_use_the_demo(packed: Path, tmp_path: Path) -> None:
    result = run_bundle(tmp_path, "run", "--config_file", packed / "configs" / "train.json", *TINY)
    assert result.returncode == 0, result.stderr
    assert "Drew the demo set" in result.stdout
    assert "19 training, 5 validation images" in result.stdout
    assert {p.name for p in packed.iterdir()} == {"configs", "unet_monai", "models", "output"}


def test_split_is_saved_beside_the_weights(trained: Path) -> None:
    split = json.loads((trained / "models" / "split.json").read_text())
    assert [Path(item["image"]).stem for item in split["validation"]] == ["cell 4"]
    assert len(split["training"]) == 4


@pytest.mark.parametrize("single_file", [False, True])
def test_inference_equals_segment(trained: Path, cells: Path, tmp_path: Path, single_file: bool) -> None:
    source = cells / "images" / "cell 3.png" if single_file else cells / "images"
    # An untrained network gives each class about a third; the thresholds and the size are set so that it finds cells.
    knobs = ["--threshold", "0.335", "--edge_threshold", "0.66", "--min_size", "3"]
    knobs += ["--network_def#features", "[2,4,8,16,32]"]
    result = run_bundle(
        trained, "run", "--config_file", "configs/inference.json", "--input", source, "--output_dir", tmp_path, *knobs
    )
    assert result.returncode == 0, result.stderr
    assert f"weights: {trained / 'models' / 'model.pt'}" in result.stdout
    assert len(list(tmp_path.iterdir())) == (3 if single_file else 15)
    written = np.asarray(Image.open(tmp_path / "cell 3.png"))
    expected = segment(
        draw_cells(3, (72, 96))[0], trained / "models" / "model.pt", threshold=0.335, edge_threshold=0.66, min_size=3
    )
    assert written.shape == (72, 96)
    assert len(np.unique(expected)) > 1, "test invalid: nothing was found"
    np.testing.assert_array_equal(written, expected)


def test_evaluation_writes_measures_and_pictures(trained: Path, cells: Path, tmp_path: Path) -> None:
    files = "['configs/train.json','configs/evaluate.json']"
    args = ["--dataset_dir", cells, "--output_dir", tmp_path, "--network_def#features", "[2,4,8,16,32]"]
    result = run_bundle(trained, "evaluating", "--config_file", files, *args)
    assert result.returncode == 0, result.stderr
    assert "SEG" in result.stdout
    names = {p.name for p in (tmp_path / "evaluation").iterdir()}
    assert {"metrics.csv", "images.csv", "report", "report.html"} <= names
    header, *rows = (tmp_path / "evaluation" / "images.csv").read_text().splitlines()
    assert header.startswith("image,SEG,DET,AP50,AP75,PQ,true_right,")
    assert len(rows) == 1
    assert "cell 4" in rows[0]


def run_here(tmp_path: Path, cells: Path, **settings: object) -> None:
    """Run the training config in this process, with the tiny settings."""
    tiny = {"network_def#features": [2, 4, 8, 16, 32], "tile_size": 204, "epochs": 1, "steps_per_epoch": 2}
    places = {"bundle_root": str(tmp_path), "dataset_dir": str(cells), "val_interval": 1}
    workflow = ConfigWorkflow(
        str(REPOSITORY / "bundle" / "configs" / "train.json"), logging_file=False, **{**tiny, **places, **settings}
    )
    workflow.initialize()
    workflow.run()


def test_resumed_training_equals_an_undisturbed_one(cells: Path, tmp_path: Path) -> None:
    schedule = {"lr_scheduler#t_total": 2, "network_def#dropout": 0.5}
    run_here(tmp_path / "stopped", cells, **schedule)
    run_here(tmp_path / "stopped", cells, **schedule, epochs=2, resume=True)
    run_here(tmp_path / "undisturbed", cells, **schedule, epochs=2)
    resumed, undisturbed = (
        torch.load(tmp_path / name / "output" / "last.pt", weights_only=True) for name in ("stopped", "undisturbed")
    )
    assert resumed["epoch"] == undisturbed["epoch"] == 2
    assert all(torch.equal(resumed["network"][name], weight) for name, weight in undisturbed["network"].items())


def test_training_starts_from_shipped_weights_and_leaves_them_alone(trained: Path, cells: Path, tmp_path: Path) -> None:
    for folder in ("configs", "unet_monai"):
        shutil.copytree(trained / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shipped = tmp_path / "weights" / "cells.pt"
    shipped.parent.mkdir()
    shutil.copy(trained / "models" / "model.pt", shipped)
    before = shipped.read_bytes()
    # Steps of length 0: what is trained is what was loaded. At the scale of 3 the cells look three times as large.
    args = ["--dataset_dir", cells, "--pretrained", shipped, "--learning_rate", "0", "--scale", "3"]
    args += ["--network_def#out_channels", "2"]
    result = run_bundle(tmp_path, "training", "--config_file", "configs/train.json", *args, *TINY)
    assert result.returncode == 0, result.stderr
    assert (
        f"starting from the weights of {shipped}\noutput_conv starts anew, with 2 classes instead of 3" in result.stdout
    )
    assert "the other: --scale 1 shows the network" in result.stdout
    assert [path.name for path in shipped.parent.iterdir()] == ["cells.pt"]
    assert shipped.read_bytes() == before
    learnt, now = (torch.load(p, weights_only=True) for p in (shipped, tmp_path / "models" / "model.pt"))
    weights = [name for name in now if name.endswith(("weight", "bias"))]
    changed = {name for name in weights if not torch.equal(now[name], learnt[name])}
    assert changed == {"output_conv.weight", "output_conv.bias"}
    assert now["image_scale"] == 3


def test_inference_warns_of_cells_of_another_size(trained: Path, cells: Path, tmp_path: Path) -> None:
    state = torch.load(trained / "models" / "model.pt", weights_only=True)
    state["cell_diameter"] = torch.tensor(400.0)
    torch.save(state, tmp_path / "model.pt")
    knobs = ["--threshold", "0.335", "--edge_threshold", "0.66", "--min_size", "3"]
    knobs += ["--network_def#features", "[2,4,8,16,32]", "--checkpoint", tmp_path / "model.pt"]
    places = ["--input", cells / "images", "--output_dir", tmp_path / "found"]
    result = run_bundle(trained, "run", "--config_file", "configs/inference.json", *places, *knobs)
    assert result.returncode == 0, result.stderr
    warnings = [line for line in result.stdout.splitlines() if "the network looked for 400.0 px" in line]
    assert len(warnings) == 1
    found = [
        np.unique(np.asarray(Image.open(tmp_path / "found" / f"cell {i}.png")), return_counts=True)[1][1:]
        for i in range(5)
    ]
    assert f"--cell_diameter {2 * np.sqrt(np.median(np.concatenate(found)) / np.pi):.1f} if" in warnings[0]


def test_training_without_validation_keeps_the_final_weights(cells: Path, tmp_path: Path) -> None:
    run_here(tmp_path, cells, validation=0)
    best = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    last = torch.load(tmp_path / "output" / "last.pt", weights_only=True)["averaged_network"]
    assert all(torch.equal(best[name], weight) for name, weight in last.items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tile_size": 500}, r"such as 492 or 508, got 500\."),
        ({"validation": "xyz*"}, "xyz"),
        ({"resume": True}, "leave out --resume to start one"),
        ({"pretrained": "no/such.pt"}, r"pretrained must be an existing file, got no/such\.pt\."),
        ({"validation": 1.0}, "data must hold at least one training image"),
    ],
)
def test_mistakes_stop_before_training(cells: Path, tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises((RuntimeError, ValueError), match="Failed to") as error:
        run_here(tmp_path, cells, **settings)
    assert re.search(message, str(first_cause(error.value)))
    assert not (tmp_path / "models" / "model.pt").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--epocs", "5"], "unknown setting '--epocs': did you mean '--epochs'?"),
        (["--dataset_dir", "no/such/folder"], "no/such/folder"),
    ],
)
def test_the_last_line_says_what_is_wrong(packed: Path, args: list[str], message: str) -> None:
    result = run_bundle(packed, "training", "--config_file", "configs/train.json", *args)
    assert result.returncode == 1
    assert message in result.stderr.strip().splitlines()[-1]


def test_inference_without_weights_is_an_error(packed: Path, cells: Path, tmp_path: Path) -> None:
    args = ["--bundle_root", tmp_path, "--dataset_dir", cells]
    result = run_bundle(packed, "run", "--config_file", "configs/inference.json", *args)
    assert result.returncode == 1
    assert "train first, or give a file with --checkpoint." in result.stderr.strip().splitlines()[-1]


def test_trains_like_monai_label_with_its_own_list_and_loader(cells: Path, tmp_path: Path) -> None:
    """MONAI Label replaces the data by plain image and label paths, and puts its loader first among the handlers."""
    items = [
        {key: str(cells / folder / f"cell {i}.png") for key, folder in (("image", "images"), ("label", "labels"))}
        for i in range(2)
    ]
    parser = ConfigParser()
    parser.read_config(str(REPOSITORY / "bundle" / "configs" / "train.json"))
    tiny = {"network_def#features": [2, 4, 8, 16, 32], "tile_size": 204, "steps_per_epoch": 2}
    lists = {"train#dataset#data": items, "validate#dataset#data": []}
    parser.update({"bundle_root": str(tmp_path), "train#trainer#max_epochs": 1, **tiny, **lists})
    network = ConfigParser(parser.config).get_parsed_content("network_def")
    torch.save(network.state_dict(), tmp_path / "pretrained.pt")
    loader = {"_target_": "CheckpointLoader", "load_path": str(tmp_path / "pretrained.pt"), "strict": False}
    parser["train#handlers"].insert(0, {**loader, "load_dict": {"model": "@network"}, "map_location": "@device"})
    parser.get_parsed_content("train#trainer").run()
    assert sorted(p.name for p in (tmp_path / "models").iterdir()) == ["model.pt", "split.json"]
    assert not (tmp_path / "output" / "demo").exists()


def test_paper_setting_is_the_papers_network(cells: Path, tmp_path: Path) -> None:
    parser = ConfigParser()
    parser.read_config([str(REPOSITORY / "bundle" / "configs" / name) for name in ("train.json", "paper.json")])
    parser.update({"bundle_root": str(tmp_path), "dataset_dir": str(cells), "validation": 1 / 5})
    network = parser.get_parsed_content("network_def")
    assert sum(p.numel() for p in network.parameters()) == 31_030_658
    batch = next(iter(parser.get_parsed_content("train#dataloader")))
    assert batch["image"].shape == (1, 1, 572, 572)
    assert batch["label"].shape == (1, 2, 388, 388)
    optimizer = parser.get_parsed_content("optimizer")
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["momentum"] == 0.99
