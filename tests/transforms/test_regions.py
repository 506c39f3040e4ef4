from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage, special
from unet_monai.transforms import LogitsToRegions, LogitsToRegionsd
from unet_monai.transforms.regions import join_at_weak_borders, logits_to_regions

from tests.reference import regions as reference


def scores_of(cell: np.ndarray) -> np.ndarray:
    """Make the scores of a two-class network from the probability of cell."""
    return np.stack([np.zeros_like(cell), special.logit(cell)])


def stripes(width: int = 6, count: int = 4) -> np.ndarray:
    """Draw vertical stripes side by side; no pixel touches more than two of them."""
    return np.repeat(1 + np.arange(count), width)[None].repeat(8, axis=0)


def drawn_cells() -> np.ndarray:
    """Draw the probability of cell: two cells and a membrane between them, columns 6 to 8, that has a gap of 2 px."""
    cell = np.full((12, 15), 0.99)
    cell[:, 6:9] = 0.05
    cell[5:7, 6:9] = 0.95
    return cell


class TestJoinAtWeakBorders:
    @pytest.mark.parametrize("seed", range(10))
    def test_equals_the_slow_way(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        # A border at which three regions meet counts in the library for two of them only, so none do here.
        regions, border = stripes(), random.random((8, 24))
        for threshold in (0.3, 0.45, 0.5, 0.55, 0.9):
            expected = reference.joined(regions, border, threshold)
            np.testing.assert_array_equal(join_at_weak_borders(regions, border, threshold), expected)

    def test_equals_the_slow_way_in_3d(self) -> None:
        regions = stripes()[None].repeat(5, axis=0)
        border = np.random.default_rng(1).random(regions.shape)
        for threshold in (0.48, 0.5, 0.52):
            expected = reference.joined(regions, border, threshold)
            np.testing.assert_array_equal(join_at_weak_borders(regions, border, threshold), expected)

    def test_the_border_of_a_joined_region_is_that_of_both_parts(self) -> None:
        # 1 | 2 above one another, 3 to the right of both: weak to 1 (0.4), strong to 2 (0.8), on average 0.6.
        regions = np.array([[1, 1, 3], [1, 1, 3], [2, 2, 3], [2, 2, 3]])
        border = np.array([[0.0, 0.4, 0.4], [0.1, 0.4, 0.4], [0.1, 0.8, 0.8], [0.0, 0.8, 0.8]])
        assert join_at_weak_borders(regions, border, 0.45).max() == 2, "1 and 2 have 0.425 between them"
        np.testing.assert_array_equal(
            join_at_weak_borders(regions, border, 0.55), np.array([[1, 1, 2], [1, 1, 2], [1, 1, 2], [1, 1, 2]])
        )
        assert join_at_weak_borders(regions, border, 0.65).max() == 1

    @pytest.mark.parametrize("seed", range(5))
    def test_higher_thresholds_join_what_lower_ones_did_and_more(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        regions = 1 + np.arange(48).reshape(6, 8).repeat(4, axis=0).repeat(5, axis=1)
        border = ndimage.gaussian_filter(random.random(regions.shape), 1)
        border = (border - border.min()) / np.ptp(border)
        before = regions
        for threshold in (0, 0.3, 0.4, 0.5, 0.6, 1.1):
            after = join_at_weak_borders(regions, border, threshold)
            assert len(np.unique(np.stack([before, after]).reshape(2, -1), axis=1).T) == before.max()
            assert after.max() <= before.max()
            before = after
        assert before.max() == 1

    def test_numbers_follow_the_lowest_in_each_and_nothing_is_changed(self) -> None:
        regions = np.array([[3, 3, 1, 1, 2, 2]])
        border = np.array([[0, 0.9, 0.9, 0.1, 0.1, 0]])
        copies = regions.copy(), border.copy()
        assert join_at_weak_borders(regions, border, 0.5).tolist() == [[2, 2, 1, 1, 1, 1]]
        assert join_at_weak_borders(regions, border, 0).tolist() == [[3, 3, 1, 1, 2, 2]]
        assert join_at_weak_borders(np.full((1, 3), 4), np.zeros((1, 3)), 0.5).tolist() == [[1, 1, 1]]
        np.testing.assert_array_equal(regions, copies[0])
        np.testing.assert_array_equal(border, copies[1])


class TestLogitsToRegions:
    def test_a_gap_in_a_membrane_joins_nothing(self) -> None:
        scores = scores_of(drawn_cells())
        assert logits_to_regions(scores, threshold=0.9).max() == 1, "the gap joins the cores themselves"
        regions = logits_to_regions(scores, threshold=0.97)
        assert (regions[:, :6] == 1).all()
        assert (regions[:, 9:] == 2).all()

    def test_doubt_inside_a_cell_parts_nothing(self) -> None:
        cell = np.full((12, 15), 0.99)
        cell[:, 6:9] = 0.7
        scores = scores_of(cell)
        assert logits_to_regions(scores).max() == 1
        assert logits_to_regions(scores, join_threshold=0).max() == 2

    def test_regions_meet_on_the_crest(self) -> None:
        profile = np.array([0.99, 0.99, 0.8, 0.6, 0.1, 0.3, 0.85, 0.99])
        regions = logits_to_regions(scores_of(profile[None].repeat(6, axis=0)), join_threshold=0)
        assert set(map(tuple, regions)) <= {(1, 1, 1, 1, 1, 2, 2, 2), (1, 1, 1, 1, 2, 2, 2, 2)}

    def test_every_pixel_has_a_region_and_every_region_a_core(self) -> None:
        cell = special.expit(ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 60, (60, 90)), 3))
        for threshold in (0.6, 0.9):
            regions = logits_to_regions(scores_of(cell), threshold=threshold)
            assert regions.min() == 1
            assert np.unique(regions[cell > threshold]).tolist() == list(range(1, regions.max() + 1))
            cores = [(regions == n + 1) & (cell > threshold) for n in range(regions.max())]
            first = [np.flatnonzero(core.ravel(order="F"))[0] for core in cores]
            assert first == sorted(first)

    @pytest.mark.parametrize(("value", "expected"), [(0.2, 0), (0.99, 1)])
    def test_without_a_core_and_with_one(self, value: float, expected: int) -> None:
        regions = logits_to_regions(scores_of(np.full((5, 7), value)))
        assert regions.dtype == np.int32
        assert (regions == expected).all()

    def test_a_third_class_is_border_too(self) -> None:
        scores = np.stack([np.zeros((1, 3)), [[9, 0, 9]], [[0, 9, 0]]])
        assert logits_to_regions(scores, join_threshold=0).tolist() in ([[1, 1, 2]], [[1, 2, 2]])

    def test_transforms_keep_kind_and_metadata(self) -> None:
        scores = torch.as_tensor(scores_of(drawn_cells()), dtype=torch.bfloat16)
        tensor = MetaTensor(scores, meta={"filename_or_obj": "a.png"})
        result = LogitsToRegionsd("pred", threshold=0.97)({"pred": tensor, "other": 1})
        assert result["other"] == 1
        assert isinstance(result["pred"], MetaTensor)
        assert result["pred"].meta["filename_or_obj"] == "a.png"
        assert (result["pred"].shape, result["pred"].dtype) == ((1, 12, 15), torch.int32)
        expected = LogitsToRegions(threshold=0.97)(scores.float().numpy())
        np.testing.assert_array_equal(result["pred"].numpy(), expected)

    @pytest.mark.parametrize(
        ("knobs", "message"),
        [
            ({"threshold": 1}, r"^threshold must lie between 0 and 1, got 1\.$"),
            ({"threshold": 0}, r"^threshold must lie between 0 and 1, got 0\.$"),
            ({"join_threshold": 1.1}, r"^join_threshold must lie in \[0, 1\], got 1\.1\.$"),
            ({"join_threshold": -1}, r"^join_threshold must lie in \[0, 1\], got -1\.$"),
        ],
    )
    def test_knobs_out_of_range(self, knobs: dict[str, float], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            LogitsToRegions(**knobs)
        with pytest.raises(ValueError, match=message):
            logits_to_regions(np.zeros((2, 4, 4)), **knobs)

    def test_one_channel(self) -> None:
        with pytest.raises(ValueError, match=r"^logits must have two or more channels, .* shape \(1, 4, 4\)\.$"):
            LogitsToRegions()(np.zeros((1, 4, 4)))
