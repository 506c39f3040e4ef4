from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from unet_monai.transforms.instances import LogitsToInstances, LogitsToInstancesd, logits_to_instances
from unet_monai.transforms.necks import split_at_necks

from tests.drawings import random_discs


def discs(shape: tuple[int, ...], *centres_and_radii: tuple[tuple[int, ...], float]) -> np.ndarray:
    """Draw overlapping balls as one component."""
    grid = np.indices(shape).reshape(len(shape), -1).T
    inside = [np.linalg.norm(grid - centre, axis=1) <= radius for centre, radius in centres_and_radii]
    return np.any(inside, axis=0).reshape(shape).astype(int)


PAIR = discs((30, 50), ((15, 14), 10), ((15, 32), 10))


class TestNecks:
    def test_two_discs_are_parted_in_the_middle(self) -> None:
        split = split_at_necks(PAIR, depth=2)
        assert split.max() == 2
        assert set(split[:, :22][PAIR[:, :22] > 0]) == {1}
        assert set(split[:, 25:][PAIR[:, 25:] > 0]) == {2}

    def test_depth_is_half_the_lobes_width_less_half_the_necks(self) -> None:
        # Half widths: 11 in the discs, 5 in the neck; smoothing takes off the peaks and fills the saddle.
        assert split_at_necks(PAIR, depth=3).max() == 2
        assert split_at_necks(PAIR, depth=7).max() == 1

    @pytest.mark.parametrize("radius", [1, 2, 3, 6, 15])
    def test_one_disc_stays_one(self, radius: int) -> None:
        disc = discs((40, 40), ((19, 20), radius))
        np.testing.assert_array_equal(split_at_necks(disc, depth=1), disc)

    def test_a_straight_rod_has_no_neck(self) -> None:
        rod = np.zeros((12, 60), int)
        rod[4:9, 3:57] = 1
        np.testing.assert_array_equal(split_at_necks(rod, depth=1), rod)

    def test_a_disc_cut_by_the_edge_of_the_image_stays_one(self) -> None:
        half = discs((40, 12), ((20, 0), 11))
        np.testing.assert_array_equal(split_at_necks(half, depth=1), half)

    def test_in_3d(self) -> None:
        balls = discs((16, 16, 28), ((8, 8, 8), 6), ((8, 8, 19), 6))
        split = split_at_necks(balls, depth=1.5)
        assert split.max() == 2
        assert (split[8, 8, 8], split[8, 8, 19]) == (1, 2)

    def test_components_that_touch_at_a_corner_are_never_joined(self) -> None:
        corners = np.kron(np.diag([1, 2, 3]), np.ones((2, 2), int))
        np.testing.assert_array_equal(split_at_necks(corners, depth=2), corners)

    def test_nothing(self) -> None:
        np.testing.assert_array_equal(split_at_necks(np.zeros((5, 6), int), depth=1), np.zeros((5, 6)))

    @pytest.mark.parametrize("seed", range(5))
    def test_parts_partition_each_component(self, seed: int) -> None:
        components, _ = ndimage.label(random_discs(seed, (80, 90), count=25) > 0)
        before = components.copy()
        split = split_at_necks(components, depth=1)
        np.testing.assert_array_equal(components, before)
        np.testing.assert_array_equal(split > 0, components > 0)
        assert split.max() > components.max(), "test invalid: nothing was parted"
        assert np.unique(split[split > 0]).tolist() == list(range(1, split.max() + 1))
        owners = [np.unique(components[split == i]) for i in range(1, split.max() + 1)]
        assert all(len(owner) == 1 for owner in owners)
        assert owners == sorted(owners)


class TestKnob:
    scores = np.stack([np.where(PAIR > 0, -3, 3), np.where(PAIR > 0, 3, -3)]).astype(np.float32)

    def test_off_by_default(self) -> None:
        assert logits_to_instances(self.scores, ridge_radius=0).max() == 1

    def test_parts_cores_in_every_form(self) -> None:
        expected = split_at_necks(PAIR, depth=2)
        np.testing.assert_array_equal(logits_to_instances(self.scores, ridge_radius=0, neck_depth=2), expected)
        np.testing.assert_array_equal(LogitsToInstances(ridge_radius=0, neck_depth=2)(self.scores)[0], expected)
        data = LogitsToInstancesd("pred", ridge_radius=0, neck_depth=2)({"pred": self.scores})
        np.testing.assert_array_equal(data["pred"][0], expected)

    def test_lobes_that_are_too_small_are_removed(self) -> None:
        lobes = logits_to_instances(self.scores, ridge_radius=0, neck_depth=2, min_size=500)
        assert lobes.max() == 0

    @pytest.mark.parametrize("make", [LogitsToInstances, lambda **knobs: LogitsToInstancesd("pred", **knobs)])
    def test_a_negative_depth_is_refused(self, make: type[LogitsToInstances]) -> None:
        with pytest.raises(ValueError, match=r"neck_depth must be at least 0, got -1\."):
            make(neck_depth=-1)
