"""Draw what a network found on the images it was found in. Pictures are (H, W, 3) uint8, rows first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage.segmentation import find_boundaries
from unet_monai.pictures.canvas import clear_zoom, dim_picture, enlarge

TRUTH = (0, 200, 255)
PREDICTION = (255, 96, 0)
BOTH = (255, 240, 0)
LEGEND = {"truth": TRUTH, "prediction": PREDICTION, "both": BOTH}
TITLE_HEIGHT = 20
GAP = 6
# Larger pictures are reduced to this many pixels on a sheet.
LARGEST_ON_SHEET = 720


def draw_overlay(image: np.ndarray, pred: np.ndarray, label: np.ndarray | None = None) -> np.ndarray:
    """Draw the contours of the predicted and, if known, the true instances on an image.

    Args:
        image: (H, W) or (H, W, 3), any range; stretched between its own 0.5th and 99.5th percentile.
        pred: predicted instances (H, W).
        label: true instances (H, W); -1 (ignored) is drawn darker. None leaves the truth out.

    Returns:
        The picture, uint8 (H * z, W * z, 3), enlarged by a whole number z where the image is small.

    Example:
        >>> draw_overlay(np.eye(8), np.ones((8, 8), int)).shape
        (480, 480, 3)
    """
    zoom = clear_zoom(image.shape[:2])
    canvas, pred = enlarge(dim_picture(image), zoom), enlarge(pred, zoom)
    found = find_boundaries(pred, mode="inner")
    if label is None:
        canvas[found] = PREDICTION
        return canvas
    label = enlarge(label, zoom)
    canvas[label < 0] //= 2
    true = find_boundaries(np.maximum(label, 0), mode="inner")
    for mask, colour in ((true & ~found, TRUTH), (found & ~true, PREDICTION), (true & found, BOTH)):
        canvas[mask] = colour
    return canvas


def contact_sheet(
    pictures: Sequence[np.ndarray],
    titles: Sequence[str],
    columns: int = 3,
    *,
    legend: Mapping[str, tuple[int, int, int]] = LEGEND,
) -> np.ndarray:
    """Arrange titled pictures on one sheet, with the colours explained at its foot.

    Args:
        pictures: uint8 (H, W, 3) each, of any sizes; a side above 720 px is reduced to it.
        titles: one line above each picture.
        columns: pictures in a row.
        legend: the colours (R, G, B) by their meaning.

    Returns:
        The sheet, uint8 (H, W, 3).

    Raises:
        ValueError: when there is no picture, or not one title for each.

    Example:
        >>> contact_sheet([np.zeros((30, 40, 3), np.uint8)] * 2, ["a", "b"]).shape
        (82, 98, 3)
    """
    if not pictures or len(pictures) != len(titles):
        raise ValueError(
            f"pictures must hold at least one, each with a title, got {len(pictures)} and {len(titles)} titles."
        )
    columns = min(columns, len(pictures))
    images = [Image.fromarray(picture) for picture in pictures]
    for image in images:
        image.thumbnail((LARGEST_ON_SHEET, LARGEST_ON_SHEET))
    lefts = _edges(max(image.width for image in images[i::columns]) for i in range(columns))
    tops = _edges(
        max(image.height for image in images[i : i + columns]) + TITLE_HEIGHT for i in range(0, len(images), columns)
    )
    sheet = Image.new("RGB", (lefts[-1], tops[-1] + TITLE_HEIGHT))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for i, (image, title) in enumerate(zip(images, titles, strict=True)):
        x, y = lefts[i % columns], tops[i // columns]
        pen.text((x, y), title, fill="white", font=font)
        sheet.paste(image, (x, y + TITLE_HEIGHT))
    x = GAP
    for name, colour in legend.items():
        pen.text((x, tops[-1]), name, fill=colour, font=font)
        x += int(pen.textlength(name, font=font)) + 3 * GAP
    return np.asarray(sheet)


def _edges(sizes: Iterable[int]) -> list[int]:
    """Place cells of the given sizes one after the other with gaps: where each begins, and where the last one ends."""
    return list(accumulate((size + GAP for size in sizes), initial=GAP))
