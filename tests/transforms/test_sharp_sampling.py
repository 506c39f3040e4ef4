"""Sampling that keeps the noise of an image, see `elastic_deformation.sample`."""

from __future__ import annotations

import numpy as np
import torch
from unet_monai.transforms import RandElasticDeformation, RandElasticDeformationd

SETTINGS = {"magnitude": 3, "rotate_range": 3.1, "shift_range": 2}


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_pictures_are_sampled_bicubically_and_volumes_linearly() -> None:
    for shape, mode, other in (((1, 40, 50), "bicubic", "bilinear"), ((1, 20, 18, 16), "bilinear", "nearest")):
        transform = RandElasticDeformation(12, **SETTINGS).set_random_state(seed=0)
        image = noise(*shape)
        tile = transform(image)
        np.testing.assert_array_equal(tile, transform(image, mode=mode, randomize=False))
        assert np.any(tile != transform(image, mode=other, randomize=False)), "test invalid"


def test_most_of_the_noise_is_kept() -> None:
    image = noise(1, 200, 200)
    spread = {}
    for mode in ("sharp", "bilinear"):
        transform = RandElasticDeformation(160, **SETTINGS).set_random_state(seed=0)
        spread[mode] = np.mean([transform(image, mode=mode).var() for _ in range(10)])
    assert spread["bilinear"] < 0.55
    assert spread["sharp"] > 0.7


def test_it_is_the_default_for_images_and_labels_stay_labels() -> None:
    image, label = torch.from_numpy(noise(1, 40, 50)), torch.arange(2000, dtype=torch.int32).reshape(1, 40, 50)
    pair = {"image": image, "label": label}
    default, explicit = (
        RandElasticDeformationd(["image", "label"], *modes, spatial_size=12, **SETTINGS).set_random_state(seed=0)(pair)
        for modes in ((), (("bicubic", "nearest"),))
    )
    assert torch.equal(default["image"], explicit["image"])
    assert torch.equal(default["label"], explicit["label"])
    assert default["label"].dtype == torch.int32
