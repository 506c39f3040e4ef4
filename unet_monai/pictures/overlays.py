"""Draw what a network found on the images it was found in. Pictures are (H, W, 3) uint8, rows first."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage.segmentation import find_boundaries

TRUTH = (0, 200, 255)
PREDICTION = (255, 96, 0)
BOTH = (255, 240, 0)
LEGEND = (("truth", TRUTH), ("prediction", PREDICTION), ("both", BOTH))
TITLE_HEIGHT = 20
GAP = 6
# Pictures are enlarged by a whole number until their longer side has this many pixels.
CLEAR_SIZE = 480


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
    low, high = np.percentile(image, (0.5, 99.5))
    grey = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    picture = np.repeat(grey[..., None], 3, axis=2) if grey.ndim == 2 else grey
    zoom = max(CLEAR_SIZE // max(image.shape[:2]), 1)
    picture, pred = _enlarge(picture, zoom), _enlarge(pred, zoom)
    canvas = (200 * picture).astype(np.uint8)
    found = find_boundaries(pred, mode="inner")
    if label is None:
        canvas[found] = PREDICTION
        return canvas
    label = _enlarge(label, zoom)
    canvas[label < 0] //= 2
    true = find_boundaries(np.maximum(label, 0), mode="inner")
    for mask, colour in ((true & ~found, TRUTH), (found & ~true, PREDICTION), (true & found, BOTH)):
        canvas[mask] = colour
    return canvas


def contact_sheet(pictures: Sequence[np.ndarray], titles: Sequence[str], columns: int = 3) -> np.ndarray:
    """Arrange titled pictures on one sheet, with the colours explained at its foot.

    Args:
        pictures: uint8 (H, W, 3) each, of any sizes.
        titles: one line above each picture.
        columns: pictures in a row.

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
    height, width = (max(p.shape[axis] for p in pictures) for axis in (0, 1))
    cell = (width + GAP, height + TITLE_HEIGHT + GAP)
    rows = ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * cell[0] + GAP, rows * cell[1] + GAP + TITLE_HEIGHT))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for i, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        x, y = GAP + i % columns * cell[0], GAP + i // columns * cell[1]
        pen.text((x, y), title, fill="white", font=font)
        sheet.paste(Image.fromarray(picture), (x, y + TITLE_HEIGHT))
    x = GAP
    for name, colour in LEGEND:
        pen.text((x, rows * cell[1] + GAP), name, fill=colour, font=font)
        x += int(pen.textlength(name, font=font)) + 3 * GAP
    return np.asarray(sheet)


def _enlarge(array: np.ndarray, zoom: int) -> np.ndarray:
    """Repeat each pixel of the first two axes ``zoom`` times."""
    return array.repeat(zoom, axis=0).repeat(zoom, axis=1)
