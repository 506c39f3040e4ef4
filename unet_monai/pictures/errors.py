"""Draw what a network found in the colour of what became of it: right, missed, false, split, merged."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_dilation
from skimage.segmentation import find_boundaries
from unet_monai.metrics.error_classes import ErrorClass, error_classes
from unet_monai.metrics.instance_matching import overlap_table
from unet_monai.pictures.canvas import clear_zoom, dim_picture, enlarge

# Of the palette of Okabe and Ito (https://jfly.uni-koeln.de/color/), which all kinds of colour vision tell apart.
ERROR_COLOURS = {
    ErrorClass.RIGHT: (0, 158, 115),
    ErrorClass.MISSED: (213, 94, 0),
    ErrorClass.FALSE: (240, 228, 66),
    ErrorClass.SPLIT: (86, 180, 233),
    ErrorClass.MERGED: (204, 121, 167),
}
ERROR_LEGEND = {kind.name.lower(): colour for kind, colour in ERROR_COLOURS.items()}
# Larger images are reduced by a whole number until their longer side is within this many pixels.
LARGEST_SIZE = 960
# Share of the colour in the inside of a missed cell, which has no contour of a prediction to be seen by.
TINT = 0.4


def draw_errors(image: np.ndarray, pred: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Draw the contour of each instance in the colour of its class (`error_classes`).

    Errors have thick contours. True cells that are found, split or merged have contours of half the brightness, under
    those of the predictions; missed cells have bright ones and a tint inside. Excused predictions are not drawn.

    Args:
        image: (H, W) or (H, W, 3), any range; stretched between its own 0.5th and 99.5th percentile.
        pred: predicted instances (H, W), integers.
        label: true instances (H, W), integers; -1 (ignored) is drawn darker.

    Returns:
        The picture, uint8 (H', W', 3): enlarged by a whole number where the image is small, reduced by one where its
        longer side is above 960 pixels. The classes are those of the whole image in both cases.

    Raises:
        ValueError: if the shapes of `pred` and `label` differ.
        TypeError: if one of them does not hold integers.

    Example:
        >>> draw_errors(np.eye(8), np.ones((8, 8), int), np.ones((8, 8), int)).shape
        (480, 480, 3)
    """
    table = overlap_table(pred, label)
    of_true, of_pred = error_classes(table)
    step = -(-max(label.shape) // LARGEST_SIZE)
    zoom = clear_zoom(label.shape)
    image, pred, label = (enlarge(array[::step, ::step], zoom) for array in (image, pred, label))

    canvas = dim_picture(image)
    canvas[label < 0] //= 2
    truth = np.maximum(label, 0)
    true_class, pred_class = _class_map(truth, table.true_ids, of_true), _class_map(pred, table.pred_ids, of_pred)
    missed = true_class == ErrorClass.MISSED
    canvas[missed] = (1 - TINT) * canvas[missed] + TINT * np.array(ERROR_COLOURS[ErrorClass.MISSED])
    true_edge, pred_edge = find_boundaries(truth, mode="inner"), find_boundaries(pred, mode="inner")
    thick_true_edge, thick_pred_edge = binary_dilation(true_edge), binary_dilation(pred_edge)
    for kind, colour in ERROR_COLOURS.items():
        edge, dimming = (thick_true_edge, 1) if kind is ErrorClass.MISSED else (true_edge, 2)
        canvas[edge & (true_class == kind)] = np.array(colour) // dimming
    for kind, colour in ERROR_COLOURS.items():
        edge = pred_edge if kind is ErrorClass.RIGHT else thick_pred_edge
        canvas[edge & (pred_class == kind)] = colour
    return canvas


def _class_map(label: np.ndarray, ids: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Give each pixel the class of its instance, -1 on the background."""
    if not len(ids):
        return np.full(label.shape, -1)
    return np.where(label > 0, classes[np.searchsorted(ids, label).clip(max=len(ids) - 1)], -1)
