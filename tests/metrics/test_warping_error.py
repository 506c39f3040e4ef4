from __future__ import annotations

import numpy as np
import pytest
from unet_monai.metrics.warping_error import NEIGHBOURS, relax_truth, simple_points, warping_error

from tests.drawings import draw, random_discs
from tests.reference.membranes import relax_reference, topology

TWO = draw("""
    111...222
    111...222
    111...222
""")


def certain(picture: str) -> np.ndarray:
    """Return a proposal that is sure of the drawn cells."""
    return np.where(draw(picture) > 0, 0.9, 0.1)


def test_simple_points_have_one_piece_around_them() -> None:
    ring = [NEIGHBOURS.index(n) for n in ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))]
    for code in range(256):
        x = [code >> k & 1 for k in ring]
        # The connectivity number of Yokoi et al. 1973 for 4-connected figures.
        number = sum(x[k] - x[k] * x[k + 1] * x[(k + 2) % 8] for k in (0, 2, 4, 6))
        assert simple_points()[code] == (number == 1), f"neighbourhood {code:08b}"


class TestRelaxTruth:
    def test_a_moved_membrane_costs_nothing(self) -> None:
        moved = certain("""
            1111.2222
            111.22222
            11.222222
        """)
        assert np.mean((moved > 0.5) != (TWO > 0)) > 0.15, "test invalid"
        np.testing.assert_array_equal(relax_truth(TWO > 0, moved, 0.5), moved > 0.5)
        assert warping_error(TWO > 0, moved, 0.5) == 0

    def test_broken_membrane(self) -> None:
        gap = certain("""
            1111.2222
            111122222
            1111.2222
        """)
        assert warping_error(TWO > 0, gap, 0.5) == 1 / 27

    def test_cut_cell(self) -> None:
        cut = certain("""
            1.11.2222
            1.11.2222
            1.11.2222
        """)
        assert warping_error(TWO > 0, cut, 0.5) == 1 / 27

    def test_lost_added_and_moved_cells(self) -> None:
        truth = draw("""
            .......
            .11....
            .11....
            .......
        """)
        lost, added, moved = np.full((3, *truth.shape), 0.1)
        added[:, 5:] = 0.9
        added[truth > 0] = 0.9
        moved[:2, 2:4] = 0.9
        assert warping_error(truth > 0, lost, 0.5) == 1 / 28
        assert warping_error(truth > 0, added, 0.5) == 8 / 28
        assert warping_error(truth > 0, moved, 0.5) == 0

    def test_outside_is_membrane(self) -> None:
        whole = np.ones((3, 4), bool)
        notch = certain("""
            11.1
            11.1
            1111
        """)
        hole = certain("""
            1111
            1..1
            1111
        """)
        assert warping_error(whole, notch, 0.5) == 0
        assert warping_error(whole, hole, 0.5) == 2 / 12

    @pytest.mark.parametrize(("left", "right", "left_moves"), [(0.7, 0.9, 0), (0.9, 0.7, 1), (0.8, 0.8, 1)])
    def test_certain_pixels_move_first(self, left: float, right: float, left_moves: int) -> None:
        y_pred = np.array([[0.6, 0.6, left, right, 0.6, 0.6]])
        relaxed = relax_truth(draw("11..22") > 0, y_pred, 0.5)
        np.testing.assert_array_equal(relaxed, [[1, 1, left_moves, 1 - left_moves, 1, 1]])

    @pytest.mark.parametrize("seed", range(8))
    def test_equals_the_definition(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        y = random_discs(seed, (8, 9), count=3, radius=(2, 4)) > 0
        # Few different values, so that many pixels tie.
        y_pred = random.integers(0, 6, size=y.shape) / 5
        relaxed = relax_truth(y, y_pred, 0.5)
        assert np.any(relaxed != y), "test invalid"
        np.testing.assert_array_equal(relaxed, relax_reference(y, y_pred, 0.5))

    @pytest.mark.parametrize("threshold", [0.1, 0.5, 0.8])
    def test_topology_stays_and_input_too(self, threshold: float) -> None:
        y = random_discs(1, count=20) > 0
        y_pred = np.random.default_rng(0).random(y.shape)
        before = y.copy(), y_pred.copy()
        relaxed = relax_truth(y, y_pred, threshold)
        assert topology(relaxed) == topology(y)
        assert np.mean(relaxed != (y_pred > threshold)) < np.mean(y != (y_pred > threshold))
        np.testing.assert_array_equal(y, before[0])
        np.testing.assert_array_equal(y_pred, before[1])

    def test_truth_against_itself(self) -> None:
        y = random_discs(2) > 0
        np.testing.assert_array_equal(relax_truth(y, y.astype(float), 0.5), y)
        assert warping_error(y, y.astype(float), 0.5) == 0

    @pytest.mark.parametrize(
        ("y", "message"),
        [
            (np.ones((2, 3, 4), bool), r"y must have two axes, \(H, W\), got shape \(2, 3, 4\)\."),
            (np.ones((2, 3), bool), r"y_pred must have the shape of y, \(2, 3\), got \(3, 9\)\."),
        ],
    )
    def test_rejects_shapes(self, y: np.ndarray, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            relax_truth(y, np.zeros((3, 9)), 0.5)
