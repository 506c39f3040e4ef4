"""Peak memory stays under the budget whatever the image's size, and time grows linearly.

Measured as the system sees it: of a whole process, which holds what NumPy, torch and the readers take.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tifffile
import torch
import zarr
from unet_monai.large_images import BlockSettings

from tests.bundle.conftest import REPOSITORY
from tests.large_images.images import make_finding_network
from tests.large_images.test_segmenter import draw_nuclei

TILE = 512

on_linux = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads the peak where Linux tells it")


def write_repeated(path: Path, side: int) -> None:
    """Write an image of nuclei, one tile over and over, without ever holding more than the tile."""
    tile = np.tile(draw_nuclei(TILE // 2, TILE // 2), (2, 2))
    tiles = (tile for _ in range((side // TILE) ** 2))
    tifffile.imwrite(path, tiles, shape=(side, side), dtype=np.uint8, tile=(TILE, TILE), bigtiff=True)


RUN = """
import json, sys, time
from pathlib import Path
from unet_monai.large_images import BlockSettings, LargeImageSegmenter, open_image
from unet_monai.networks import load_network
from unet_monai.transforms import LogitsToInstances

def status(name):
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return 1024 * int(line.split()[1])

image, weights, output, settings, saves = sys.argv[1:]
settings, saves = BlockSettings(**json.loads(settings)), json.loads(saves)
segmenter = LargeImageSegmenter(
    open_image(image), load_network(weights), LogitsToInstances(), output, settings, **saves
)
before, begin = status("VmRSS"), time.process_time()
segmenter.run()
print(json.dumps([before, status("VmHWM"), time.process_time() - begin, len(segmenter.blocks)]))
"""


class Usage(NamedTuple):
    """What a run took: resident bytes before it, the most of them during it, seconds of processor time; its blocks."""

    before: int
    peak: int
    seconds: float
    blocks: int


def usage(folder: Path, side: int, settings: Mapping[str, int], **saves: bool) -> Usage:
    """Measure a run in a process of its own, with one thread."""
    folder.mkdir(exist_ok=True)
    torch.save(make_finding_network().state_dict(), folder / "model.pt")
    write_repeated(folder / f"{side}.tif", side)
    paths = [str(folder / name) for name in (f"{side}.tif", "model.pt", "out")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, *paths, json.dumps(settings), json.dumps(saves)],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    (folder / f"{side}.tif").unlink()
    measured = Usage(*json.loads(result.stdout))
    print(f"{side} px: {measured.before / 1e6:.0f} MB before, {measured.peak / 1e6:.0f} MB at most,", end=" ")
    print(f"{measured.seconds:.0f} s of processor time")
    return measured


@on_linux
@pytest.mark.slow
def test_memory_and_time_of_a_gigapixel(tmp_path: Path) -> None:
    """32768 x 32768 px against 8192 x 8192, whose middle block is as large as any; all settings at their defaults."""
    small, large = usage(tmp_path, 8192, {}), usage(tmp_path, 32768, {})
    assert large.peak - large.before < BlockSettings().memory_budget
    assert large.peak < small.peak + 300e6
    assert large.seconds < 16 * small.seconds * 1.5
    numbers = zarr.open(tmp_path / "out" / "32768_cells.zarr")["0"][-TILE:, -TILE:]
    assert numbers.max() > 100_000, "test invalid"


@on_linux
def test_memory_of_an_image_that_takes_more_than_the_budget_as_a_whole(tmp_path: Path) -> None:
    """The short form, with all that can be written."""
    budget = 150_000_000
    whole = usage(tmp_path / "whole", 2048, {"memory_budget": 20 * budget})
    assert whole.blocks == 1, "test invalid"
    assert whole.peak - whole.before > 1.5 * budget, "test invalid"
    parted = usage(tmp_path / "parted", 2048, {"memory_budget": budget}, save_scores=True, save_tiff=True)
    assert parted.blocks == 16
    assert parted.peak - parted.before < budget
