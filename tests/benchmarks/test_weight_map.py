"""The stack of distance transforms is the equation that ours is, and the drawn cells are what the rows say."""

from __future__ import annotations

from argparse import Namespace

import numpy as np
import pytest
from unet_monai.transforms.weight_map import border_weight_map

from benchmarks import weight_map
from benchmarks.weight_map import draw_cells, stacked_weight_map


def test_stack_by_hand() -> None:
    # d1 + d2 is 3 between the cells, at both pixels.
    weights = stacked_weight_map(np.array([[1, 0, 0, 2]]), w0=10, sigma=5)
    np.testing.assert_allclose(weights, [[1, 1 + 10 * np.exp(-9 / 50), 1 + 10 * np.exp(-9 / 50), 1]])


def test_stack_and_ours_agree_on_drawn_cells() -> None:
    label = draw_cells(3, side=128, count=12)
    weights = border_weight_map(label)
    np.testing.assert_allclose(weights, stacked_weight_map(label), atol=1e-5)
    assert weights.max() > 5  # some cells lie close together


@pytest.mark.parametrize("seed", range(3))
def test_drawn_cells_are_all_there_and_some_touch(seed: int) -> None:
    label = draw_cells(seed, side=256, count=40)
    assert label.shape == (256, 256)
    assert np.unique(label).tolist() == list(range(41))
    beside = (label[:, 1:] != label[:, :-1]) & (label[:, 1:] > 0) & (label[:, :-1] > 0)
    assert beside.any()


def test_rows_hold_the_targets_and_the_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_map, "draw_cells", lambda seed, side, count, radius=(9, 18): draw_cells(seed, 64, 3))
    rows = list(weight_map.rows(Namespace(rounds=1)))
    assert [row.target for row in rows] == [150, 1.0, None, None, 1.2]
    assert float(rows[0].check.split()[-1]) <= 1e-5
