"""Record which images trained and which validated, beside the weights."""

from __future__ import annotations

import json
from pathlib import Path

import ignite.distributed as idist
from ignite.engine import Events
from monai.data.dataset import Dataset
from monai.engines.workflow import Workflow
from unet_monai.data.writing import writing


class SplitHandler:
    """Write the training and the validation list to a JSON file when training starts.

    Of several processes the first one writes.

    Args:
        path: file to write, such as ``models/split.json``.
        train_dataset: dataset whose ``data`` trains.
        val_dataset: dataset whose ``data`` validates.
    """

    def __init__(self, path: str, train_dataset: Dataset, val_dataset: Dataset) -> None:
        self.path = Path(path)
        self.train_dataset = train_dataset
        self.val_dataset = val_dataset

    def attach(self, engine: Workflow) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.STARTED, self)

    @idist.one_rank_only()
    def __call__(self, engine: Workflow) -> None:
        """Write the lists."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        split = {"training": self.train_dataset.data, "validation": self.val_dataset.data}
        with writing(self.path) as part:
            part.write_text(json.dumps(split, indent=2) + "\n", encoding="utf-8")
