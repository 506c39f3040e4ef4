from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage
from torch.nn.functional import interpolate
from unet_monai.transforms.rescale import Rescale, Rescaled, resample, smooth

from tests.drawings import draw, random_discs


def random_image(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(20, 13), (41, 26), (90, 60), (20, 60)])
def test_a_picture_is_what_torch_makes_of_it(size: tuple[int, int]) -> None:
    image = random_image(2, 41, 26)
    expected = interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=True)[0]
    torch.testing.assert_close(resample(image, size), expected)


def test_a_volume_that_grows_is_what_torch_makes_of_it() -> None:
    image = random_image(1, 5, 6, 7)
    torch.testing.assert_close(resample(image, (10, 9, 7)), interpolate(image[None], (10, 9, 7), mode="trilinear")[0])


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_a_constant_stays_and_the_mean_is_kept(spatial_dims: int) -> None:
    image = torch.full((1, *[24] * spatial_dims), 3.0)
    torch.testing.assert_close(resample(image, [9] * spatial_dims), torch.full((1, *[9] * spatial_dims), 3.0))
    noise = random_image(1, *[64] * spatial_dims)
    half = resample(noise, [32] * spatial_dims)
    assert half.std() < 0.75**spatial_dims * noise.std() * 1.1, "shrinking must average, not skip"
    assert half.mean() == pytest.approx(noise.mean().item(), abs=0.02)


def test_labels_keep_their_values_and_type() -> None:
    label = torch.tensor([[[2**31 - 1, 2**31 - 1, -1, -1, 7, 7]]], dtype=torch.int32)
    small = Rescale(0.5, "nearest")(label)
    assert small.dtype == torch.int32
    assert small.tolist() == [[[2**31 - 1, -1, 7]]]
    assert Rescale(2, "nearest")(torch.from_numpy(draw("12"))[None]).tolist() == [[[1, 1, 2, 2]] * 2]


def test_image_and_label_stay_together() -> None:
    label = torch.zeros(1, 60, 60, dtype=torch.int32)
    label[:, 16:40, 20:52] = 1
    data = Rescaled(["image", "label"], 0.5, ["linear", "nearest"])({"image": label.float(), "label": label, "name": 1})
    np.testing.assert_array_equal(data["image"] > 0.5, data["label"] > 0)
    assert data["name"] == 1


@pytest.mark.parametrize("shape", [(2, 30, 41), (1, 12, 9, 10), (1, 2, 3)])
def test_smoothing_is_what_scipy_makes_of_it(shape: tuple[int, ...]) -> None:
    image = random_image(*shape)
    expected = [ndimage.gaussian_filter(channel, 0.7, mode="nearest", truncate=4) for channel in image.numpy()]
    np.testing.assert_allclose(smooth(image, 0.7), np.stack(expected), atol=2e-4)


def test_images_are_smoothed_after_they_shrink_and_labels_never() -> None:
    image, label = random_image(1, 40, 50), torch.from_numpy(random_discs(0, (40, 50)))[None]
    keys, modes = ["image", "label"], ["linear", "nearest"]
    for scale in (0.5, 1):
        small = Rescaled(keys, scale, modes, smoothing=0.7)({"image": image, "label": label})
        assert torch.equal(small["image"], smooth(Rescale(scale)(image), 0.7))
        assert torch.equal(small["label"], Rescale(scale, "nearest")(label))
    assert smooth(image, 0) is image


def test_metadata_are_kept_and_the_affine_follows() -> None:
    image = MetaTensor(random_image(1, 10, 20), affine=torch.eye(4), meta={"filename_or_obj": "a.tif"})
    small = Rescale(0.5)(image)
    assert small.meta["filename_or_obj"] == "a.tif"
    # The first pixel's centre lies half an old pixel further in, a pixel is two old ones wide.
    expected = [[2, 0, 0, 0.5], [0, 2, 0, 0.5], [0, 0, 1, 0], [0, 0, 0, 1]]
    torch.testing.assert_close(small.affine, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(image.affine, torch.eye(4, dtype=torch.float64))
    array = Rescale(0.5)(np.ones((1, 4, 6), np.float32))
    assert type(array) is np.ndarray
    assert array.shape == (1, 2, 3)


def test_scale_one_changes_nothing_and_no_side_vanishes() -> None:
    image = random_image(1, 3, 40)
    assert Rescale(1)(image) is image
    assert Rescale(0.1)(image).shape == (1, 1, 4)


def test_rejects() -> None:
    for scale in (0, -1, float("nan")):
        with pytest.raises(ValueError, match=rf"scale must be positive, got {scale}\."):
            Rescale(scale)
    for smoothing in (-1, float("nan")):
        with pytest.raises(ValueError, match=rf"smoothing must be at least 0, got {smoothing}\."):
            Rescale(2, smoothing=smoothing)
    with pytest.raises(ValueError, match=r"mode must be one of linear, nearest, got 'cubic'\."):
        Rescale(2, "cubic")
    with pytest.raises(ValueError, match=r"mode must be one of linear, nearest, got 'area'\."):
        resample(random_image(1, 4), [2], "area")
