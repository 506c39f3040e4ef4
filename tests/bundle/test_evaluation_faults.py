"""Bad pairs and mistaken settings of an evaluation: the other images are measured, and what failed is said."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from unet_monai.networks import ValidUNet

from tests.bundle.test_faults import CELL, FEATURES, cause_of, pairs, run

# One image after the two good ones is bad: what is written for its image or label, and what is said of it.
BAD_PAIRS: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "NaN": ("labels", lambda path: tifffile.imwrite(path, CELL * np.nan), "must hold finite numbers, got NaN"),
    "infinity": (
        "labels",
        lambda path: tifffile.imwrite(path, CELL.clip(1) * np.inf),
        "must hold finite numbers, got ",
    ),
    "huge": ("labels", lambda path: tifffile.imwrite(path, CELL * 1e300), "must hold numbers of at most 1.7e+38"),
    "halves": ("labels", lambda path: tifffile.imwrite(path, CELL / 2), "must hold whole numbers, got 1.5."),
    "negative": ("labels", lambda path: tifffile.imwrite(path, -CELL.astype(int)), "must hold ids of at least 0"),
    "no pixel": ("labels", lambda path: tifffile.imwrite(path, CELL[:0]), "must hold "),
    "cut off": (
        "labels",
        lambda path: path.write_bytes(path.read_bytes()[:900]),
        "must be a readable image file, got ",
    ),
    "empty": ("labels", lambda path: path.write_bytes(b""), "must be a readable image file, got "),
    "other size": ("labels", lambda path: tifffile.imwrite(path, CELL[1:]), "must have the size of "),
    "image cut off": (
        "images",
        lambda path: path.write_bytes(path.read_bytes()[:300]),
        "must be a readable image file",
    ),
    "image of five channels": (
        "images",
        lambda path: tifffile.imwrite(path, np.zeros((39, 39, 5), np.uint8), photometric="rgb"),
        "must be grey or RGB, got ",
    ),
    "image of complex numbers": (
        "images",
        lambda path: tifffile.imwrite(path, CELL.astype(np.complex64)),
        "must hold real numbers, got complex64",
    ),
    "image of NaN": ("images", lambda path: tifffile.imwrite(path, CELL * np.nan), "must hold finite numbers, got NaN"),
}


def evaluate(folder: Path, **settings: Any) -> None:
    all_of_them = {"dataset_dir": str(folder), "validation": 1.0}
    run(folder, "train.json", "evaluate.json", **{**all_of_them, **settings})


def save_weights(folder: Path, **settings: Any) -> None:
    torch.manual_seed(0)
    (folder / "models").mkdir(exist_ok=True)
    network = ValidUNet(**{"out_channels": 3, "features": FEATURES, "norm": "batch", **settings})
    torch.save(network.state_dict(), folder / "models" / "model.pt")


def measured(folder: Path) -> dict[str, dict[str, str]]:
    """Return the rows of the table by the name of the image."""
    with (folder / "output" / "evaluation" / "images.csv").open(encoding="utf-8") as file:
        return {Path(row["image"]).name: row for row in csv.DictReader(file)}


def test_an_evaluation_goes_on_past_bad_pairs_and_lists_them(tmp_path: Path) -> None:
    save_weights(tmp_path)
    pairs(tmp_path, CELL, np.roll(CELL, 3))
    evaluate(tmp_path)
    undisturbed = measured(tmp_path)
    assert sorted(undisturbed) == ["0.tif", "1.tif"], "test invalid"
    pairs(tmp_path, CELL, np.roll(CELL, 3), *[CELL] * len(BAD_PAIRS))
    for i, (folder, write, _) in enumerate(BAD_PAIRS.values(), start=2):
        write(tmp_path / folder / f"{i}.tif")
    title, *lines = cause_of(lambda: evaluate(tmp_path)).splitlines()
    assert title == f"{len(BAD_PAIRS)} files failed, the others are done:"
    for (i, (folder, _, rule)), line in zip(enumerate(BAD_PAIRS.values(), start=2), lines, strict=True):
        assert f"{tmp_path}/{folder}/{i}.tif {rule}" in line
    assert measured(tmp_path) == undisturbed
    report = (tmp_path / "output" / "evaluation" / "report.html").read_text(encoding="utf-8")
    assert "0.tif" in report
    assert report.count("Left out: ") == len(BAD_PAIRS)


def test_an_evaluation_of_nothing_readable_lists_that(tmp_path: Path) -> None:
    save_weights(tmp_path)
    pairs(tmp_path, CELL)
    (tmp_path / "labels" / "0.tif").write_bytes(b"")
    line = cause_of(lambda: evaluate(tmp_path))
    assert re.fullmatch(r"no image could be read with its label:\n[^\n]*/labels/0\.tif must be a readable [^\n]*", line)
    assert not (tmp_path / "output" / "evaluation").exists()


@pytest.mark.parametrize("largest", [2**31, 2**40, 2**62])
def test_ids_of_any_size_are_ids(tmp_path: Path, largest: int) -> None:
    save_weights(tmp_path)
    cells = np.zeros(CELL.shape, np.uint64)
    cells[2:9, 2:9], cells[20:30, 20:30] = 7, largest
    pairs(tmp_path, cells)
    evaluate(tmp_path)
    (row,) = measured(tmp_path).values()
    assert sum(int(count) for name, count in row.items() if name.startswith("true_")) == 2


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"features": [4, 8, 16, 32, 64]}, r"checkpoint must [^\n]*: add --network_def#features '\[4,8,16,32,64\]'"),
        ({"out_channels": 2}, r"checkpoint must [^\n]*: add --network_def#out_channels 2"),
    ],
)
def test_weights_of_another_network_stop_before_the_first_image(tmp_path: Path, weights: dict, message: str) -> None:
    pairs(tmp_path, CELL)
    save_weights(tmp_path, **weights)
    assert re.fullmatch(message, cause_of(lambda: evaluate(tmp_path)))
    assert not (tmp_path / "output" / "evaluation").exists()


def test_a_label_without_an_image_stops_before_the_first_image(tmp_path: Path) -> None:
    pairs(tmp_path, CELL, CELL)
    save_weights(tmp_path)
    (tmp_path / "images" / "1.tif").unlink()
    line = cause_of(lambda: evaluate(tmp_path))
    assert re.fullmatch(r"every label must have an image of the same name, got none for 1\.tif in \S+", line)
    assert not (tmp_path / "output" / "evaluation").exists()
