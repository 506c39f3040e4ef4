"""Processes on one image, one after the other or side by side, killed or not: always the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tifffile
import torch
import zarr
from PIL import Image
from unet_monai.large_images import export_tiff
from unet_monai.large_images import segmenter as segmenter_module

from tests.bundle.conftest import REPOSITORY
from tests.large_images import worker
from tests.large_images.images import make_network


class Task(NamedTuple):
    """An image, a network, and the files of an undisturbed run."""

    folder: Path
    expected: dict[str, bytes]

    def words(self, output: Path, **settings: object) -> tuple[str, str, str, str]:
        return str(self.folder / "cells.tif"), str(self.folder / "model.pt"), str(output), json.dumps(settings)

    def start(self, output: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-W", "ignore", "-m", "tests.large_images.worker", *self.words(output)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def records(output: Path) -> int:
    # A folder may be renamed meanwhile, by one who works in it: os.walk goes on.
    return sum(name.endswith(".npz") for _, _, names in os.walk(output / ".part-cells") for name in names)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    folder = tmp_path_factory.mktemp("workers")
    pixels = np.random.default_rng(0).integers(0, 200, (150, 180)).astype(np.uint8)
    tifffile.imwrite(folder / "cells.tif", pixels, tile=(32, 32))
    torch.save(make_network(1).state_dict(), folder / "model.pt")
    task = Task(folder, {})
    worker.main(*task.words(folder / "whole"))
    assert zarr.open(folder / "whole" / "cells_cells.zarr")["0"][:].max() > 20, "test invalid"
    names = ["cells_cells.tif", "cells_cells.zarr", "cells_scores.zarr"]
    assert sorted(p.name for p in (folder / "whole").iterdir()) == names
    return Task(folder, files(folder / "whole"))


def kill_after(process: subprocess.Popen[bytes], reached: Callable[[], bool], seconds: float) -> bool:
    """Kill a process some time after something was reached; tells whether it was still running."""
    while process.poll() is None and not reached():
        time.sleep(0.005)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def test_one_that_is_killed_is_continued(task: Task, tmp_path: Path) -> None:
    assert kill_after(task.start(tmp_path), lambda: records(tmp_path) > 10, 0), "test invalid"
    assert not list(tmp_path.glob("cells_*"))
    cut_off = next((tmp_path / ".part-cells" / "cells_scores.zarr" / "0").glob("c/*")) / "0.0.partial"
    cut_off.write_bytes(b"of a chunk that was being written")
    worker.main(*task.words(tmp_path))
    assert files(tmp_path) == task.expected


def test_of_two_at_once_one_is_killed(task: Task, tmp_path: Path) -> None:
    with task.start(tmp_path) as stays, task.start(tmp_path) as killed:
        assert kill_after(killed, lambda: records(tmp_path) > 6, 0.02), "test invalid"
        assert stays.wait(timeout=200) == 0
    assert files(tmp_path) == task.expected


@pytest.mark.parametrize("part", ["all", "roi", "mask"])
def test_many_at_once_share_a_part_of_an_image(
    task: Task, tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: dict[str, object] = {"roi": [[20, 170], [40, 140]]} if part == "roi" else {}
    if part == "mask":
        Image.fromarray(np.array([[0, 255, 255], [0, 255, 0]], np.uint8)).save(tmp_path / "mask.png")
        chosen = {"mask": str(tmp_path / "mask.png")}
    worker.main(*task.words(tmp_path / "one", **chosen))
    blocks: list[object] = []
    tiffs: list[object] = []
    score = segmenter_module.BlockScorer.__call__

    def counting(self: segmenter_module.BlockScorer, block: segmenter_module.Block) -> torch.Tensor:
        blocks.append(block)
        return score(self, block)

    def counting_tiffs(source: Path, target: Path) -> Path:
        tiffs.append(target)
        return export_tiff(source, target)

    monkeypatch.setattr(segmenter_module.BlockScorer, "__call__", counting)
    monkeypatch.setattr(segmenter_module, "export_tiff", counting_tiffs)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: worker.main(*task.words(tmp_path / "many", **chosen)), range(3)))
    assert files(tmp_path / "many") == files(tmp_path / "one")
    assert len(blocks) == len(set(blocks)) > 3, "no block is computed twice"
    assert len(tiffs) == 1


def test_one_that_comes_late_leaves_the_result_alone(task: Task, tmp_path: Path) -> None:
    worker.main(*task.words(tmp_path))
    (tmp_path / ".part-cells").mkdir()  # of a run that was killed between giving the result its name and tidying up
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("cells_*/**/*")}
    times |= {path: path.stat().st_mtime_ns for path in tmp_path.glob("cells_*")}
    assert any(path.suffix == ".tif" for path in times), "test invalid"
    worker.main(*task.words(tmp_path))
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert files(tmp_path) == task.expected
    assert not (tmp_path / ".part-cells").exists()


def test_one_that_was_overtaken_leaves(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It wakes up after another one has published: it finds nothing to work on, and writes nothing."""
    published, overtaken = threading.Event(), threading.Thread(target=lambda: worker.main(*task.words(tmp_path)))
    find = segmenter_module.BlockInstances.find

    def waiting(self: segmenter_module.BlockInstances, *arrays: object, ridges: bool) -> int:
        if threading.current_thread() is overtaken:
            published.wait(60)
        return find(self, *arrays, ridges=ridges)

    monkeypatch.setattr(segmenter_module.BlockInstances, "find", waiting)
    overtaken.start()
    worker.main(*task.words(tmp_path))
    published.set()
    overtaken.join(60)
    assert files(tmp_path) == task.expected
    assert not (tmp_path / ".part-cells").exists()


