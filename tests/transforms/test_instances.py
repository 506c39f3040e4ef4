from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from unet_monai.transforms.cell_classes import cell_classes
from unet_monai.transforms.instances import (
    LogitsToInstances,
    LogitsToInstancesd,
    fill_component_holes,
    grow_cores,
    logits_to_instances,
    regrow_ridges,
    remove_small_components,
)
from unet_monai.transforms.touching_ridge import touching_ridge

from tests.drawings import draw, random_discs
from tests.reference.growth import breadth_first_steps

CELLS = draw("""
    ..............
    .1111122222...
    .1111122222...
    .1111122222...
    .1111122222...
    .333333333333.
    .333333333333.
    .333333333333.
    .333333333333.
    ..........444.
    ..........444.
    ..........444.
""")


def logits_of(foreground: np.ndarray) -> np.ndarray:
    """Return scores that are sure of the given foreground."""
    return np.stack([np.where(foreground, -3, 3), np.where(foreground, 3, -3)]).astype(np.float32)


def cut(label: np.ndarray, radius: int = 1) -> np.ndarray:
    return np.where(touching_ridge(label, radius), 0, label)


def instances_of(picture: np.ndarray, *, min_size: int = 1, fill_holes: bool = True, radius: int = 0) -> np.ndarray:
    """Return the instances (H, W) of a picture (H, W) of cores; in between the axes are (X, Y), as in the pipelines."""
    logits = logits_of(picture.T > 0)
    return logits_to_instances(logits, min_size=min_size, fill_holes=fill_holes, ridge_radius=radius).T


class TestInverseOfTheRidge:
    def test_touching_rectangles_come_back(self) -> None:
        assert np.any(cut(CELLS) != CELLS), "test invalid"
        np.testing.assert_array_equal(instances_of(cut(CELLS), radius=1), CELLS)

    @pytest.mark.parametrize("radius", [1, 2])
    def test_in_3d(self, radius: int) -> None:
        label = np.zeros((14, 11, 12), np.int32)
        label[1:13, 1:10, 1:6], label[1:13, 1:10, 6:11] = 1, 2
        assert np.any(cut(label, radius) != label), "test invalid"
        np.testing.assert_array_equal(instances_of(cut(label, radius), radius=radius), label)

    def test_cells_cut_by_the_edge_of_the_image(self) -> None:
        cropped = CELLS[2:8, 2:11]
        np.testing.assert_array_equal(instances_of(cut(cropped), radius=1), cropped)

    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize("radius", [1, 2])
    def test_no_pixel_goes_to_a_wrong_instance(self, seed: int, radius: int) -> None:
        label = random_discs(seed, (100, 120), count=20, radius=(8, 14))
        regrown = regrow_ridges(cut(label, radius), radius)
        both = (regrown > 0) & (label > 0)
        np.testing.assert_array_equal(regrown[both], label[both])

    def test_most_of_a_slanted_ridge_comes_back(self) -> None:
        missing = added = ridges = 0
        for seed in range(4):
            label = random_discs(seed, (100, 120), count=12, radius=(10, 14))
            regrown = regrow_ridges(cut(label))
            ridges += np.sum(touching_ridge(label))
            missing += np.sum((regrown == 0) & (label > 0))
            added += np.sum((regrown > 0) & (label == 0))
        assert ridges > 1000, "test invalid"
        assert missing < 0.15 * ridges
        assert added < 0.15 * ridges

    @pytest.mark.parametrize("radius", [1, 2, 3])
    def test_outlines_towards_the_background_stay(self, radius: int) -> None:
        apart = draw("""
            11......
            11......
            .....111
            .....111
        """)
        np.testing.assert_array_equal(regrow_ridges(apart[:2], radius), apart[:2])
        assert not np.any(regrow_ridges(apart, 1) != apart)

    def test_a_narrow_gap_is_closed_by_the_lower_id(self) -> None:
        np.testing.assert_array_equal(regrow_ridges(draw("11.22.33")), draw("11122233"))

    def test_radius_zero_grows_nothing(self) -> None:
        np.testing.assert_array_equal(regrow_ridges(cut(CELLS), 0), cut(CELLS))


