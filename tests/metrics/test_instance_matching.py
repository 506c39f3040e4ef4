from __future__ import annotations

import numpy as np
import pytest
from unet_monai.metrics.instance_matching import ctc_matches, det_counts, jaccard_indices, overlap_table, seg_scores

from tests.drawings import draw, random_discs
from tests.reference.metrics import det_reference, seg_reference

TWO_CELLS = draw("""
    1111....
    1111.222
    .....222
""")


def random_pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a prediction with splits, merges, misses and spurious cells, and a truth with ignored pixels."""
    random = np.random.default_rng(seed)
    truth = random_discs(seed, shape=(30, 40))
    pred = np.roll(truth, random.integers(-2, 3, size=2), axis=(0, 1))
    pred[pred == 1] = 2
    pred[pred == 3] = 0
    pred[:15][pred[:15] == 4] = 40
    pred[20:23, 5:9] = 50
    truth[:, -6:] = -1
    return pred, truth


class TestOverlapTable:
    def test_counts_each_pair_and_the_areas(self) -> None:
        table = overlap_table(
            y_pred=draw("""
                .777....
                .7779999
                .....999
            """),
            y=TWO_CELLS,
        )
        assert table.true_ids.tolist() == [1, 2]
        assert table.pred_ids.tolist() == [7, 9]
        assert table.true_areas.tolist() == [8, 6]
        assert table.pred_areas.tolist() == [6, 7]
        pairs = zip(table.true_index.tolist(), table.pred_index.tolist(), table.intersections.tolist(), strict=True)
        assert list(pairs) == [(0, 0, 6), (1, 1, 6)]
        np.testing.assert_allclose(jaccard_indices(table), [6 / 8, 6 / 7])

    @pytest.mark.parametrize("seed", range(3))
    def test_pairs_add_up_to_the_common_foreground(self, seed: int) -> None:
        pred, truth = random_pair(seed)
        table = overlap_table(pred, truth)
        assert table.intersections.sum() == np.sum((pred > 0) & (truth > 0))
        assert table.intersections.min() > 0
        assert table.pred_areas.sum() == np.sum((pred > 0) & (truth >= 0))

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
    def test_takes_any_integers(self, dtype: type) -> None:
        table = overlap_table(TWO_CELLS.astype(dtype), TWO_CELLS)
        assert table.intersections.tolist() == [8, 6]

    def test_empty_maps(self) -> None:
        nothing = np.zeros_like(TWO_CELLS)
        assert [len(field) for field in overlap_table(nothing, nothing)] == [0] * 8
        assert len(overlap_table(TWO_CELLS, nothing).intersections) == 0
        assert len(overlap_table(nothing, TWO_CELLS).intersections) == 0

    def test_rejects_other_shape(self) -> None:
        with pytest.raises(ValueError, match=r"y_pred must have the shape of y, \(3, 8\), got \(8, 3\)\."):
            overlap_table(TWO_CELLS.T, TWO_CELLS)

    def test_rejects_probabilities(self) -> None:
        with pytest.raises(TypeError, match=r"y_pred must be an integer label map, got float64\."):
            overlap_table(TWO_CELLS / 2, TWO_CELLS)
        with pytest.raises(TypeError, match=r"y must be an integer label map, got bool\."):
            overlap_table(TWO_CELLS, TWO_CELLS > 0)


class TestScores:
    def test_exactly_half_is_no_match(self) -> None:
        half, more = np.array([5, 5, 0, 0]), np.array([5, 5, 5, 0])
        truth = np.array([1, 1, 1, 1])
        assert ctc_matches(overlap_table(half, truth)).tolist() == [False]
        assert ctc_matches(overlap_table(more, truth)).tolist() == [True]

    def test_a_merge_needs_one_split(self) -> None:
        table = overlap_table(y_pred=(TWO_CELLS > 0).astype(int), y=TWO_CELLS)
        np.testing.assert_allclose(seg_scores(table), [8 / 14, 6 / 14])
        assert det_counts(table) == (1, 0, 0, 2)

    def test_a_cell_in_two_halves_is_missed_and_spurious_twice(self) -> None:
        table = overlap_table(y_pred=np.array([8, 8, 9, 9]), y=np.array([1, 1, 1, 1]))
        assert seg_scores(table).tolist() == [0]
        assert det_counts(table) == (0, 1, 2, 1)

    @pytest.mark.parametrize("seed", range(5))
    def test_equal_to_the_reference(self, seed: int) -> None:
        pred, truth = random_pair(seed)
        table = overlap_table(pred, truth)
        np.testing.assert_allclose(seg_scores(table), seg_reference(pred, truth), rtol=1e-12)
        assert det_counts(table) == det_reference(pred, truth)

    def test_random_pairs_hold_every_error(self) -> None:
        counts = np.array([det_reference(*random_pair(seed)) for seed in range(5)])
        assert (counts.sum(axis=0) > 0).all(), "test invalid"

    def test_equal_to_the_reference_in_3d(self) -> None:
        truth = random_discs(3, shape=(12, 14, 16), radius=(3, 5))
        pred = np.roll(truth, 1, axis=2)
        np.testing.assert_allclose(seg_scores(overlap_table(pred, truth)), seg_reference(pred, truth), rtol=1e-12)

    def test_numbering_does_not_matter(self) -> None:
        pred, truth = random_pair(0)
        table, renumbered = overlap_table(pred, truth), overlap_table(pred * 1001, truth)
        np.testing.assert_array_equal(seg_scores(renumbered), seg_scores(table))
        assert det_counts(renumbered) == det_counts(table)


class TestIgnoredPixels:
    def test_a_perfect_prediction_stays_perfect(self) -> None:
        masked = draw("""
            1???....
            1???.222
            .....2??
        """)
        table = overlap_table(y_pred=TWO_CELLS, y=masked)
        assert seg_scores(table).tolist() == [1, 1]
        assert det_counts(table) == (0, 0, 0, 2)

    def test_no_false_positive_if_most_of_it_is_ignored(self) -> None:
        truth = draw("??...11")
        assert det_counts(overlap_table(draw("777..11"), truth)).false_positives == 0
        assert det_counts(overlap_table(draw("77...11"), truth)).false_positives == 0
        assert det_counts(overlap_table(draw("7777.11"), truth)).false_positives == 1
