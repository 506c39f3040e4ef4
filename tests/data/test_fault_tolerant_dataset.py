from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from monai.data import DataLoader
from monai.transforms import Compose
from PIL import Image
from unet_monai.data import CellImageReader, FaultTolerantDataset
from unet_monai.data.fault_tolerant_dataset import error_line, first_cause
from unet_monai.transforms import LoadCellImaged


def test_a_bad_file_is_an_item_that_says_why(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        Image.fromarray(np.full((3, 4), 7, np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:40])
    read = Compose([LoadCellImaged("image", CellImageReader())])
    items = FaultTolerantDataset([{"image": str(tmp_path / f"{name}.png")} for name in ("a", "b", "c")], read)
    good, bad, other = DataLoader(items, batch_size=1)
    assert good["image"].shape == other["image"].shape == (1, 1, 4, 3)
    assert bad["image"] == [str(tmp_path / "b.png")]
    assert bad["error"][0].startswith(f"{tmp_path}/b.png must be a readable image file, got ")


def test_a_kill_is_no_bad_file() -> None:
    def interrupt(item: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FaultTolerantDataset([{"image": "a.png"}], interrupt)[0]


def test_one_line_of_the_first_cause() -> None:
    error = RuntimeError("applying transform")
    error.__cause__ = ValueError("two\n  lines")
    assert first_cause(error) is error.__cause__
    assert error_line("/data/ä b.png", error) == "/data/ä b.png: ValueError: two lines"


def test_a_line_that_names_the_file_of_a_page_is_enough() -> None:
    assert error_line("/data/a.tif#3", ValueError("/data/a.tif must be whole.")) == "/data/a.tif must be whole."
    assert error_line("/data/a.tif#3", ValueError("out of luck")) == "/data/a.tif#3: ValueError: out of luck"
