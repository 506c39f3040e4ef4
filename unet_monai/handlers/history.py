"""What a training came to so far, kept in a file so that a resumed training goes on with it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from unet_monai.data.writing import writing
from unet_monai.pictures.curves import EpochResult
from unet_monai.pictures.report import ImageResult


@dataclass
class History:
    """The epochs of a training, and the images of its best validation.

    Attributes:
        epochs: what each epoch came to.
        best_epoch: epoch of the best validation; 0 before there is one.
        results: its images, the worst first.
        seconds: time that the training took.
    """

    epochs: list[EpochResult] = field(default_factory=list)
    best_epoch: int = 0
    results: list[ImageResult] = field(default_factory=list)
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        """Write the history as JSON; a kill leaves the old file or the new one, whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path) as part:
            part.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, path: Path, last_epoch: int) -> History:
        """Read a history up to an epoch; what a killed training did after it will be done again.

        Args:
            path: what `save` wrote.
            last_epoch: the last epoch to keep.

        Returns:
            The history.
        """
        read = json.loads(path.read_text(encoding="utf-8"))
        epochs = [EpochResult(**epoch) for epoch in read["epochs"] if epoch["epoch"] <= last_epoch]
        if read["best_epoch"] > last_epoch:
            return cls(epochs, seconds=read["seconds"])
        return cls(epochs, read["best_epoch"], [ImageResult(**result) for result in read["results"]], read["seconds"])
