"""SEG and DET of the Cell Tracking Challenge as MONAI metrics.

Definitions: https://celltrackingchallenge.net/evaluation-methodology/. Both pool all reference objects of all images,
as the challenge does: they are no means over images. Pixels of `y` that are `IGNORE_LABEL` count for neither
(`instance_matching.overlap_table`); where a data set leaves out cells in the margin of a frame, mask the margin so.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from unet_monai.metrics.image_rows import ImageRowsMetric
from unet_monai.metrics.instance_matching import OverlapTable, det_counts, overlap_table, seg_scores

# AOGM-D weights of the challenge: a needed split, a missed object, a spurious object.
SPLIT_COST, MISS_COST, SPURIOUS_COST = 5, 10, 1


class PooledInstanceMetric(ImageRowsMetric):
    """One row of numbers for each image in the buffer (images, 2); subclasses say which, and pool them."""

    @abstractmethod
    def _image_row(self, table: OverlapTable) -> tuple[float, float]:
        """Reduce the overlaps of one image to the two numbers that are pooled."""

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        y_shape = None if y is None else tuple(y.shape)
        if y is None or y.ndim < 3 or y.shape[1] != 1:
            raise ValueError(f"y must have the shape (B, 1, X, Y[, Z]), got {y_shape}.")
        if y_pred.shape != y.shape:
            raise ValueError(f"y_pred must have the shape of y, {y_shape}, got {tuple(y_pred.shape)}.")
        images = zip(y_pred.cpu().numpy()[:, 0], y.cpu().numpy()[:, 0], strict=True)
        rows = [self._image_row(overlap_table(pred, truth)) for pred, truth in images]
        return torch.tensor(rows, dtype=torch.float32, device=y_pred.device)

    def _columns(self) -> torch.Tensor:
        return self._rows().T


class SEGMetric(PooledInstanceMetric):
    """SEG: how well the true cells are outlined, the mean over all of them of the Jaccard index of their match.

    A predicted object S matches the reference object R if |R and S| > |R| / 2; a reference object without a match
    scores 0, and false positives cost nothing. An image without reference objects adds nothing.

    The call takes `y_pred` and `y` as integer tensors (B, 1, X, Y[, Z]) or lists of (1, X, Y[, Z]), 0 background, and
    returns one row for each image, float32 (B, 2): SEG of the image (nan without reference objects), number of its
    reference objects. Raises ValueError for other or differing shapes, TypeError for maps that do not hold integers.

    Example:
        >>> metric = SEGMetric()
        >>> _ = metric(y_pred=torch.tensor([[[[7, 7, 7, 0, 0]]]]), y=torch.tensor([[[[0, 4, 4, 4, 9]]]]))
        >>> metric.aggregate()
        tensor(0.2500)
    """

    def _image_row(self, table: OverlapTable) -> tuple[float, float]:
        scores = seg_scores(table)
        return (float(scores.mean()) if len(scores) else float("nan")), len(scores)

    def aggregate(self) -> torch.Tensor:
        """Pool all images seen since `reset`.

        Returns:
            SEG in [0, 1], scalar float32; nan if no image has a reference object.

        Raises:
            RuntimeError: if no image was seen.
        """
        seg_of_image, references = self._columns()
        return (seg_of_image.nan_to_num() * references).sum() / references.sum()


class DETMetric(PooledInstanceMetric):
    """DET: how well the cells are found, 1 - min(A, A0) / A0.

    A = 5 NS + 10 FN + 1 FP, the cost of repairing the detections (NS needed splits, FN missed reference objects, FP
    spurious predictions; matches as in `SEGMetric`), and A0 = 10 x reference objects, the cost of adding all by hand.
    A and A0 are summed over all images before they are compared.

    The call takes `y_pred` and `y` as integer tensors (B, 1, X, Y[, Z]) or lists of (1, X, Y[, Z]), 0 background, and
    returns one row for each image, float32 (B, 2): A of the image, number of its reference objects. Raises ValueError
    for other or differing shapes, TypeError for maps that do not hold integers.

    Example:
        >>> metric = DETMetric()
        >>> _ = metric(y_pred=torch.tensor([[[[7, 7, 7, 0, 5]]]]), y=torch.tensor([[[[1, 1, 2, 3, 0]]]]))
        >>> metric.aggregate()
        tensor(0.4667)
    """

    def _image_row(self, table: OverlapTable) -> tuple[float, float]:
        counts = det_counts(table)
        cost = SPLIT_COST * counts.splits + MISS_COST * counts.false_negatives + SPURIOUS_COST * counts.false_positives
        return cost, counts.references

    def aggregate(self) -> torch.Tensor:
        """Pool all images seen since `reset`.

        Returns:
            DET in [0, 1], scalar float32; nan if no image has a reference object.

        Raises:
            RuntimeError: if no image was seen.
        """
        costs, references = self._columns()
        cost, cost_by_hand = costs.sum(), MISS_COST * references.sum()
        return 1 - torch.minimum(cost, cost_by_hand) / cost_by_hand
