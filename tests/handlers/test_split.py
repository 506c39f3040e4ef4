from __future__ import annotations

import json
from pathlib import Path

from ignite.engine import Engine
from monai.data import CacheDataset, Dataset

from unet_monai.handlers import SplitHandler


def test_writes_both_lists_when_training_starts(tmp_path: Path) -> None:
    training = [{"image": "a.png", "label": "l/a.png"}, {"image": "b ü.tif#3", "label": "l/b.tif#3"}]
    path = tmp_path / "models" / "split.json"
    engine = Engine(lambda engine, batch: path.exists())
    SplitHandler(str(path), Dataset(training), CacheDataset([], progress=False)).attach(engine)
    assert not path.exists()
    state = engine.run([0])
    assert state.output, "written before the first step"
    assert json.loads(path.read_text(encoding="utf-8")) == {"training": training, "validation": []}
