from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from unet_monai.data import balanced_class_weights, write_instances


def labels(folder: Path, *maps: list[list[int]]) -> list[dict[str, str]]:
    paths = [str(folder / f"{i}.png") for i in range(len(maps))]
    for path, rows in zip(paths, maps, strict=True):
        write_instances(path, np.array(rows))
    return [{"image": "unused", "label": path} for path in paths]


def test_rare_class_weighs_more_over_all_images(tmp_path: Path) -> None:
    data = labels(tmp_path, [[1, 0, 0, 2]], [[0, 0, 0, 0]])
    assert balanced_class_weights(data) == pytest.approx((8 / 12, 8 / 4))


def test_both_classes_carry_half_of_the_weight(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    maps = [rng.integers(0, 5, (6, 7)) for _ in range(3)]
    background, cell = balanced_class_weights(labels(tmp_path, *(m.tolist() for m in maps)))
    pixels = np.concatenate([m.ravel() for m in maps])
    assert background * np.sum(pixels == 0) == pytest.approx(cell * np.sum(pixels > 0))
    assert np.where(pixels > 0, cell, background).mean() == pytest.approx(1)


def test_ignored_pixels_do_not_count(tmp_path: Path) -> None:
    data = labels(tmp_path, [[1, 2, 0, 0, 9, 9, 9]])
    assert balanced_class_weights(data, ignore_label=9) == pytest.approx((1, 1))


def test_border_pixels_are_of_cells(tmp_path: Path) -> None:
    data = labels(tmp_path, [[1, 2, 1, 0, 0, 0, 0, 2]])
    assert balanced_class_weights(data, border_label=2) == pytest.approx((8 / 10, 8 / 6))


def test_a_missing_class_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data must hold pixels of background and of cells, got 3 and 0\."):
        balanced_class_weights(labels(tmp_path, [[0, 0, 0]]))