def test_one_that_is_killed_while_it_writes_the_tiff_is_continued(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(source: Path, target: Path) -> Path:
        """Leave what a killed process does: half a file under its draft's name, and a claim of a process long gone."""
        target.with_name(f"{target.name}-0.partial").write_bytes(b"II+")
        target.with_name("tiff.claim-0").write_text(json.dumps({"machine": "another", "process": 1}))
        os.utime(target.with_name("tiff.claim-0"), (0, 0))
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(segmenter_module, "export_tiff", cut_off)
        with pytest.raises(SystemExit):
            worker.main(*task.words(tmp_path))
    assert (tmp_path / ".part-cells" / "cells_cells.tif-0.partial").exists(), "test invalid"
    assert not list(tmp_path.glob("cells_*"))
    worker.main(*task.words(tmp_path))
    assert files(tmp_path) == task.expected
    assert not (tmp_path / ".part-cells").exists()


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_bytes(task: Task, tmp_path: Path) -> None:
    random, killed = np.random.default_rng(0), 0
    while killed < 20 and not list(tmp_path.glob("*_cells.zarr")):
        before = records(tmp_path)
        wanted = before + int(random.integers(0, 8))
        begins = time.monotonic()
        died = kill_after(
            task.start(tmp_path), lambda wanted=wanted: records(tmp_path) > wanted, random.uniform(0, 0.05)
        )
        killed += died
        print(f"kill {killed}: {before} -> {records(tmp_path)} records, {time.monotonic() - begins:.1f} s")
    assert killed == 20, "test invalid"
    worker.main(*task.words(tmp_path))
    assert files(tmp_path) == task.expected


@pytest.mark.slow
def test_of_three_at_once_one_after_the_other_is_killed_and_replaced(task: Task, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    workers = [task.start(tmp_path) for _ in range(3)]
    killed = 0
    for turn in range(6):
        wanted = records(tmp_path) + 3
        killed += kill_after(
            workers[turn % 3], lambda wanted=wanted: records(tmp_path) > wanted, random.uniform(0, 0.05)
        )
        workers[turn % 3] = task.start(tmp_path)
    assert killed > 3, "test invalid"
    assert [each.wait(timeout=200) for each in workers] == [0, 0, 0]
    assert files(tmp_path) == task.expected
