"""AP and PQ of object detection, as MONAI metrics and as a curve over IoU thresholds.

Every instance matches at most one of the other map. Pixels of `y` that are `IGNORE_LABEL` count nowhere, and a
prediction that lies there for more than its half is no false positive (`instance_matching.overlap_table`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from unet_monai.metrics.cell_tracking import PooledInstanceMetric
from unet_monai.metrics.instance_matching import OverlapTable, jaccard_indices, match_counts

AP_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
"""IoU thresholds of the usual table. Written out: a sum of steps of 0.05 misses an IoU of exactly 3/5."""

_ABOVE_HALF = float(np.nextafter(0.5, 1))


def ap_curve(tables: Iterable[OverlapTable], iou_thresholds: Sequence[float] = AP_THRESHOLDS) -> np.ndarray:
    """Compute AP(t) = TP / (TP + FP + FN) at several IoU thresholds, pooled over images.

    This is what StarDist calls accuracy (https://arxiv.org/abs/1806.03535, section 3). See `match_counts` for the
    matching. For the mean over images instead, call it on one table at a time and take `np.nanmean`.

    Args:
        tables: the overlaps of each image, see `overlap_table`.
        iou_thresholds: least Jaccard indices of a match, K numbers in (0, 1].

    Returns:
        (K,) float64 in [0, 1]; nan if there is nothing to find and nothing found in any image.

    Raises:
        ValueError: if a threshold is out of its range.

    Example:
        >>> from unet_monai.metrics.instance_matching import overlap_table
        >>> table = overlap_table(y_pred=np.array([7, 7, 7, 0, 9]), y=np.array([4, 4, 4, 4, 5]))
        >>> ap_curve([table], iou_thresholds=(0.5, 0.75, 0.8)).round(3)
        array([1.   , 1.   , 0.333])
    """
    images = list(tables)
    scores = []
    for threshold in iou_thresholds:
        counts = [match_counts(table, threshold) for table in images]
        objects = sum(map(sum, counts))
        scores.append(sum(c.true_positives for c in counts) / objects if objects else np.nan)
    return np.array(scores)


class APMetric(PooledInstanceMetric):
    """AP at one IoU threshold: the share of hits among all true and all falsely predicted cells, TP / (TP + FP + FN).

    The measure of the Data Science Bowl 2018 and, as "accuracy", of StarDist (https://arxiv.org/abs/1806.03535); no
    area under a precision-recall curve, since instances have no confidence. Matching: `match_counts`. AP50 and AP75 are
    the thresholds 0.5 and 0.75.

    An image with neither true nor falsely predicted cells adds nothing to the pooled AP and is left out of the mean.
    One without true cells but with a false prediction scores 0.

    The call takes `y_pred` and `y` as integer tensors (B, 1, X, Y[, Z]) or lists of (1, X, Y[, Z]), 0 background, and
    returns one row for each image, float32 (B, 2): AP of the image (nan where it is left out), TP + FP + FN. Raises
    ValueError for other or differing shapes, TypeError for maps that do not hold integers.

    Args:
        iou_threshold: least Jaccard index of a match, in (0, 1].
        reduction: "pooled" adds up the counts of all images first, "mean" averages the values of the images.

    Raises:
        ValueError: for an argument outside of the above.

    Example:
        >>> metric = APMetric(iou_threshold=0.5)
        >>> _ = metric(y_pred=torch.tensor([[[[7, 7, 7, 0, 5]]]]), y=torch.tensor([[[[4, 4, 4, 4, 0]]]]))
        >>> metric.aggregate()
        tensor(0.5000)
    """

    def __init__(self, iou_threshold: float = 0.5, reduction: str = "pooled") -> None:
        super().__init__()
        if not 0 < iou_threshold <= 1:
            raise ValueError(f"iou_threshold must be in (0, 1], got {iou_threshold}.")
        if reduction not in ("pooled", "mean"):
            raise ValueError(f"reduction must be 'pooled' or 'mean', got {reduction!r}.")
        self.iou_threshold = iou_threshold
        self.reduction = reduction

    def _image_row(self, table: OverlapTable) -> tuple[float, float]:
        counts = match_counts(table, self.iou_threshold)
        objects = sum(counts)
        return (counts.true_positives / objects if objects else float("nan")), objects

    def aggregate(self) -> torch.Tensor:
        """Reduce all images seen since `reset`.

        Returns:
            AP in [0, 1], scalar float32; nan if no image has a true or a falsely predicted cell.

        Raises:
            RuntimeError: if no image was seen.
        """
        ap_of_image, objects = self._columns()
        if self.reduction == "mean":
            return ap_of_image.nanmean()
        return (ap_of_image.nan_to_num() * objects).sum() / objects.sum()


class PQMetric(PooledInstanceMetric):
    """Panoptic quality of one class: the sum of the IoU of all hits / (TP + FP / 2 + FN / 2), pooled over images.

    Source: Kirillov et al. 2019 (https://arxiv.org/abs/1801.00868). A hit is a pair with an IoU > 0.5 (exactly half is
    none), which makes it unique. Without ignored pixels it equals MONAI's `PanopticQualityMetric`, which cannot leave
    any out, wants a second channel of classes and scores 0 where there is nothing to find.

    An image with neither true nor falsely predicted cells adds nothing.

    The call takes `y_pred` and `y` as integer tensors (B, 1, X, Y[, Z]) or lists of (1, X, Y[, Z]), 0 background, and
    returns one row for each image, float32 (B, 2): PQ of the image (nan where it adds nothing), TP + FP / 2 + FN / 2.
    Raises ValueError for other or differing shapes, TypeError for maps that do not hold integers.

    Example:
        >>> metric = PQMetric()
        >>> _ = metric(y_pred=torch.tensor([[[[7, 7, 7, 0, 5]]]]), y=torch.tensor([[[[4, 4, 4, 4, 0]]]]))
        >>> metric.aggregate()
        tensor(0.5000)
    """

    def _image_row(self, table: OverlapTable) -> tuple[float, float]:
        ious = jaccard_indices(table)
        counts = match_counts(table, _ABOVE_HALF)
        weight = counts.true_positives + (counts.false_positives + counts.false_negatives) / 2
        return (float(ious[ious > 0.5].sum() / weight) if weight else float("nan")), weight

    def aggregate(self) -> torch.Tensor:
        """Pool all images seen since `reset`.

        Returns:
            PQ in [0, 1], scalar float32; nan if no image has a true or a falsely predicted cell.

        Raises:
            RuntimeError: if no image was seen.
        """
        pq_of_image, weights = self._columns()
        return (pq_of_image.nan_to_num() * weights).sum() / weights.sum()
