"""Show the validation images with contours, as a sheet and in TensorBoard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from ignite.engine import Events
from monai.engines.workflow import Workflow
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from unet_monai.metrics.instance_matching import overlap_table, seg_scores
from unet_monai.pictures import contact_sheet, draw_overlay


class OverlayHandler:
    """Draw the first validation images with the true and the predicted contours, after each validation.

    Attach it to an evaluator whose output holds ``image``, ``label`` and, as instances, ``pred``. Of a volume the
    middle slice is drawn.

    Args:
        path: sheet to write, such as ``output/overlays.png``.
        max_images: images to draw.
        summary_writer: TensorBoard writer that gets the sheet too; None for none.
    """

    def __init__(self, path: str, max_images: int = 9, summary_writer: SummaryWriter | None = None) -> None:
        self.path = Path(path)
        self.max_images = max_images
        self.summary_writer = summary_writer
        self.pictures: list[np.ndarray] = []
        self.titles: list[str] = []

    def attach(self, engine: Workflow) -> None:
        """Register with the evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.draw)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Workflow) -> None:
        """Begin a new sheet."""
        self.pictures, self.titles = [], []

    def draw(self, engine: Workflow) -> None:
        """Draw the images of one batch, while there is room on the sheet."""
        for item in engine.state.output[: self.max_images - len(self.pictures)]:
            pred, label = (item[key][0].cpu().numpy() for key in ("pred", "label"))
            name = Path(item["image"].meta["filename_or_obj"]).name
            scores = seg_scores(overlap_table(pred, label))
            found = f"SEG {np.mean(scores):.2f}, {len(scores)} cells" if len(scores) else "no cell"
            self.titles.append(f"{name}  {found}")
            self.pictures.append(draw_overlay(*(_picture(item[key]) for key in ("image", "pred", "label"))))

    def write(self, engine: Workflow) -> None:
        """Write the sheet."""
        if not self.pictures:
            return
        sheet = contact_sheet(self.pictures, self.titles)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sheet).save(self.path)
        if self.summary_writer is not None:
            self.summary_writer.add_image("overlays", sheet, engine.state.epoch, dataformats="HWC")


def _picture(array: torch.Tensor) -> np.ndarray:
    """Turn (C, X, Y[, Z]) into rows and columns (Y, X[, 3]); the middle slice of a volume."""
    plane = array if array.ndim == 3 else array[..., array.shape[-1] // 2]
    rows_first = plane.cpu().numpy().T
    return rows_first if rows_first.shape[-1] == 3 else rows_first[..., 0]
