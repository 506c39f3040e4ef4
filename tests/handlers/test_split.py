from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from ignite.engine import Engine
from monai.data import CacheDataset, Dataset
from unet_monai.handlers import SplitHandler

from tests.bundle.test_small_disk import PAGE
from tests.bundle.test_small_disk import small_disk as small_disk  # a fixture


def test_writes_both_lists_when_training_starts(tmp_path: Path) -> None:
    training = [{"image": "a.png", "label": "l/a.png"}, {"image": "b ü.tif#3", "label": "l/b.tif#3"}]
    path = tmp_path / "models" / "split.json"
    engine = Engine(lambda engine, batch: path.exists())
    SplitHandler(str(path), Dataset(training), CacheDataset([], progress=False)).attach(engine)
    assert not path.exists()
    state = engine.run([0])
    assert state.output, "written before the first step"
    assert json.loads(path.read_text(encoding="utf-8")) == {"training": training, "validation": []}


def test_on_a_full_disk_the_lists_before_stay(small_disk: Callable[[int], Path]) -> None:
    path = small_disk(2 * PAGE) / "split.json"
    path.write_text("before")
    long = [{"image": "a" * 2 * PAGE, "label": "l"}]
    engine = Engine(lambda engine, batch: None)
    SplitHandler(str(path), Dataset(long), Dataset(long)).attach(engine)
    with pytest.raises(OSError, match=r"split\.json must be writable, got OSError: .*No space left on device"):
        engine.run([0])
    assert [file.read_text() for file in path.parent.iterdir()] == ["before"]
