from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage
from unet_monai.transforms.touching_ridge import TouchingRidge, TouchingRidged, box_extreme, nearby_ids, touching_ridge

from tests.drawings import draw, random_discs

CELLS = draw("""
    1111222.
    1111222.
    1111222.
    ......3.
    44.555.?
    44.555.?
""")
CUT = draw("""
    111..22.
    111..22.
    111.....
    ........
    44.55..?
    44.555.?
""")


def ridge_reference(label: np.ndarray, radius: int) -> np.ndarray:
    """Look at every pair of pixels."""
    pixels = [tuple(p) for p in np.argwhere(label > 0)]
    ridge = np.zeros(label.shape, bool)
    for p, q in itertools.product(pixels, pixels):
        if label[p] != label[q] and max(abs(a - b) for a, b in zip(p, q, strict=True)) <= radius:
            ridge[p] = True
    return ridge


def test_cuts_one_pixel_on_each_side() -> None:
    np.testing.assert_array_equal(np.where(touching_ridge(CELLS), 0, CELLS), CUT)


@pytest.mark.parametrize(("shape", "radius"), [((20, 22), 1), ((20, 22), 2), ((20, 22), 3), ((8, 9, 10), 1)])
def test_equal_to_the_reference(shape: tuple[int, ...], radius: int) -> None:
    label = random_discs(1, shape, count=6)
    label[-3:] = -1
    expected = ridge_reference(label, radius)
    assert expected.any(), "test invalid"
    np.testing.assert_array_equal(touching_ridge(label, radius), expected)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("radius", [1, 2])
def test_cut_instances_are_farther_apart_than_twice_the_radius(seed: int, radius: int) -> None:
    label = random_discs(seed)
    cut = np.where(touching_ridge(label, radius), 0, label)
    assert touching_ridge(label, 2 * radius).any(), "test invalid"
    assert not touching_ridge(cut, radius).any()


def test_radius_zero_and_single_instances_have_no_ridge() -> None:
    assert not touching_ridge(CELLS, radius=0).any()
    assert not touching_ridge((CELLS > 0).astype(np.int32), radius=3).any()
    assert not touching_ridge(np.zeros_like(CELLS)).any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int64])
def test_nearby_ids_in_any_integer_type(dtype: type) -> None:
    lowest, highest = nearby_ids(np.array([0, 0, 7, 3, 0], dtype), radius=1)
    assert lowest.tolist() == [np.iinfo(dtype).max, 7, 3, 3, 3]
    assert highest.tolist() == [0, 7, 7, 7, 3]
    assert lowest.dtype == highest.dtype == dtype


@pytest.mark.parametrize("radius", [0, 1, 2, 9])
def test_box_extreme_is_the_filter_of_scipy(radius: int) -> None:
    values = np.random.default_rng(0).integers(-5, 100, size=(6, 7, 8))
    original = values.copy()
    size = 2 * radius + 1
    np.testing.assert_array_equal(box_extreme(values, radius, np.maximum), ndimage.maximum_filter(values, size))
    np.testing.assert_array_equal(box_extreme(values, radius, np.minimum), ndimage.minimum_filter(values, size))
    np.testing.assert_array_equal(values, original)


def test_ridge_rejects() -> None:
    with pytest.raises(ValueError, match=r"radius must be at least 0, got -1\."):
        touching_ridge(CELLS, radius=-1)
    with pytest.raises(TypeError, match=r"label must be an integer label map, got float64\."):
        touching_ridge(CELLS / 2)


class TestTouchingRidge:
    def test_keeps_kind_type_and_metadata(self) -> None:
        for dtype in (np.int32, np.int16, np.int64):
            array = CELLS.astype(dtype)[None]
            cut = TouchingRidge()(array)
            assert type(cut) is np.ndarray
            assert cut.dtype == dtype
            np.testing.assert_array_equal(cut[0], CUT)
        tensor = MetaTensor(torch.from_numpy(CELLS)[None], affine=2 * torch.eye(3), meta={"filename_or_obj": "a.tif"})
        cut_tensor = TouchingRidge()(tensor)
        assert isinstance(cut_tensor, MetaTensor)
        assert cut_tensor.dtype == torch.int32
        assert cut_tensor.meta["filename_or_obj"] == "a.tif"
        torch.testing.assert_close(cut_tensor.affine, tensor.affine)
        np.testing.assert_array_equal(cut_tensor.numpy()[0], CUT)
        assert type(TouchingRidge()(torch.from_numpy(CELLS)[None])) is torch.Tensor

    def test_leaves_the_input_alone(self) -> None:
        array, tensor = CELLS[None].copy(), MetaTensor(torch.from_numpy(CELLS.copy())[None])
        for radius in (0, 1):
            for cut in (TouchingRidge(radius)(array), TouchingRidge(radius)(tensor)):
                cut[:] = 9
        np.testing.assert_array_equal(array[0], CELLS)
        np.testing.assert_array_equal(tensor[0].numpy(), CELLS)

    def test_dictionary(self) -> None:
        data = {"label": CELLS[None], "image": CELLS[None]}
        out = TouchingRidged(["label", "other"], radius=1, allow_missing_keys=True)(data)
        np.testing.assert_array_equal(out["label"][0], CUT)
        assert out["image"] is data["image"]
        np.testing.assert_array_equal(data["label"][0], CELLS)
        with pytest.raises(KeyError, match="other"):
            TouchingRidged(["other"])(data)

    def test_rejects(self) -> None:
        with pytest.raises(ValueError, match=r"radius must be at least 0, got -1\."):
            TouchingRidge(radius=-1)
        with pytest.raises(ValueError, match=r"label must have one channel, \(1, \*S\), got shape \(6, 8\)\."):
            TouchingRidge()(CELLS)
