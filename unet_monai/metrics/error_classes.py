"""What became of every true and every predicted instance: right, missed, false, split, merged."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from unet_monai.metrics.instance_matching import OverlapTable, ctc_matches


class ErrorClass(IntEnum):
    """What became of an instance, see `error_classes`."""

    RIGHT = 0
    MISSED = 1
    FALSE = 2
    SPLIT = 3
    MERGED = 4
    EXCUSED = 5


class InstanceClasses(NamedTuple):
    """The `ErrorClass` of every instance.

    Attributes:
        true: (T,) int, in the order of `OverlapTable.true_ids`; RIGHT, MISSED, SPLIT or MERGED.
        pred: (P,) int, in the order of `OverlapTable.pred_ids`; RIGHT, FALSE, SPLIT, MERGED or EXCUSED.
    """

    true: np.ndarray
    pred: np.ndarray


def error_classes(table: OverlapTable) -> InstanceClasses:
    """Put every true instance R and every predicted one S into exactly one class.

    S covers R if |R and S| > |R| / 2, the match of the Cell Tracking Challenge (`ctc_matches`). S is a piece of R if
    |R and S| > |S| / 2, it covers no other true instance, and it is not excused (`OverlapTable`). Then

    - merged are an S that covers two or more R, and each R that it covers: the splits that DET counts;
    - split are an R of which two or more pieces take more than half together, and these pieces;
    - right are an R that is covered otherwise, and the S that covers it: one to one;
    - missed is every other R: not even half of it is found;
    - excused is every other S of which more than half lies on ignored pixels;
    - false is every other S: most of it is background, or it is a fragment of a cell that was missed or found without.

    Merged and split are the under- and over-segmentation of Hoover et al. 1996 (https://doi.org/10.1109/34.506791) at a
    tolerance of one half, but for a merged S that may hold any amount of background: a blob over two cells has not
    missed them. Exactly half never counts.

    Args:
        table: the overlaps.

    Returns:
        The classes of the true and of the predicted instances.

    Example:
        >>> from unet_monai.metrics.instance_matching import overlap_table
        >>> table = overlap_table(y_pred=np.array([7, 7, 7, 0, 8, 9]), y=np.array([1, 1, 2, 3, 0, 4]))
        >>> [[ErrorClass(c).name for c in classes] for classes in error_classes(table)]
        [['MERGED', 'MERGED', 'MISSED', 'RIGHT'], ['MERGED', 'FALSE', 'RIGHT']]
    """
    true, pred, shared = table.true_index, table.pred_index, table.intersections
    covers = ctc_matches(table)
    covered = np.bincount(pred[covers], minlength=len(table.pred_ids))
    merging = covered >= 2

    covers_no_other = covered[pred] == covers
    piece = (2 * shared > table.pred_areas[pred]) & covers_no_other & ~table.pred_excused[pred]
    pieces = np.bincount(true[piece], minlength=len(table.true_ids))
    taken = np.bincount(true[piece], weights=shared[piece], minlength=len(table.true_ids))
    split = (pieces >= 2) & (2 * taken > table.true_areas)

    # Merged and split exclude each other: what covers a second instance is no piece. Both are right but for that.
    of_true = np.full(len(table.true_ids), ErrorClass.MISSED, dtype=int)
    of_true[true[covers]] = ErrorClass.RIGHT
    of_true[true[covers & merging[pred]]] = ErrorClass.MERGED
    of_true[split] = ErrorClass.SPLIT
    of_pred = np.where(table.pred_excused, int(ErrorClass.EXCUSED), int(ErrorClass.FALSE))
    of_pred[covered == 1] = ErrorClass.RIGHT
    of_pred[merging] = ErrorClass.MERGED
    of_pred[pred[piece & split[true]]] = ErrorClass.SPLIT
    return InstanceClasses(of_true, of_pred)
