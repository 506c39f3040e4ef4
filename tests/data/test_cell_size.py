from __future__ import annotations

from math import isnan, nan, pi, sqrt
from pathlib import Path

import numpy as np
import pytest
from unet_monai.data import median_cell_diameter, scale_for_cells, write_instances

from tests.drawings import draw


def written(folder: Path, *labels: np.ndarray) -> list[dict[str, str]]:
    for i, label in enumerate(labels):
        write_instances(folder / f"{i}.png", label)
    return [{"label": str(folder / f"{i}.png")} for i in range(len(labels))]


def test_the_median_is_over_all_cells_of_all_images(tmp_path: Path) -> None:
    first = draw("""
        1111.2
        1111.2
        333333
    """)
    second = draw("""
        1.222222
        1.222222
    """)
    # Areas 8, 2, 6 and 2, 12.
    assert median_cell_diameter(written(tmp_path, first, second)) == pytest.approx(2 * sqrt(6 / pi))


def test_ignored_pixels_are_no_cell(tmp_path: Path) -> None:
    label = draw("""
        11.22222
        11.22222
    """)
    assert median_cell_diameter(written(tmp_path, label), ignore_label=2) == pytest.approx(2 * sqrt(4 / pi))


def test_border_pixels_tell_cells_apart(tmp_path: Path) -> None:
    label = draw("""
        11211.
        11211.
    """)
    assert median_cell_diameter(written(tmp_path, label), border_label=2) == pytest.approx(2 * sqrt(5 / pi))


def test_without_a_cell(tmp_path: Path) -> None:
    assert isnan(median_cell_diameter(written(tmp_path, np.zeros((4, 5), int))))
    assert scale_for_cells(nan, 40) == 1


def test_scale() -> None:
    assert scale_for_cells(80, 40) == 0.5
    assert scale_for_cells(30, 40) == 1
    assert scale_for_cells(30, None) == 1
    with pytest.raises(ValueError, match=r"largest_diameter must be positive, got 0\."):
        scale_for_cells(30, 0)