class TestHoles:
    def test_only_holes_of_one_component_are_filled(self) -> None:
        rings = draw("""
            11111..2222..3333
            1.111..2..2..3...
            111.1..2..2..3...
            11111..2222..3333
        """)
        filled = draw("""
            11111..2222..3333
            11111..2222..3...
            11111..2222..3...
            11111..2222..3333
        """)
        np.testing.assert_array_equal(fill_component_holes(rings), filled)
        np.testing.assert_array_equal(instances_of(rings), filled)
        np.testing.assert_array_equal(instances_of(rings, fill_holes=False), rings)

    def test_nested_and_ring_of_cells_stay(self) -> None:
        nested = draw("""
            11111.22.
            1...1...3
            1.4.1...3
            1...1.55.
            11111....
        """)
        np.testing.assert_array_equal(fill_component_holes(nested), nested)

    def test_holes_at_the_edge_or_open_at_a_corner_stay(self) -> None:
        bay = draw("""
            1.1
            111
        """)
        corner = draw("""
            .....
            .111.
            .1.1.
            .11..
            .....
        """)
        np.testing.assert_array_equal(fill_component_holes(bay), bay)
        np.testing.assert_array_equal(fill_component_holes(corner), corner)

    def test_a_hollow_ball_is_filled(self) -> None:
        ball = np.pad(np.ones((4, 4, 4), np.int32), 1)
        hollow = ball.copy()
        hollow[2:4, 2:4, 2:4] = 0
        np.testing.assert_array_equal(fill_component_holes(hollow), ball)

    def test_nothing_to_fill(self) -> None:
        for value in (0, 1):
            whole = np.full((4, 5), value, np.int32)
            np.testing.assert_array_equal(fill_component_holes(whole), whole)


