"""Check where inference is to write before it starts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from unet_monai.data.image_formats import split_page
from unet_monai.data.image_io import output_name


def check_output_dir(output_dir: str, data: Sequence[Mapping[str, str]]) -> None:
    """Create the folder for the results, and stop a run that could not write there or would overwrite its images.

    Args:
        output_dir: the folder.
        data: items ``{"image": address}``.

    Raises:
        ValueError: if nothing can be written there, and if a label image would get its image's path.
    """
    folder = Path(output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"output_dir must be a folder to write to, got {type(error).__name__}: {error}.") from None
    for item in data:
        image = Path(split_page(item["image"])[0])
        # Not by Path.resolve, which stops at a link that leads to itself.
        if os.path.realpath(folder / output_name(image.name)) == os.path.realpath(image):
            raise ValueError(f"output_dir must be another folder than the images', got {output_dir}.")
