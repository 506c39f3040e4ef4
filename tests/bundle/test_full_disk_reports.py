"""A disk that is full while the reports are written: the file is named, and what stands there is whole."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.bundle.test_evaluation_faults import evaluate, save_weights
from tests.bundle.test_faults import CELL, cause_of, pairs, train
from tests.bundle.test_small_disk import PAGE
from tests.bundle.test_small_disk import small_disk as small_disk  # a fixture

FULL = "must be writable, got OSError: [Errno 28] No space left on device"


def assert_whole(out: Path) -> None:
    """Check that nothing is left in part, under its own name or another."""
    assert not list(out.rglob(".part-*"))
    for path in out.rglob("*.png"):
        Image.open(path).load()
    for path in out.rglob("report.html"):
        assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")


def sizes(folder: Path) -> dict[str, int]:
    """Return the bytes that the files of a folder fill on a disk of whole pages."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.name: -(-path.stat().st_size // PAGE) * PAGE for path in files}


@pytest.mark.parametrize("name", ["01_0.png", "metrics.csv", "images.csv", "sheet.png", "report.html"])
def test_an_evaluation_names_the_file_that_the_disk_is_full_at(
    tmp_path: Path, small_disk: Callable[[int], Path], name: str
) -> None:
    """The disk is as large as all that is written before the file, and a page short of the file."""
    pairs(tmp_path, CELL)
    save_weights(tmp_path)
    evaluate(tmp_path)
    written = sizes(tmp_path / "output" / "evaluation")
    in_turn = ["01_0.png", "metrics.csv", "images.csv", "sheet.png", "report.html"]
    assert set(in_turn) == set(written), "test invalid"
    room = sum(written[other] for other in in_turn[: in_turn.index(name)])
    disk = small_disk(room + written[name] - PAGE)
    line = cause_of(lambda: evaluate(tmp_path, report_dir=str(disk / "out")))
    assert (Path(line.partition(" must ")[0]).name, line.partition(" must ")[1:]) == (name, (" must ", FULL[5:]))
    assert line.startswith(f"{disk}/out/")
    assert_whole(disk)


@pytest.mark.parametrize("name", ["curves.png", "report.html"])
def test_a_training_names_the_file_that_the_disk_is_full_at(
    tmp_path: Path, small_disk: Callable[[int], Path], name: str
) -> None:
    pairs(tmp_path, CELL, CELL)
    train(tmp_path, validation=0.5)
    written = sizes(tmp_path / "output")
    last = ["curves.png", "sheet.png", "report.html"]
    room = sum(size for other, size in written.items() if other not in last[last.index(name) :])
    disk = small_disk(room + written[name] // 2)
    line = cause_of(lambda: train(tmp_path, validation=0.5, output_dir=str(disk / "out")))
    assert line == f"{disk}/out/{'' if name == 'report.html' else 'report/'}{name} {FULL}"
    assert_whole(disk)


def test_a_table_that_there_was_stays(tmp_path: Path, small_disk: Callable[[int], Path]) -> None:
    """The second evaluation has no room for its report beside the first one's."""
    pairs(tmp_path, CELL)
    save_weights(tmp_path)
    evaluate(tmp_path)
    disk = small_disk(sum(sizes(tmp_path / "output" / "evaluation").values()) + 2 * PAGE)
    evaluate(tmp_path, report_dir=str(disk / "out"))
    before = (disk / "out" / "report.html").read_bytes()
    assert cause_of(lambda: evaluate(tmp_path, report_dir=str(disk / "out"))).endswith(FULL)
    assert (disk / "out" / "report.html").read_bytes() == before
    with (disk / "out" / "images.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 1
    assert_whole(disk)
