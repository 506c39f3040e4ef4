from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose
from PIL import Image
from torch import nn
from unet_monai.data import CellImageReader, FaultTolerantDataset, find_images
from unet_monai.data.fault_tolerant_dataset import FailedFilesError
from unet_monai.handlers import FailedFiles, FileProgressHandler
from unet_monai.transforms import LoadCellImaged


def run(folder: Path, postprocessing: Callable[[Any], Any]) -> tuple[FailedFiles, FileProgressHandler]:
    """Run the identity over the images of a folder."""
    failed, progress = FailedFiles(), FileProgressHandler("out")
    read = Compose([LoadCellImaged("image", CellImageReader())])
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader(FaultTolerantDataset(find_images(folder), read), batch_size=1),
        network=nn.Identity(),
        iteration_update=failed,
        postprocessing=postprocessing,
        val_handlers=[progress],
    )
    evaluator.run()
    return failed, progress


def write_images(folder: Path, *names: str) -> None:
    for name in names:
        Image.fromarray(np.full((3, 4), 7, np.uint8)).save(folder / name)


class FailsOn:
    """Postprocessing that a full disk ends for some images; notes the others."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.seen: list[str] = []

    def __call__(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        name = Path(data["pred"].meta["filename_or_obj"]).name
        if name in self.names:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.seen.append(name)
        return data


def test_nothing_to_report(tmp_path: Path) -> None:
    write_images(tmp_path, "a.png", "b.png")
    failed, progress = run(tmp_path, save := FailsOn())
    failed.report()
    assert (save.seen, progress.images) == (["a.png", "b.png"], 2)


def test_reading_and_writing_may_fail(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_images(tmp_path, "a.png", "b.png", "c.png", "d.png")
    (tmp_path / "b.png").write_bytes(b"")
    failed, progress = run(tmp_path, save := FailsOn("c.png"))
    assert save.seen == ["a.png", "d.png"]
    assert (progress.images, progress.bar.n) == (2, 4)
    with pytest.raises(FailedFilesError, match=r"^2 files failed, the others are done:\n") as error:
        failed.report()
    _, of_b, of_c = str(error.value).splitlines()
    assert of_b.startswith(f"{tmp_path}/b.png must be a readable image file, got ")
    assert of_c == f"{tmp_path}/c.png: OSError: [Errno 28] No space left on device"
    assert [record.message for record in caplog.records if "skipped" in record.message] == [
        f"skipped: {line}" for line in (of_b, of_c)
    ]


def test_a_stack_ends_with_its_first_bad_page(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 3, 5), np.uint8), photometric="minisblack")
    write_images(tmp_path, "b.png")
    failed, progress = run(tmp_path, save := FailsOn("a.tif#1"))
    assert (save.seen, progress.images) == (["a.tif#0", "b.png"], 2)
    with pytest.raises(
        FailedFilesError, match=r"^1 file failed, the others are done:\n.*a\.tif#1: OSError: \[Errno 28\]"
    ):
        failed.report()
