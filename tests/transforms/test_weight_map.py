from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import CenterSpatialCrop
from scipy import ndimage
from unet_monai.transforms import BorderWeightMap, BorderWeightMapd, CellClasses, TouchingRidge
from unet_monai.transforms.weight_map import (
    NEGLIGIBLE,
    border_reach,
    border_weight_map,
    label_context,
    two_nearest_distances,
)

from tests.drawings import draw, random_discs
from tests.reference.weight_map import two_nearest_reference, weight_map_reference

PAIR = draw("""
    11....22
    11....22
    11....2?
""")


def random_shapes(seed: int, shape: tuple[int, ...] = (32, 38)) -> np.ndarray:
    """Draw bars, rings with a cell inside, blocks that touch, and specks, over one another, some cut by the edge."""
    random = np.random.default_rng(seed)
    label = np.zeros(shape, np.int32)
    for i in range(1, 12):
        start = random.integers(-3, shape)
        thin = np.where(random.permutation(len(shape)) == 0, random.integers(1, 20), random.integers(1, 5))
        stop = np.maximum(start + (thin if i % 2 else random.integers(1, 9, len(shape))), 1)
        label[tuple(map(slice, start.clip(0), stop))] = i
        if i % 3 == 0:  # hollow, with a speck inside
            label[tuple(map(slice, (start + 1).clip(0), (stop - 1).clip(0)))] = 0
            label[tuple(map(slice, (start + 3).clip(0), (start + 4).clip(0)))] = 20 + i
    label[random.random(shape) < 0.03] = -1
    if seed % 4 == 2:  # one instance all over the image
        label[random.random(shape) < 0.01] = 31
    return label


def border_term(distance: float, w0: float = 10, sigma: float = 5) -> float:
    return w0 * np.exp(-(distance**2) / (2 * sigma**2))


class TestReach:
    @pytest.mark.parametrize(("w0", "sigma", "reach"), [(10, 5, 26.3), (50, 6, 33.3)])
    def test_of_the_paper_and_of_the_plugin(self, w0: float, sigma: float, reach: float) -> None:
        assert border_reach(w0, sigma) == pytest.approx(reach, abs=0.05)

    @pytest.mark.parametrize(("w0", "sigma"), [(10, 5), (1, 0.5), (1e4, 20)])
    def test_the_border_term_is_negligible_from_there_on(self, w0: float, sigma: float) -> None:
        assert border_term(border_reach(w0, sigma), w0, sigma) == pytest.approx(1e-5)

    @pytest.mark.parametrize("w0", [0, 1e-6, 1e-5])
    def test_a_negligible_height_reaches_nowhere(self, w0: float) -> None:
        assert border_reach(w0, 5) == 0
        np.testing.assert_allclose(border_weight_map(PAIR, w0=w0), PAIR >= 0, atol=1e-5)


class TestTwoNearestDistances:
    def test_by_hand(self) -> None:
        d1, d2 = two_nearest_distances(draw("1..2\n1..."), reach=99)
        np.testing.assert_allclose(d1, [[0, 1, 1, 0], [0, 1, np.sqrt(2), 1]])
        np.testing.assert_allclose(d2, [[3, 2, 2, 3], [np.sqrt(10), np.sqrt(5), 2, 3]])
        assert d1.dtype == d2.dtype == np.float32

    def test_the_two_add_up_to_no_less_than_the_reach_beyond_it(self) -> None:
        for label in (draw("1.....2"), draw("1.."), draw("1"), draw("..?")):
            d1, d2 = two_nearest_distances(label, reach=6)
            assert (d1 + d2 >= 6).all()

    @pytest.mark.parametrize("reach", [1.5, 2, np.sqrt(8), 5, 9.3, 26.3])
    @pytest.mark.parametrize("seed", range(8))
    def test_random_labels_equal_brute_force_within_the_reach(self, seed: int, reach: float) -> None:
        label = random_shapes(seed, (14, 13, 12) if seed % 4 == 3 else (32, 38))
        expected = two_nearest_reference(label)
        within = sum(expected) < reach
        assert within.any(), "test invalid"
        d1, d2 = two_nearest_distances(label, reach)
        np.testing.assert_allclose(d1[within], expected[0][within], rtol=1e-6)
        np.testing.assert_allclose(d2[within], expected[1][within], rtol=1e-6)
        assert (d1 <= d2).all()
        assert (d1 + d2)[~within].min(initial=np.inf) >= reach * (1 - 1e-6)

    def test_near_the_corner_of_a_diagonal_cell(self) -> None:
        # The second cell lies in the bounding box of the first, but out of reach of its pixels.
        label = np.eye(20, dtype=np.int32)
        label[2, 17] = 2
        assert sum(two_nearest_reference(label)).min() > 7, "test invalid"
        assert (sum(two_nearest_distances(label, reach=7)) >= 7).all()

    @pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int64])
    def test_any_integers(self, dtype: type) -> None:
        label = np.maximum(random_shapes(0), 0)
        for any_type, int32 in zip(
            two_nearest_distances(label.astype(dtype), 9), two_nearest_distances(label, 9), strict=True
        ):
            np.testing.assert_array_equal(any_type, int32)

    @pytest.mark.parametrize("ids", [[7, 300, 40_000], [70_000, 3, 65_536], [2**31 - 1, 2**30, 1]])
    def test_ids_may_have_gaps_and_cost_no_memory(self, ids: list[int]) -> None:
        label = draw("1..2..\n1..3.?")
        sparse = np.array([0, *ids, -1])[label].astype(np.int32)
        expected = two_nearest_distances(label, 9)
        tracemalloc.start()
        actual = two_nearest_distances(sparse, 9)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        np.testing.assert_array_equal(actual, expected)
        assert peak < 100_000


