"""What our metrics share: one row of numbers for each image, pooled in the end."""

from __future__ import annotations

from typing import Any

import torch
from monai.config import TensorOrList
from monai.metrics import CumulativeIterationMetric


class ImageRowsMetric(CumulativeIterationMetric):
    """A metric that keeps one row of numbers for each image; subclasses compute the rows and pool them.

    Raises ValueError for lists of different lengths, and RuntimeError when there is no image to aggregate.
    """

    def _compute_list(self, y_pred: TensorOrList, y: TensorOrList | None = None, **kwargs: Any) -> Any:
        # MONAI pairs the two lists by zip, which drops the surplus silently.
        if y is not None and len(y_pred) != len(y):
            raise ValueError(f"y_pred must hold as many images as y, {len(y)}, got {len(y_pred)}.")
        return super()._compute_list(y_pred, y, **kwargs)

    def _rows(self) -> torch.Tensor:
        """Return the rows of all images seen, of all processes."""
        buffer = self.get_buffer()
        if buffer is None:
            raise RuntimeError(f"{type(self).__name__} has no image to aggregate: call it on predictions first.")
        return buffer
