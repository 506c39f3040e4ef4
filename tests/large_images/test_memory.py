"""Peak memory stays under the budget whatever the image's size, and time grows linearly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tifffile
import torch
import zarr
from unet_monai.large_images import BlockSettings, LargeImageSegmenter, open_image
from unet_monai.large_images.segmenter import BYTES_PER_PIXEL
from unet_monai.transforms import LogitsToInstances

from tests.bundle.conftest import REPOSITORY
from tests.large_images.images import make_finding_network
from tests.large_images.test_segmenter import draw_nuclei

TILE = 512
BUDGET = BlockSettings().memory_budget


def write_repeated(path: Path, side: int) -> None:
    """Write an image of nuclei, one tile over and over, without ever holding more than the tile."""
    tile = draw_nuclei(TILE, TILE)
    tiles = (tile for _ in range((side // TILE) ** 2))
    tifffile.imwrite(path, tiles, shape=(side, side), dtype=np.uint8, tile=(TILE, TILE), bigtiff=True)


RUN = """
import json, sys, time
from pathlib import Path
from unet_monai.large_images import LargeImageSegmenter, open_image
from unet_monai.networks import load_network
from unet_monai.transforms import LogitsToInstances

def status(name):
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return 1024 * int(line.split()[1])

image, weights, output = sys.argv[1:]
segmenter = LargeImageSegmenter(open_image(image), load_network(weights), LogitsToInstances(), output)
before, begin = status("VmRSS"), time.process_time()
segmenter.run()
print(json.dumps([before, status("VmHWM"), time.process_time() - begin]))
"""


class Usage(NamedTuple):
    """What a run took: resident bytes before it, the most of them during it, and seconds of processor time."""

    before: int
    peak: int
    seconds: float


def usage(folder: Path, side: int) -> Usage:
    """Measure a run with all settings at their defaults, in a process of its own, with one thread."""
    torch.save(make_finding_network().state_dict(), folder / "model.pt")
    write_repeated(folder / f"{side}.tif", side)
    words = [str(folder / f"{side}.tif"), str(folder / "model.pt"), str(folder / "out")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, *words],
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


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads the peak where Linux tells it")
def test_memory_and_time_of_a_gigapixel(tmp_path: Path) -> None:
    """32768 x 32768 px against 8192 x 8192, whose middle block is as large as any."""
    small, large = usage(tmp_path, 8192), usage(tmp_path, 32768)
    assert large.peak - large.before < BUDGET
    assert large.peak < small.peak + 300e6
    assert large.seconds < 16 * small.seconds * 1.5
    numbers = zarr.open(tmp_path / "out" / "32768_cells.zarr")["0"][-TILE:, -TILE:]
    assert numbers.max() > 100_000, "test invalid"


def test_arrays_of_a_run_stay_under_the_budget(tmp_path: Path) -> None:
    """The short form: NumPy's arrays, of an image that is one block with its halo, and of one of 16 such blocks."""
    settings = BlockSettings(reach=16, chunk=128, memory_budget=BYTES_PER_PIXEL * (128 + 2 * 16 + 1) ** 2)
    peaks = []
    for side in (160, 512):
        tifffile.imwrite(tmp_path / f"{side}.tif", draw_nuclei(side, side), tile=(128, 128))
        image = open_image(tmp_path / f"{side}.tif")
        segmenter = LargeImageSegmenter(
            image, make_finding_network(), LogitsToInstances(), tmp_path, settings, save_scores=True, save_tiff=True
        )
        tracemalloc.start()
        segmenter.run()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert len(segmenter.blocks) == 16, "test invalid"
    assert peaks[1] < settings.memory_budget
    assert peaks[1] < 1.2 * peaks[0]
