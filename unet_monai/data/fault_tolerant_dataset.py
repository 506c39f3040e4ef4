"""Read the files of a folder so that a bad one does not end the run."""

from __future__ import annotations

from typing import Any

from monai.data import Dataset

from unet_monai.data.image_formats import split_page


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
        data: items ``{"image": address}``.
        transform: the transforms that read and prepare an image.

    Example:
        >>> from unet_monai.data.image_io import CellImageReader
        >>> from unet_monai.transforms import LoadCellImaged
        >>> FaultTolerantDataset([{"image": "no/such.png"}], LoadCellImaged("image", CellImageReader()))[0]
        {'image': 'no/such.png', 'error': 'image file must exist, got no/such.png.'}
    """

    def _transform(self, index: int) -> Any:
        try:
            return super()._transform(index)
        except Exception as error:
            address = self.data[index]["image"]
            return {"image": address, "error": error_line(address, error)}
