"""What inference writes beside each label map: the table of cells, the picture with their contours, ImageJ's ROIs."""

from __future__ import annotations

import csv
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from PIL import Image
from roifile import roiwrite
from torch.nn.functional import interpolate
from unet_monai.data.cell_table import cell_table
from unet_monai.data.image_formats import read_picture, split_suffix
from unet_monai.data.image_io import output_name
from unet_monai.data.imagej_rois import rois_from_instances
from unet_monai.data.layouts import OVERLAY_ENDING, ROIS_ENDING, TABLE_ENDING
from unet_monai.data.writing import writing
from unet_monai.pictures import draw_overlay
from unet_monai.transforms.image_files import Result, SaveResultd

LARGEST_OVERLAY = 1600


def _beside(address: str, ending: str) -> str:
    return split_suffix(output_name(address))[0] + ending


class SaveCellTabled(SaveResultd):
    """Write `<stem>_cells.csv`: a row for every instance with its place, size, shape, intensity and confidence.

    The columns are those of `unet_monai.data.cell_table.cell_table`, rows and columns as of the written picture (of
    NIfTI, column, row and slice are the first, second and third index). Intensities are those of the image's file, read
    again here: its own grey values, all its channels and, but for this moment, no memory for a second copy. The
    confidence is the mean of 1 - softmax(scores)[0]. A stack has one table with a first column `page`, counted from 0.

    Args:
        keys: see `SaveResultd`.
        output_dir: likewise.
        scores_key: key of the scores before the softmax, (classes, X, Y[, Z]), class 0 = background.
        allow_missing_keys: see `SaveResultd`.

    Raises:
        ValueError: if the image's file does not have the shape of the instances.

    Example:
        >>> import tempfile
        >>> from monai.data import MetaTensor
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.fromarray(np.array([[10, 20, 30], [40, 50, 60]], dtype=np.uint8)).save(f"{folder}/a.png")
        ...     meta = {"filename_or_obj": f"{folder}/a.png", "page": 0, "num_pages": 1}
        ...     pred = MetaTensor(torch.tensor([[[0, 1], [0, 1], [0, 1]]]), meta=meta)
        ...     _ = SaveCellTabled("pred", folder)({"pred": pred, "scores": torch.zeros(2, 3, 2)})
        ...     print(Path(folder, "a_cells.csv").read_text())  # doctest: +ELLIPSIS
        label,area,centroid_row,centroid_column,...,mean_intensity,...,confidence
        1,3,1,1,...,50,...,0.5
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | Path,
        scores_key: Hashable = "scores",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, output_dir, allow_missing_keys)
        self.scores_key = scores_key

    def file_name(self, address: str) -> str:
        """Return `<stem>_cells.csv`."""
        return _beside(address, TABLE_ENDING)

    def write(self, path: Path, result: Result, data: Mapping[Hashable, Any]) -> None:
        """Write the table, or the rows of a page; the file appears with the last page."""
        scores = torch.as_tensor(data[self.scores_key]).float()
        probability = (1 - torch.softmax(scores, dim=0)[0]).cpu().numpy()
        image = read_picture(result.address, result.instances.ndim, palette="RGB").array
        table = cell_table(result.instances.T, image.T if len(image) == 3 else image[0].T, np.asarray(probability).T)
        if result.num_pages > 1:
            table = {"page": np.full(len(table["label"]), result.page), **table}
        first, last = result.page == 0, result.page == result.num_pages - 1
        with writing(path, last=last) as part, open(part, "w" if first else "a", newline="") as file:
            writer = csv.writer(file)
            if first:
                writer.writerow(table)
            writer.writerows(zip(*(_as_text(column) for column in table.values()), strict=True))


def _as_text(column: np.ndarray) -> list[str]:
    return [f"{value:.8g}" if isinstance(value, float) else str(value) for value in column.tolist()]


class SaveOverlayd(SaveResultd):
    """Write `<stem>_overlay.png`: the contours of the instances on the image, to be looked at (`draw_overlay`).

    Of a volume it shows the middle slice, of a stack the middle page. An image whose longer side exceeds 1600 px is
    reduced to it before the contours are drawn.

    Args:
        keys: see `SaveResultd`.
        output_dir: likewise.
        image_key: key of the image (1 or 3, X, Y[, Z]), in any range.
        allow_missing_keys: see `SaveResultd`.

    Example:
        >>> import tempfile
        >>> from monai.data import MetaTensor
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.fromarray(np.array([[10, 20, 30], [40, 50, 60]], dtype=np.uint8)).save(f"{folder}/a.png")
        ...     meta = {"filename_or_obj": f"{folder}/a.png", "page": 0, "num_pages": 1}
        ...     pred = MetaTensor(torch.tensor([[[0, 1], [0, 1], [0, 1]]]), meta=meta)
        ...     _ = SaveOverlayd("pred", folder)({"pred": pred, "image": torch.zeros(1, 3, 2)})
        ...     Image.open(f"{folder}/a_overlay.png").size
        (480, 320)
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | Path,
        image_key: Hashable = "image",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, output_dir, allow_missing_keys)
        self.image_key = image_key

    def file_name(self, address: str) -> str:
        """Return `<stem>_overlay.png`."""
        return _beside(address, OVERLAY_ENDING)

    def write(self, path: Path, result: Result, data: Mapping[Hashable, Any]) -> None:
        """Write the picture; of a stack, once for all pages: it appears with the last one."""
        last = result.page == result.num_pages - 1
        if result.page == result.num_pages // 2:
            picture = self._draw(result, torch.as_tensor(data[self.image_key]))
            with writing(path, last=last) as part:
                Image.fromarray(picture).save(part)
        elif last:
            with writing(path):  # it is there: the file gets its name
                pass

    def _draw(self, result: Result, image: torch.Tensor) -> np.ndarray:
        instances = result.instances
        if instances.ndim == 3:
            middle = instances.shape[2] // 2
            image, instances = image[..., middle], instances[..., middle]
        longest = max(instances.shape)
        if longest > LARGEST_OVERLAY:
            size = [max(length * LARGEST_OVERLAY // longest, 1) for length in instances.shape]
            image = interpolate(image[None].float(), size=size, mode="area")[0]
            nearest = [np.arange(n) * length // n for n, length in zip(size, instances.shape, strict=True)]
            instances = instances[np.ix_(*nearest)]
        rows_first = image.float().cpu().numpy().T
        return draw_overlay(rows_first if len(image) == 3 else rows_first[..., 0], instances.T)


class SaveRoisd(SaveResultd):
    """Write `<stem>_rois.zip`: ImageJ's ROIs, which hold exactly the pixels of the instances (`rois_from_instances`).

    A stack has one set, each ROI set to its page. There are no ROIs of volumes. For the arguments see `SaveResultd`.

    Raises:
        ValueError: for a volume.

    Example:
        >>> import tempfile
        >>> from monai.data import MetaTensor
        >>> from roifile import roiread
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.fromarray(np.array([[10, 20, 30], [40, 50, 60]], dtype=np.uint8)).save(f"{folder}/a.png")
        ...     meta = {"filename_or_obj": f"{folder}/a.png", "page": 0, "num_pages": 1}
        ...     pred = MetaTensor(torch.tensor([[[0, 1], [0, 1], [0, 1]]]), meta=meta)
        ...     _ = SaveRoisd("pred", folder)({"pred": pred})
        ...     [roi.coordinates().tolist() for roi in roiread(f"{folder}/a_rois.zip")]
        [[[0, 2], [0, 1], [3, 1], [3, 2]]]
    """

    def file_name(self, address: str) -> str:
        """Return `<stem>_rois.zip`."""
        return _beside(address, ROIS_ENDING)

    def write(self, path: Path, result: Result, data: Mapping[Hashable, Any]) -> None:
        """Write the ROIs, or add those of a page; the file appears with the last page."""
        if result.instances.ndim != 2:
            raise ValueError(f"rois must be false for volumes, got instances of shape {result.instances.shape}.")
        rois = rois_from_instances(result.instances.T, page=result.page if result.num_pages > 1 else None)
        with writing(path, last=result.page == result.num_pages - 1) as part:
            roiwrite(part, rois, mode="w" if result.page == 0 else "a")
