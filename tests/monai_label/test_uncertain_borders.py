"""The measure of the strategy that looks for uncertain borders, on scores drawn by hand."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import numpy as np
import pytest
from unet_monai.data import draw_cells

from tests.bundle.conftest import REPOSITORY


@pytest.fixture
def border_uncertainty(monkeypatch: pytest.MonkeyPatch) -> Callable[[np.ndarray, np.ndarray], float]:
    monkeypatch.syspath_prepend(str(REPOSITORY / "monai_label" / "app"))
    return importlib.import_module("uncertain_borders").border_uncertainty


def two_classes(cell: list[list[float]]) -> np.ndarray:
    """Turn the probability of the class cell into both classes'."""
    return np.stack([1 - np.array(cell), np.array(cell)])


# One cell of 2 x 2 pixels at the left edge; its border is all of it and the ring of background around it.
CELL = np.array([[0, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]])


def test_certain_borders_have_none(border_uncertainty) -> None:
    assert border_uncertainty(two_classes(CELL.tolist()), CELL) == 0


def test_only_the_border_counts(border_uncertainty) -> None:
    cell = CELL.astype(float)
    cell[:, 3:] = 0.5  # undecided, but background far from the cell
    assert border_uncertainty(two_classes(cell.tolist()), CELL) == 0
    cell[0, 2] = 0.5  # one of the border's 12 pixels, beside the cell by a diagonal
    assert border_uncertainty(two_classes(cell.tolist()), CELL) == pytest.approx(1 / 12)


def test_undecided_borders_have_all(border_uncertainty) -> None:
    assert border_uncertainty(two_classes([[0.5] * 5] * 4), CELL) == 1


def test_the_two_likeliest_of_three_classes_are_compared(border_uncertainty) -> None:
    instances = np.array([[1, 2]])
    probabilities = np.array([[[0.1, 0.0]], [[0.7, 0.4]], [[0.2, 0.6]]])
    assert border_uncertainty(probabilities, instances) == pytest.approx(1 - (0.5 + 0.2) / 2)


def test_touching_cells_have_a_border_between_them(border_uncertainty) -> None:
    instances = np.array([[1, 1, 1, 2, 2, 2]])
    cell = np.array([[1, 1, 0.6, 0.9, 1, 1]])
    assert border_uncertainty(two_classes(cell.tolist()), instances) == pytest.approx((0.8 + 0.2) / 2)
    assert border_uncertainty(two_classes(cell.tolist()), np.ones_like(instances)) == 0


def test_an_image_without_cells_comes_last(border_uncertainty) -> None:
    assert border_uncertainty(two_classes([[0.5, 0.5]]), np.zeros((1, 2), int)) == 0


def test_equals_a_loop_over_pixels(border_uncertainty) -> None:
    instances = draw_cells(3, (48, 60))[1]
    scores = np.random.default_rng(0).normal(size=(3, *instances.shape))
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=0)
    doubts = []
    for row, column in np.ndindex(instances.shape):
        around = instances[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        if (around != instances[row, column]).any():
            _, second, first = sorted(probabilities[:, row, column])
            doubts.append(1 - (first - second))
    assert 0 < len(doubts) < instances.size, "test invalid"
    assert border_uncertainty(probabilities, instances) == pytest.approx(np.mean(doubts))
    turned = border_uncertainty(probabilities.transpose(0, 2, 1), instances.T)
    assert turned == pytest.approx(np.mean(doubts))


@pytest.mark.parametrize("shape", [(1, 4, 5), (2, 5, 4), (4, 5)])
def test_shapes_must_fit(border_uncertainty, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"probabilities must be \(C, \*S\) with C > 1 for instances of \(4, 5\), got"):
        border_uncertainty(np.ones(shape), CELL)
