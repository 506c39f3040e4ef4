from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import adapted_rand_error, variation_of_information
from unet_monai.metrics.foreground_rand import foreground_table, information_scores, rand_scores, thin_borders

from tests.drawings import draw, random_discs
from tests.reference.membranes import entropy, foreground_names, information_reference, rand_reference

ONE = draw("""
    111111
    111111
""")
HALVES = draw("""
    111222
    111222
""")
HALF_LOST = draw("""
    111...
    111...
""")


def random_pair(seed: int, *, zeros: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Return a proposal and a truth of touching discs that overlap in many ways."""
    y = random_discs(seed, (9, 11), count=4, radius=(2, 5))
    y_pred = random_discs(seed + 100, (9, 11), count=5, radius=(2, 5))
    return (y_pred if zeros else y_pred + 1), y


class TestScores:
    def test_a_cell_split_in_halves(self) -> None:
        table = foreground_table(HALVES, ONE)
        assert rand_scores(table) == pytest.approx((2 / 3, 1 / 2, 1))
        assert information_scores(table) == pytest.approx((0, 0, 1))

    def test_two_cells_merged(self) -> None:
        table = foreground_table(ONE, HALVES)
        assert rand_scores(table) == pytest.approx((2 / 3, 1, 1 / 2))
        assert information_scores(table) == pytest.approx((0, 1, 0))

    def test_pixels_without_a_segment_are_on_their_own(self) -> None:
        table = foreground_table(HALF_LOST, ONE)
        together = (6 / 12) ** 2 + 6 / 12**2
        assert rand_scores(table) == pytest.approx((2 * together / (1 + together), together, 1))
        alone = HALF_LOST.copy()
        alone[alone == 0] = np.arange(2, 8)
        np.testing.assert_allclose(rand_scores(table), rand_scores(foreground_table(alone, ONE)))
        np.testing.assert_allclose(information_scores(table), information_scores(foreground_table(alone, ONE)))

    def test_perfect(self) -> None:
        for y in (ONE, HALVES, random_discs(0)):
            for scores in (rand_scores, information_scores):
                assert scores(foreground_table(y, y)) == pytest.approx((1, 1, 1))

    @pytest.mark.parametrize("zeros", [False, True])
    @pytest.mark.parametrize("seed", range(4))
    def test_equals_the_definitions(self, seed: int, zeros: bool) -> None:
        y_pred, y = random_pair(seed, zeros=zeros)
        table = foreground_table(y_pred, y)
        assert (table.singletons > 0) == zeros, "test invalid"
        assert rand_scores(table) == pytest.approx(rand_reference(y_pred, y))
        assert information_scores(table) == pytest.approx(information_reference(y_pred, y))

    @pytest.mark.parametrize("seed", range(3))
    def test_only_the_foreground_and_not_the_numbering_counts(self, seed: int) -> None:
        y_pred, y = random_pair(seed)
        other = np.where(y == 0, 9, y_pred)
        assert np.any(other != y_pred), "test invalid"
        renumbered = np.where(other > 0, 1000 - 7 * other, 0)
        for scores in (rand_scores, information_scores):
            expected = scores(foreground_table(y_pred, y))
            np.testing.assert_allclose(scores(foreground_table(renumbered, 3 * y.astype(np.uint8))), expected)


class TestAgainstScikitImage:
    @pytest.mark.parametrize("seed", range(4))
    def test_adapted_rand_error_counts_pairs_of_different_pixels(self, seed: int) -> None:
        y_pred, y = random_pair(seed, zeros=False)
        table = foreground_table(y_pred, y)
        _, split, merge = rand_scores(table)
        n, in_truth, in_proposal = (
            np.sum(areas**power)
            for areas, power in ((table.true_areas, 1), (table.true_areas, 2), (table.segment_areas, 2))
        )
        # Its "precision" is the part that falls with splits.
        _, precision, recall = adapted_rand_error(y, y_pred)
        assert precision == pytest.approx((split * in_truth - n) / (in_truth - n))
        assert recall == pytest.approx((merge * in_proposal - n) / (in_proposal - n))

    @pytest.mark.parametrize("seed", range(4))
    def test_variation_of_information(self, seed: int) -> None:
        y_pred, y = random_pair(seed)
        alone = np.where(y_pred > 0, y_pred, 10 + np.arange(y.size).reshape(y.shape))
        splits, merges = variation_of_information(y, alone, ignore_labels=(0,))
        names = foreground_names(y_pred, y)
        of_truth, of_proposal = (entropy([name[i] for name in names]) / np.log(2) for i in (0, 1))
        expected = 1 - (splits + merges) / (of_truth + of_proposal), 1 - splits / of_proposal, 1 - merges / of_truth
        assert information_scores(foreground_table(y_pred, y)) == pytest.approx(expected)


class TestTable:
    def test_counts(self) -> None:
        y = draw("""
            11111.22
            11111.22
        """)
        y_pred = draw("""
            111.2223
            111.2222
        """)
        table = foreground_table(y_pred, y)
        assert sorted(table.true_areas.tolist()) == [4, 10]
        assert sorted(table.segment_areas.tolist()) == [1, 5, 6]
        assert sorted(table.overlaps.tolist()) == [1, 2, 3, 6]
        assert table.singletons == 2

    @pytest.mark.parametrize(
        ("y_pred", "y", "message"),
        [
            (HALVES, ONE[:1], r"y_pred must have the shape of y, \(1, 6\), got \(2, 6\)\."),
            (HALVES, ONE - 2, r"y must hold no label below 0, got -1\."),
            (HALVES - 2, ONE, r"y_pred must hold no label below 0, got -1\."),
            (HALVES, 0 * ONE, r"y must hold a label above 0, got none in shape \(2, 6\)\."),
        ],
    )
    def test_rejects_values(self, y_pred: np.ndarray, y: np.ndarray, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            foreground_table(y_pred, y)

    def test_rejects_probabilities(self) -> None:
        with pytest.raises(TypeError, match=r"y_pred must be an integer label map, got float64\."):
            foreground_table(HALVES / 2, ONE)
        with pytest.raises(TypeError, match=r"y must be an integer label map, got bool\."):
            foreground_table(HALVES, ONE > 0)


class TestThinBorders:
    def test_thick_membranes_become_lines(self) -> None:
        cells = draw("""
            ............
            .111.....22.
            .111...2222.
            .111.....22.
            ............
        """)
        thin = draw("""
            11111.222222
            11111.222222
            11111.222222
            11111.222222
            11111.222222
        """)
        np.testing.assert_array_equal(thin_borders(cells > 0), thin)

    def test_a_gap_joins(self) -> None:
        cells = draw("""
            11.11
            11111
            11.11
        """)
        assert np.all(thin_borders(cells > 0) == 1)

    def test_corners_do_not_join(self) -> None:
        np.testing.assert_array_equal(thin_borders(np.eye(2, dtype=bool)), [[1, 0], [0, 2]])

    @pytest.mark.parametrize("value", [False, True])
    def test_a_flat_mask_is_one_segment(self, value: bool) -> None:
        np.testing.assert_array_equal(thin_borders(np.full((3, 4), value)), np.ones((3, 4)))

    @pytest.mark.parametrize("density", [0.03, 0.2, 0.6])
    @pytest.mark.parametrize("seed", range(3))
    def test_lines_are_thin_and_separate(self, seed: int, density: float) -> None:
        cells = np.random.default_rng(seed).random((30, 35)) < density
        before = cells.copy()
        segments = thin_borders(cells)
        np.testing.assert_array_equal(cells, before)
        np.testing.assert_array_equal(segments[cells], ndimage.label(cells)[0][cells])
        for a, b in ((segments[1:], segments[:-1]), (segments[:, 1:], segments[:, :-1])):
            assert not np.any((a != b) & (a > 0) & (b > 0))
        cross = ndimage.generate_binary_structure(2, 1)
        beside_a_segment = ndimage.binary_dilation(segments > 0, cross)
        assert np.any(segments == 0), "test invalid"
        assert beside_a_segment.all()

    def test_rejects_volumes(self) -> None:
        with pytest.raises(ValueError, match=r"cells must have two axes, \(H, W\), got shape \(2, 3, 4\)\."):
            thin_borders(np.ones((2, 3, 4), bool))
