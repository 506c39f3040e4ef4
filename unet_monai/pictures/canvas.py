"""What every picture begins with: the image, dimmed, at a size that can be seen."""

from __future__ import annotations

import numpy as np

# Small pictures are enlarged by a whole number while their longer side stays within this many pixels.
CLEAR_SIZE = 480
# Contours are brighter than the brightest pixel of the image.
BRIGHTEST = 200


def dim_picture(image: np.ndarray) -> np.ndarray:
    """Stretch an image between its own 0.5th and 99.5th percentile, and dim it.

    Args:
        image: (H, W) or (H, W, 3), any range.

    Returns:
        uint8 (H, W, 3), 0 to 200.

    Example:
        >>> dim_picture(np.array([[0.0, 1.0]]))[..., 0]
        array([[  0, 200]], dtype=uint8)
    """
    low, high = np.percentile(image, (0.5, 99.5))
    grey = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    picture = np.repeat(grey[..., None], 3, axis=2) if grey.ndim == 2 else grey
    return (BRIGHTEST * picture).astype(np.uint8)


def clear_zoom(size: tuple[int, ...]) -> int:
    """Return the whole number to enlarge a picture of `size` by, 1 for a large one."""
    return max(CLEAR_SIZE // max(size), 1)


def enlarge(array: np.ndarray, zoom: int) -> np.ndarray:
    """Repeat each pixel of the first two axes `zoom` times."""
    return array.repeat(zoom, axis=0).repeat(zoom, axis=1)
