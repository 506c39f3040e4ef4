from __future__ import annotations

import numpy as np
import pytest
from unet_monai.data.image_io import IGNORE_LABEL
from unet_monai.metrics.error_classes import ErrorClass, error_classes
from unet_monai.metrics.instance_matching import ctc_matches, det_counts, overlap_table

from tests.drawings import draw, random_discs
from tests.reference.error_classes import error_classes_reference

TRUE_CLASSES = {"RIGHT", "MISSED", "SPLIT", "MERGED"}
PRED_CLASSES = {"RIGHT", "FALSE", "SPLIT", "MERGED", "EXCUSED"}

# Name, truth, prediction, classes of the true and of the predicted instances in ascending order of their numbers.
CASES = [
    ("found", "1111..", ".7777.", ["RIGHT"], ["RIGHT"]),
    ("exactly half found", "1111..", "..7777", ["MISSED"], ["FALSE"]),
    ("a fragment", "1111111", "777....", ["MISSED"], ["FALSE"]),
    ("nothing found", "11.22.", "......", ["MISSED", "MISSED"], []),
    ("nothing there", "......", "77.88.", [], ["FALSE", "FALSE"]),
    ("far too large", "..1...", "777777", ["RIGHT"], ["RIGHT"]),
    ("split in two", "111111", "777888", ["SPLIT"], ["SPLIT", "SPLIT"]),
    ("split, a speck", "111111", "7777.8", ["SPLIT"], ["SPLIT", "SPLIT"]),
    ("split, over the edge", "111111.", "7778888", ["SPLIT"], ["SPLIT", "SPLIT"]),
    ("half of it in pieces", "11111111", "77..88..", ["MISSED"], ["FALSE", "FALSE"]),
    ("the second one is mostly outside", "11111...", "77778888", ["RIGHT"], ["RIGHT", "FALSE"]),
    ("merged", "111222", "777777", ["MERGED", "MERGED"], ["MERGED"]),
    ("merged with much background", "..1.......2..", "7777777777777", ["MERGED", "MERGED"], ["MERGED"]),
    ("merged, one only half", "1111222222", "7777777...", ["RIGHT", "MISSED"], ["RIGHT"]),
    ("merged and a third", "112233", "777788", ["MERGED", "MERGED", "RIGHT"], ["MERGED", "RIGHT"]),
    ("merged, and a fragment", "1111112", "77778.7", ["MERGED", "MERGED"], ["MERGED", "FALSE"]),
    ("most of it is in 1, but it covers 2", "11111111112", "88888.77777", ["MISSED", "RIGHT"], ["RIGHT", "FALSE"]),
    ("swapped numbers", "2222.1111", "3333.5555", ["RIGHT", "RIGHT"], ["RIGHT", "RIGHT"]),
    ("on ignored pixels", "11.????", "77.8888", ["RIGHT"], ["RIGHT", "EXCUSED"]),
    ("half on ignored pixels", "..??", ".777", [], ["EXCUSED"]),
    ("exactly half on ignored pixels", "..??", "7777", [], ["FALSE"]),
    ("excused, but it matches", "11????", "777777", ["RIGHT"], ["RIGHT"]),
    ("excused pieces split nothing", "1111??", "777888", ["RIGHT"], ["RIGHT", "EXCUSED"]),
    ("excused, but it merges", "12?????", "7777777", ["MERGED", "MERGED"], ["MERGED"]),
    ("an empty image", "....", "....", [], []),
]


def names(classes: np.ndarray) -> list[str]:
    return [ErrorClass(c).name for c in classes]


@pytest.mark.parametrize(("truth", "prediction", "true", "pred"), [case[1:] for case in CASES], ids=lambda case: None)
def test_drawn_cases(truth: str, prediction: str, true: list[str], pred: list[str]) -> None:
    found = error_classes(overlap_table(draw(prediction), draw(truth)))
    assert (names(found.true), names(found.pred)) == (true, pred)


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return predicted and true discs that meet in every way, with an ignored strip in every third scene."""
    random = np.random.default_rng(seed)
    truth = random_discs(seed, (40, 50), count=int(random.integers(1, 12)), radius=(2, 9))
    if seed % 2:
        pred = random_discs(seed + 1000, (40, 50), count=int(random.integers(1, 16)), radius=(2, 9))
    else:  # the same discs, some joined and some cut
        pred = np.where(random.random(13)[truth] < 0.4, np.minimum(truth, 4), truth)
        pred[(pred > 0) & (np.arange(50) % 9 < 4)] += 20
    truth[:, 44:] = np.where(seed % 3, truth[:, 44:], IGNORE_LABEL)
    return pred, truth


@pytest.mark.parametrize("seed", range(60))
def test_equals_the_rules_on_sets_of_pixels(seed: int) -> None:
    pred, truth = scene(seed)
    table = overlap_table(pred, truth)
    found = error_classes(table)
    true, predicted = error_classes_reference(pred, truth)
    assert dict(zip(table.true_ids.tolist(), names(found.true), strict=True)) == true
    assert dict(zip(table.pred_ids.tolist(), names(found.pred), strict=True)) == predicted


def test_scenes_hold_every_class() -> None:
    classes = [error_classes(overlap_table(*scene(seed))) for seed in range(60)]
    assert {name for c in classes for name in names(c.true)} == TRUE_CLASSES
    assert {name for c in classes for name in names(c.pred)} == PRED_CLASSES


@pytest.mark.parametrize("seed", range(60))
def test_agrees_with_the_errors_of_det(seed: int) -> None:
    table = overlap_table(*scene(seed))
    true, pred = error_classes(table)
    counts = det_counts(table)
    merged = (pred == ErrorClass.MERGED).sum()
    assert (true == ErrorClass.MERGED).sum() == counts.splits + merged
    assert counts.false_negatives <= np.isin(true, (ErrorClass.MISSED, ErrorClass.SPLIT)).sum()
    assert (pred == ErrorClass.FALSE).sum() <= counts.false_positives
    matched = np.isin(np.arange(len(true)), table.true_index[ctc_matches(table)])
    assert not matched[true == ErrorClass.MISSED].any()
    assert matched[np.isin(true, (ErrorClass.RIGHT, ErrorClass.MERGED))].all()
    # What is right is one to one.
    assert (true == ErrorClass.RIGHT).sum() == (pred == ErrorClass.RIGHT).sum()
    # Every split instance has two pieces or more of its own.
    assert 2 * (true == ErrorClass.SPLIT).sum() <= (pred == ErrorClass.SPLIT).sum()


@pytest.mark.parametrize("seed", range(10))
def test_the_truth_itself_is_right(seed: int) -> None:
    truth = random_discs(seed)
    found = error_classes(overlap_table(truth, truth))
    assert len(found.true)
    assert {*found.true, *found.pred} == {ErrorClass.RIGHT}


def test_numbers_do_not_count() -> None:
    pred, truth = scene(4)
    before, after = (
        error_classes(overlap_table(pred, truth)),
        error_classes(overlap_table(np.where(pred > 0, 1000 - pred, 0), np.where(truth > 0, 500 - truth, truth))),
    )
    assert before.true.tolist() == after.true[::-1].tolist()
    assert before.pred.tolist() == after.pred[::-1].tolist()