class TestCost:
    """Counts the pixels that are transformed, as times differ from run to run."""

    @pytest.fixture
    def transformed(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Sizes of the boxes that were transformed."""
        sizes: list[int] = []
        transform = ndimage.distance_transform_edt

        def counting(outside: np.ndarray) -> np.ndarray:
            sizes.append(outside.size)
            return transform(outside)

        monkeypatch.setattr(ndimage, "distance_transform_edt", counting)
        return sizes

    def test_cells_without_a_near_one_cost_nothing(self, transformed: list[int]) -> None:
        label = np.zeros((300, 300), np.int32)
        label[20::60, 20::60] = np.arange(1, 26).reshape(5, 5)
        assert (border_weight_map(label) == 1).all()
        assert transformed == []

    def test_a_pair_costs_its_surroundings(self, transformed: list[int]) -> None:
        label = np.zeros((300, 400), np.int32)
        label[100:120, 100:120], label[100:120, 130:150] = 1, 2
        assert border_weight_map(label).max() > 1
        # 11 px above and below, as a pixel there counts twice and has 11 px to bridge the other way: 2 * 11.9 beside 11
        # make 26.3. From 26 px before the inner side of the one to 26 px behind that of the other.
        assert transformed == [(20 + 2 * 11) * (2 * 26 - 10)] * 2

    def test_a_cell_out_of_reach_along_the_diagonal_costs_nothing(self, transformed: list[int]) -> None:
        label = np.zeros((80, 80), np.int32)
        label[10:20, 10:20], label[10:20, 25:35] = 1, 2
        border_weight_map(label)
        cost = sum(transformed)
        label[40:50, 50:60] = 3
        assert np.hypot(40 - 19, 50 - 34) > border_reach(10, 5) > 40 - 19, "test invalid"
        transformed.clear()
        border_weight_map(label)
        assert sum(transformed) == cost

    def test_grows_with_the_area(self, transformed: list[int]) -> None:
        small = random_discs(0, (128, 128), count=12, radius=(4, 9))
        border_weight_map(small)
        cost = sum(transformed)
        transformed.clear()
        tiles = [small + small.max() * i * (small > 0) for i in range(9)]
        border_weight_map(np.block([tiles[:3], tiles[3:6], tiles[6:]]))
        assert 9 * cost <= sum(transformed) <= 9 * cost * 1.5


class TestBorderWeightMap:
    def test_by_hand(self) -> None:
        # The background is 4 px wide: d1 + d2 is 5 in each column of it, but for the last row, where one cell is cut.
        weight = border_weight_map(PAIR, class_weights=(0.5, 2))
        between = 0.5 + border_term(5)
        np.testing.assert_allclose(weight[:2], [[2, 2, *[between] * 4, 2, 2]] * 2, rtol=1e-6)
        assert weight[2, 7] == 0, "an ignored pixel"

    @pytest.mark.parametrize(
        "label",
        [
            pytest.param(draw("..11.22..\n..11322..\n...1332..\n........."), id="touching"),
            pytest.param(draw("1111111\n1.....1\n1.222.1\n1.2.2.1\n1.222.1\n1.....1\n1111111"), id="nested"),
            pytest.param(
                draw("11111111111111\n..............\n22222222222222\n..............\n......3......."), id="elongated"
            ),
            pytest.param(draw("1...2\n.....\n3...4"), id="in the corners"),
            pytest.param(draw("11..\n....\n..11\n....\n2..."), id="one instance in two pieces"),
            pytest.param(draw("..\n.1\n.."), id="one cell"),
            pytest.param(draw("...\n..?"), id="no cell"),
            pytest.param(draw("???\n???"), id="all ignored"),
            pytest.param(draw("11\n22"), id="no background"),
            pytest.param(draw("1.??2\n?...3"), id="ignored"),
            pytest.param(draw("1.2"), id="one row"),
        ],
    )
    def test_drawings_equal_brute_force(self, label: np.ndarray) -> None:
        for options in ({}, {"w0": 50, "sigma": 6, "class_weights": (0.1, 1)}, {"w0": 3, "sigma": 0.7}, {"w0": 0}):
            expected = weight_map_reference(label, **options)
            np.testing.assert_allclose(border_weight_map(label, **options), expected, rtol=0, atol=1e-5)

    @pytest.mark.parametrize(
        ("seed", "shape", "count"),
        [(0, (60, 70), 12), (1, (40, 40), 9), (2, (30, 50), 20), (3, (14, 16, 12), 5), (4, (10, 30, 6), 8)],
    )
    def test_random_discs_equal_brute_force(self, seed: int, shape: tuple[int, ...], count: int) -> None:
        label = random_discs(seed, shape, count=count, radius=(2, 5))
        label[np.random.default_rng(seed).random(shape) < 0.05] = -1
        label[-2:] = -1
        for options in ({}, {"w0": 20, "sigma": 2, "class_weights": (0.3, 1.7)}):
            weight, expected = border_weight_map(label, **options), weight_map_reference(label, **options)
            assert (expected[label == 0] > expected[label == 0].min() + 1).any(), "test invalid"
            np.testing.assert_allclose(weight, expected, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("seed", range(12))
    def test_random_shapes_equal_brute_force(self, seed: int) -> None:
        label = random_shapes(seed, (14, 13, 12) if seed % 4 == 3 else (40, 44))
        for options in ({}, {"w0": 50, "sigma": 6, "class_weights": (0.1, 1)}, {"w0": 5, "sigma": 1.5}):
            expected = weight_map_reference(label, **options)
            np.testing.assert_allclose(border_weight_map(label, **options), expected, rtol=0, atol=1e-5)

    def test_a_large_label_equals_the_sum_of_its_parts(self) -> None:
        # Large enough to be weighed in several pieces; the parts are too far apart to matter to each other.
        part = np.pad(random_discs(1, (60, 70)), 30)
        weight = border_weight_map(part)
        parts = [part + part.max() * i * (part > 0) for i in range(9)]
        np.testing.assert_array_equal(
            border_weight_map(np.block([parts[:3], parts[3:6], parts[6:]])), np.tile(weight, (3, 3))
        )

    def test_does_not_depend_on_which_instance_has_which_number(self) -> None:
        label = random_discs(5)
        shuffled = np.concatenate([[0], 1 + np.random.default_rng(0).permutation(label.max())])[label]
        np.testing.assert_array_equal(border_weight_map(shuffled), border_weight_map(label))

    def test_a_line_of_background_between_two_cells_weighs_most(self) -> None:
        weight = border_weight_map(random_discs(6))
        assert weight.max() <= 11
        assert border_weight_map(draw("1.2"))[0, 1] == pytest.approx(1 + border_term(2), rel=1e-6)


class TestTransform:
    def test_keeps_kind_and_metadata(self) -> None:
        expected = border_weight_map(PAIR)
        for dtype in (np.int16, np.int32, np.int64):
            array = BorderWeightMap()(PAIR.astype(dtype)[None])
            assert type(array) is np.ndarray
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array[0], expected)
        tensor = BorderWeightMap()(torch.from_numpy(PAIR)[None])
        assert type(tensor) is torch.Tensor
        assert tensor.dtype == torch.float32
        label = MetaTensor(torch.from_numpy(PAIR)[None], affine=2 * torch.eye(3), meta={"filename_or_obj": "a.tif"})
        meta_tensor = BorderWeightMap()(label)
        assert isinstance(meta_tensor, MetaTensor)
        assert meta_tensor.dtype == torch.float32
        assert meta_tensor.meta["filename_or_obj"] == "a.tif"
        torch.testing.assert_close(meta_tensor.affine, label.affine)
        np.testing.assert_array_equal(meta_tensor.numpy()[0], expected)

    def test_settings_reach_the_map(self) -> None:
        weight = BorderWeightMap(w0=3, sigma=2, class_weights=(0.2, 0.9))(PAIR[None])
        np.testing.assert_array_equal(weight[0], border_weight_map(PAIR, w0=3, sigma=2, class_weights=(0.2, 0.9)))

    def test_leaves_the_label_alone(self) -> None:
        array, tensor = PAIR[None].copy(), torch.from_numpy(PAIR.copy())[None]
        for label in (array, tensor):
            BorderWeightMap()(label)[:] = 9
        np.testing.assert_array_equal(array[0], PAIR)
        np.testing.assert_array_equal(tensor[0].numpy(), PAIR)

    def test_dictionary(self) -> None:
        data = {"label": PAIR[None], "image": PAIR[None]}
        out = BorderWeightMapd("label", w0=3, sigma=2, class_weights=[0.5, 2])(data)
        np.testing.assert_array_equal(out["weight"], BorderWeightMap(3, 2, [0.5, 2])(PAIR[None]))
        assert out["label"] is data["label"]
        assert set(data) == {"label", "image"}
        assert set(BorderWeightMapd("label", weight_key="w")(data)) == {"label", "image", "w"}
        assert set(BorderWeightMapd("mask", allow_missing_keys=True)(data)) == {"label", "image"}
        with pytest.raises(KeyError, match="mask"):
            BorderWeightMapd("mask")(data)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"w0": -1}, r"w0 must not be negative, got -1\."),
            ({"sigma": 0}, r"sigma must be positive, got 0\."),
            (
                {"class_weights": (1, 2, 3)},
                r"class_weights must be two, background and cell, not negative, got \(1, 2, 3\)\.",
            ),
            ({"class_weights": 5}, r"class_weights must be two, background and cell, not negative, got 5\."),
            (
                {"class_weights": (1, -2)},
                r"class_weights must be two, background and cell, not negative, got \(1, -2\)\.",
            ),
        ],
    )
    def test_rejects_settings(self, options: dict, message: str) -> None:
        for transform in (BorderWeightMap, BorderWeightMapd):
            with pytest.raises(ValueError, match=message):
                transform(**options)

    def test_rejects_more_than_one_label(self) -> None:
        with pytest.raises(ValueError, match=r"label must have one channel of instance ids, got shape \(3, 8\)\."):
            BorderWeightMap()(PAIR)
        with pytest.raises(ValueError, match=r"keys must name one label map, got \('a', 'b'\)\."):
            BorderWeightMapd(["a", "b"])


@pytest.mark.parametrize(("w0", "sigma", "ridge_radius"), [(10, 5, 2), (50, 6, 1), (10, 2, 3), (0, 5, 2)])
def test_a_label_of_the_context_decides_on_the_whole_target(w0: float, sigma: float, ridge_radius: int) -> None:
    output_size = (24, 31)
    context = label_context(output_size, w0=w0, sigma=sigma, ridge_radius=ridge_radius)
    label = random_discs(0, (160, 171), count=150, radius=(4, 9))[None]
    targets = []
    for part in (label, CenterSpatialCrop(context)(label)):
        ridged = TouchingRidge(ridge_radius)(part)
        target = np.concatenate([CellClasses(ridge_radius)(part), BorderWeightMap(w0, sigma)(ridged)])
        targets.append(np.asarray(CenterSpatialCrop(output_size)(target)))
    assert context < label.shape[1:], "test invalid"
    np.testing.assert_array_equal(targets[0][0], targets[1][0])
    np.testing.assert_allclose(targets[0][1], targets[1][1], atol=NEGLIGIBLE)
