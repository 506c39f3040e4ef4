"""100,489 cells in one picture: nothing on their way counts in fewer bits, or takes hours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import roifile
import tifffile
import torch
from PIL import Image
from unet_monai.data import LabelReader, write_instances
from unet_monai.data.cell_table import cell_table
from unet_monai.data.imagej_rois import instances_from_rois, rois_from_instances
from unet_monai.metrics import APMetric, SEGMetric
from unet_monai.transforms import BorderWeightMap, LogitsToInstances

from tests.bundle.test_faults import cause_of, infer, pairs, train
from tests.large_images.images import make_finding_network

SIDE = 317
# Along X, Y, numbered along the rows: X runs fastest.
CELLS = np.kron(np.arange(1, SIDE**2 + 1).reshape(SIDE, SIDE).T, np.pad(np.ones((2, 1), int), ((0, 1), (0, 2))))


def test_they_are_found_written_read_and_scored(tmp_path: Path) -> None:
    logits = np.stack([np.where(CELLS > 0, -9, 9), np.where(CELLS > 0, 9, -9)])
    found = LogitsToInstances(min_size=0, ridge_radius=0)(logits)[0]
    np.testing.assert_array_equal(found, CELLS)
    write_instances(tmp_path / "cells.tif", found.T)
    assert tifffile.imread(tmp_path / "cells.tif").dtype == np.uint32
    reader = LabelReader()
    read = reader.get_data(reader.read(str(tmp_path / "cells.tif")))[0]
    np.testing.assert_array_equal(read[0].T, CELLS)
    for metric in (SEGMetric(), APMetric(iou_threshold=0.5)):
        metric(*[torch.from_numpy(read)[None]] * 2)
        assert metric.aggregate() == 1


@pytest.mark.slow
def test_they_are_segmented_with_tables_and_outlines(tmp_path: Path) -> None:
    for name in ("in", "models"):
        (tmp_path / name).mkdir()
    network = {"network_def#features": [2, 4], "network_def#out_channels": 2, "network_def#norm": None}
    knobs = {"threshold": 0.5, "min_size": 1, "ridge_radius": 0, "rois": True}
    torch.save(make_finding_network().state_dict(), tmp_path / "models" / "model.pt")
    picture = np.uint8(200) * (CELLS.T > 0)
    tifffile.imwrite(tmp_path / "in" / "a.tif", picture)
    Image.fromarray(picture).save(tmp_path / "in" / "b.png")
    lines = cause_of(lambda: infer(tmp_path, **network, **knobs)).splitlines()
    assert lines == [
        "1 file failed, the others are done:",
        f"{tmp_path}/in/b.png: ValueError: instances must be at most 65535 in PNG (use TIFF), got {SIDE**2}.",
    ]
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / "a.tif"), CELLS.T)
    assert len((tmp_path / "out" / "a_cells.csv").read_text().splitlines()) == 1 + SIDE**2
    outlines = roifile.roiread(tmp_path / "out" / "a_rois.zip")
    np.testing.assert_array_equal(instances_from_rois(outlines, CELLS.T.shape), CELLS.T)
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {"a.tif", "a_cells.csv", "a_overlay.png", "a_rois.zip"}


@pytest.mark.slow
def test_they_train(tmp_path: Path) -> None:
    train(pairs(tmp_path, CELLS.astype(np.uint32), CELLS.astype(np.uint32)), validation=0.5)
    assert (tmp_path / "models" / "model.pt").exists()


@pytest.mark.slow
def test_their_weights_table_and_outlines() -> None:
    """About a thousandth of a second for each cell."""
    weights = BorderWeightMap(w0=10, sigma=5)(CELLS[None])
    assert weights.min() >= 1
    assert weights[0, :3, 1].min() > 1, "between two cells"
    table = cell_table(CELLS, np.ones(CELLS.shape), np.ones(CELLS.shape))
    assert table["label"].tolist() == list(range(1, SIDE**2 + 1))
    assert set(table["area"]) == {2}
    rois = rois_from_instances(CELLS)
    np.testing.assert_array_equal(instances_from_rois(rois, CELLS.shape), CELLS)
