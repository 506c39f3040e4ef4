from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from unet_monai.pictures.curves import EpochResult, draw_curves

EPOCHS = [EpochResult(i, 1 / i, 0.9 / i, 1.1 / i, {"SEG": 0.1 * i, "DET": 0.2} if i % 2 else {}) for i in range(1, 6)]


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_what_is_drawn_depends_on_every_figure() -> None:
    pictures = [
        draw_curves(EPOCHS),
        draw_curves(EPOCHS, best_epoch=3),
        draw_curves(EPOCHS, best_epoch=5),
        draw_curves(EPOCHS[:4]),
        draw_curves([*EPOCHS[:4], EpochResult(5, 0.3, 0.18, 0.22, {"SEG": 0.5, "DET": 0.2})]),
        draw_curves([*EPOCHS[:4], EpochResult(5, 0.2, 0.15, 0.22, {"SEG": 0.5, "DET": 0.2})]),
        draw_curves([*EPOCHS[:4], EpochResult(5, 0.2, 0.18, 0.22, {"SEG": 0.4, "DET": 0.2})]),
    ]
    assert len(set(pictures)) == len(pictures)
    assert draw_curves(EPOCHS) == pictures[0]
    assert len({pixels(picture).shape for picture in pictures}) == 1


def test_one_epoch_without_a_validation_and_undefined_measures() -> None:
    alone = pixels(draw_curves([EpochResult(1, 0.7, 0.6, 0.8)]))
    assert alone.std() > 0
    undefined = draw_curves([EpochResult(1, 0.7, 0.6, 0.8, {"SEG": float("nan")})], best_epoch=1)
    assert pixels(undefined).std() > 0


def test_many_measures_and_one_that_came_later() -> None:
    epochs = [EpochResult(1, 1, 1, 1, {"a": 0.1}), EpochResult(2, 1, 1, 1, {f"m{i}": i for i in range(25)})]
    assert pixels(draw_curves(epochs)).std() > 0


def test_rejects_none() -> None:
    with pytest.raises(ValueError, match=r"epochs must hold at least one, got none\."):
        draw_curves([])
