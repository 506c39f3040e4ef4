"""Read the files of a folder so that a bad one does not end the run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from monai.data import Dataset
from tqdm import trange
from unet_monai.data.image_formats import split_page

logger = logging.getLogger(__name__)


class FailedFilesError(RuntimeError):
    """Some files of a folder failed, and the others are done; the message lists the failed ones."""


def first_cause(error: BaseException) -> BaseException:
    """Follow ``raise ... from ...`` back to the error that started it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def error_line(address: str, error: BaseException) -> str:
    """Say in one line which image failed and why.

    Example:
        >>> error_line("a.png", OSError("no space left"))
        'a.png: OSError: no space left'
        >>> error_line("a.png", ValueError("a.png must be grey."))
        'a.png must be grey.'
    """
    cause = first_cause(error)
    text = " ".join(str(cause).split())
    return text if split_page(address)[0] in text else f"{address}: {type(cause).__name__}: {text}"


class FaultTolerantDataset(Dataset):
    """A dataset of image files that returns what is wrong with a file in place of what is in it.

    The item of a file that the transforms fail on is ``{"image": address, "error": line}``, with addresses as in the
    data. ``FailedFiles`` skips such items and lists them at the end.

    Args:
        data: items ``{"image": address}``; those with an "error" already are returned as they are.
        transform: the transforms that read and prepare an image.

    Example:
        >>> from unet_monai.data.image_io import CellImageReader
        >>> from unet_monai.transforms import LoadCellImaged
        >>> FaultTolerantDataset([{"image": "no/such.png"}], LoadCellImaged("image", CellImageReader()))[0]
        {'image': 'no/such.png', 'error': 'image file must exist, got no/such.png.'}
    """

    def _transform(self, index: int) -> Any:
        item = self.data[index]
        if "error" in item:
            return item
        try:
            return super()._transform(index)
        except Exception as error:
            return {"image": item["image"], "error": error_line(item["image"], error)}


class ReadableDataset(Dataset):
    """The items of a dataset that can be read, read once and kept in memory; what fails is logged and left out.

    Give it to ``FailedFiles``, which lists at the end what was left out.

    Args:
        data: items ``{"image": address, ...}``.
        transform: the transforms that read and prepare an item; none of them random.
        progress: whether to show a progress bar while reading.

    Attributes:
        failed: what was wrong, in one line, by the path of the image's file.

    Raises:
        FailedFilesError: if no item can be read, listing them, one a line.

    Example:
        >>> def read(item):
        ...     return {**item, "pixels": 1 / item["label"]}
        >>> items = ReadableDataset([{"image": "a.png", "label": 0}, {"image": "b.png", "label": 2}], read, False)
        >>> [item["image"] for item in items.data], items.failed
        (['b.png'], {'a.png': 'a.png: ZeroDivisionError: division by zero'})
    """

    def __init__(
        self, data: Sequence[Mapping[str, Any]], transform: Callable[[Any], Any], progress: bool = True
    ) -> None:
        self.failed: dict[str, str] = {}
        items = FaultTolerantDataset(data, transform)
        read = []
        for index in trange(len(items), desc="Loading dataset", disable=not progress):
            item = items[index]
            if "error" not in item:
                read.append(item)
            else:
                logger.error("skipped: %s", item["error"])
                self.failed.setdefault(split_page(item["image"])[0], item["error"])
        if self.failed and not read:
            raise FailedFilesError("\n".join(["no image could be read with its label:", *self.failed.values()]))
        super().__init__(read)