class TestComponents:
    def test_corners_do_not_join_and_ids_follow_the_rows(self) -> None:
        picture = draw("""
            ...1..22
            33..4.2.
            .33..22.
        """)
        np.testing.assert_array_equal(instances_of(picture), picture)
        np.testing.assert_array_equal(remove_small_components(5 - np.where(picture, picture, 5).T, 1).T, picture)

    def test_ids_in_3d_follow_the_slices_then_the_rows(self) -> None:
        cores = {(2, 4, 0): 1, (0, 6, 0): 2, (4, 0, 1): 3, (0, 2, 1): 4, (2, 2, 1): 5, (0, 0, 3): 6}
        label = np.zeros((5, 7, 4), np.int32)
        for place, number in cores.items():
            label[place] = number
        np.testing.assert_array_equal(logits_to_instances(logits_of(label > 0), min_size=1, ridge_radius=0), label)

    def test_small_ones_go_and_the_rest_is_compact(self) -> None:
        assert remove_small_components(np.array([1, 0, 2, 2, 0, 3, 3, 3]), 3).tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
        assert remove_small_components(np.array([1, 0, 3]), 0).tolist() == [1, 0, 2]

    def test_size_counts_the_filled_hole(self) -> None:
        ring = np.pad(np.ones((3, 3), np.int32), 1)
        ring[2, 2] = 0
        assert instances_of(ring, min_size=9).max() == 1
        assert instances_of(ring, min_size=10).max() == 0

    @pytest.mark.parametrize("seed", range(3))
    def test_ids_are_compact(self, seed: int) -> None:
        instances = instances_of(cut(random_discs(seed)), min_size=10, radius=1)
        np.testing.assert_array_equal(np.unique(instances), np.arange(instances.max() + 1))

    def test_threshold_ties_are_background(self) -> None:
        scores = np.zeros((2, 1, 3), np.float32)
        scores[1] = [-0.1, 0, 0.1]
        assert logits_to_instances(scores, threshold=0.5, edge_threshold=0.5, min_size=1).tolist() == [[0, 0, 1]]

    def test_cores_grow_over_the_connected_foreground(self) -> None:
        probability = np.array([[0.2, 0.4, 0.4, 0.8, 0.9, 0.4, 0.2, 0.4]])
        scores = np.stack([np.zeros_like(probability), np.log(probability / (1 - probability))])
        for edge_threshold, expected in ((0.3, [0, 1, 1, 1, 1, 1, 0, 0]), (0.5, [0, 0, 0, 1, 1, 0, 0, 0])):
            found = logits_to_instances(scores, threshold=0.7, edge_threshold=edge_threshold, min_size=1)
            assert found.tolist() == [expected]

    def test_growth_meets_halfway_and_jumps_no_gap(self) -> None:
        cores = np.array([[1, 0, 0, 0, 0, 2, 0, 0]])
        within = np.array([[0, 1, 1, 1, 1, 0, 0, 1]], bool)
        assert grow_cores(cores, within).tolist() == [[1, 1, 1, 2, 2, 2, 0, 0]]
        assert cores.tolist() == [[1, 0, 0, 0, 0, 2, 0, 0]]

    @pytest.mark.parametrize("seed", range(3))
    def test_growth_is_the_breadth_first_search(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        cores = np.where(random.random((30, 40)) < 0.01, random.integers(1, 9, (30, 40)), 0)
        within = random.random((30, 40)) < 0.7
        grown, steps = grow_cores(cores, within), breadth_first_steps(cores, within)
        np.testing.assert_array_equal(grown > 0, steps[0] >= 0)
        nearest = np.stack([steps[i] == steps[0] for i in range(1, 9)])
        lowest = np.where(steps[0] >= 0, nearest.argmax(axis=0) + 1, 0)
        assert np.any((nearest.sum(axis=0) > 1) & (steps[0] > 0)), "test invalid: no ties"
        np.testing.assert_array_equal(grown, lowest)
        few = grow_cores(cores, within, reach=2)
        np.testing.assert_array_equal(few, np.where(steps[0] <= 2, lowest, 0))
        assert np.any(few != grown), "test invalid: nothing lies farther"

    def test_the_probabilities_are_a_softmax(self) -> None:
        scores = np.random.default_rng(0).normal(size=(3, 8, 9)).astype(np.float32)
        probability = torch.softmax(torch.from_numpy(scores), 0).numpy()
        knobs = {"min_size": 0, "fill_holes": False, "edge_threshold": 0.999}
        instances = logits_to_instances(scores, threshold=0.5, **knobs)
        np.testing.assert_array_equal(instances > 0, probability[1] > 0.5)
        assert np.any(instances > 0), "test invalid"

    def test_no_cells(self) -> None:
        instances = instances_of(np.zeros((5, 6)), radius=1)
        assert instances.dtype == np.int32
        assert not instances.any()


class TestThreeClasses:
    def test_touching_cells_come_back_whole(self) -> None:
        classes = cell_classes(CELLS.T, radius=1)
        assert np.any(classes == 2), "test invalid"
        logits = np.moveaxis(6 * np.eye(3)[classes], -1, 0)
        np.testing.assert_array_equal(logits_to_instances(logits, min_size=1), CELLS.T)

    @pytest.mark.parametrize("seed", range(3))
    def test_foreground_and_most_pixels_of_random_cells_come_back(self, seed: int) -> None:
        label = random_discs(seed, (100, 120), count=14, radius=(10, 14))
        classes = cell_classes(label, radius=2)
        instances = logits_to_instances(np.moveaxis(6 * np.eye(3)[classes], -1, 0), min_size=1)
        np.testing.assert_array_equal(instances > 0, label > 0)
        sure = classes == 1
        pairs = {(int(a), int(b)) for a, b in zip(instances[sure], label[sure], strict=True)}
        assert len(pairs) == len({a for a, _ in pairs}), "an instance covers the cores of two cells"

    def test_no_ridge_is_grown_back(self) -> None:
        logits = np.moveaxis(6 * np.eye(3)[draw("11.11")], -1, 0)
        assert logits_to_instances(logits, min_size=1, ridge_radius=2).tolist() == [[1, 1, 0, 2, 2]]
        assert logits_to_instances(logits[:2], min_size=1, ridge_radius=2).tolist() == [[1, 1, 1, 2, 2]]

    def test_a_touching_region_without_core_is_no_cell(self) -> None:
        logits = np.moveaxis(6 * np.eye(3)[np.array([[2, 2, 0, 1, 2]])], -1, 0)
        assert logits_to_instances(logits, min_size=1).tolist() == [[0, 0, 0, 1, 1]]


class TestLogitsToInstances:
    def test_keeps_kind_and_metadata(self) -> None:
        transform = LogitsToInstances(min_size=1, ridge_radius=1)
        logits = logits_of(cut(CELLS.T) > 0)
        array = transform(logits)
        assert type(array) is np.ndarray
        assert array.dtype == np.int32
        np.testing.assert_array_equal(array[0], CELLS.T)
        tensor = MetaTensor(torch.from_numpy(logits), affine=2 * torch.eye(3), meta={"filename_or_obj": "a.tif"})
        out = transform(tensor)
        assert isinstance(out, MetaTensor)
        assert out.dtype == torch.int32
        assert out.shape == (1, *CELLS.T.shape)
        assert out.meta["filename_or_obj"] == "a.tif"
        torch.testing.assert_close(out.affine, tensor.affine)
        np.testing.assert_array_equal(tensor.numpy(), logits)
        assert type(transform(torch.from_numpy(logits))) is torch.Tensor
        np.testing.assert_array_equal(transform(torch.from_numpy(logits).bfloat16()).numpy(), array)

    def test_dictionary_hands_every_knob_on(self) -> None:
        logits = torch.randn(2, 40, 50, generator=torch.Generator().manual_seed(0))
        knobs = {"threshold": 0.45, "edge_threshold": 0.4, "min_size": 3, "fill_holes": False, "ridge_radius": 1}
        out = LogitsToInstancesd("pred", **knobs)({"pred": logits, "label": 1})
        expected = logits_to_instances(logits.numpy(), **knobs)
        others = {"threshold": 0.7, "edge_threshold": 0.3, "min_size": 20, "fill_holes": True, "ridge_radius": 2}
        for name, default in others.items():
            changed = logits_to_instances(logits.numpy(), **{**knobs, name: default})
            assert np.any(changed != expected), f"test invalid: {name} changes nothing"
        np.testing.assert_array_equal(out["pred"][0].numpy(), expected)
        assert out["label"] == 1
        assert LogitsToInstancesd("other", allow_missing_keys=True)({"pred": 1}) == {"pred": 1}

    @pytest.mark.parametrize("shape", [(1, 5, 6), (4, 5, 6), (2,)])
    def test_rejects_channels(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"logits must have two or three channels, \(2 or 3, \*S\), got shape"):
            LogitsToInstances()(np.zeros(shape, np.float32))

    @pytest.mark.parametrize(
        ("knob", "message"),
        [
            ({"threshold": 1.0}, r"threshold must lie between 0 and 1, got 1\.0\."),
            ({"threshold": 0}, r"threshold must lie between 0 and 1, got 0\."),
            ({"min_size": -1}, r"min_size must be at least 0, got -1\."),
            ({"edge_threshold": 0}, r"edge_threshold must lie between 0 and 1, got 0\."),
            ({"edge_threshold": 1.5}, r"edge_threshold must lie between 0 and 1, got 1\.5\."),
            ({"ridge_radius": -1}, r"ridge_radius must be at least 0, got -1\."),
        ],
    )
    def test_rejects_knobs(self, knob: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            LogitsToInstances(**knob)
        with pytest.raises(ValueError, match=message):
            logits_to_instances(np.zeros((2, 4, 5)), **knob)
