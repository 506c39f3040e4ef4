from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from unet_monai.metrics import APMetric, DETMetric, PQMetric, SEGMetric
from unet_monai.metrics.instance_matching import det_counts, match_counts, overlap_table, seg_scores
from unet_monai.transforms import IgnoreMargin, IgnoreMargind
from unet_monai.transforms.ignore_margin import ignore_margin

from tests.drawings import draw, random_discs

CELLS = draw("""
    11......
    ....22..
    ....22..
    .......?
    333.....
""")
MARGIN_1 = draw("""
    11??????
    ?...22.?
    ?...22.?
    ?......?
    333?????
""")
MARGIN_2 = draw("""
    11??????
    ????22??
    ??..22??
    ????????
    333?????
""")


@pytest.mark.parametrize(("margin", "expected"), [(0, CELLS), (1, MARGIN_1), (2, MARGIN_2)])
def test_drawn_margins(margin: int, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(ignore_margin(CELLS, margin), expected)


@pytest.mark.parametrize("margin", [0, 1, 7, 30, 31, 100])
def test_equal_to_the_distance_of_every_pixel(margin: int) -> None:
    label = random_discs(0)
    expected = label.copy()
    for x, y in np.ndindex(label.shape):
        distance_to_edge = min(x, y, label.shape[0] - 1 - x, label.shape[1] - 1 - y)
        if distance_to_edge < margin and label[x, y] == 0:
            expected[x, y] = -1
    np.testing.assert_array_equal(ignore_margin(label, margin), expected)


def test_slices_of_a_volume_have_the_margin_of_a_frame() -> None:
    volume = random_discs(0, (20, 22, 5), radius=(3, 6))
    for z in range(5):
        np.testing.assert_array_equal(ignore_margin(volume, 4)[..., z], ignore_margin(volume[..., z], 4))


class TestMeasures:
    """What an ignored margin of 3 does to the counts: a cell is true in the middle, others are predicted."""

    TRUTH = ignore_margin(
        draw("""
            ..............
            ..............
            ..............
            ......11......
            ......11......
            ..............
            ..............
            ..............
        """),
        margin=3,
    )

    @pytest.mark.parametrize(
        ("columns", "false_positives"),
        [
            (slice(0, 3), 0),  # wholly in the margin
            (slice(0, 4), 0),  # three of four columns in the margin: excused, though the challenge counts it
            (slice(1, 5), 1),  # half in the margin
            (slice(2, 5), 1),
            (slice(3, 5), 1),  # wholly inside
        ],
    )
    def test_a_predicted_cell_in_and_across_the_margin(self, columns: slice, false_positives: int) -> None:
        pred = np.maximum(self.TRUTH, 0)
        pred[3:5, columns] = 5
        table = overlap_table(pred, self.TRUTH)
        assert det_counts(table) == (0, 0, false_positives, 1)
        assert match_counts(table, 0.5) == (1, false_positives, 0)

    def test_without_the_margin_it_counts(self) -> None:
        truth = np.maximum(self.TRUTH, 0)
        pred = truth.copy()
        pred[3:5, 0:3] = 5
        assert det_counts(overlap_table(pred, truth)).false_positives == 1

    @pytest.mark.parametrize("metric_class", [DETMetric, APMetric, PQMetric])
    def test_perfect_but_for_a_cell_that_nobody_annotated(self, metric_class: type) -> None:
        label = random_discs(1)
        in_margin = np.setdiff1d(label, label[9:-9, 9:-9])
        annotated = np.where(np.isin(label, in_margin), 0, label)
        assert len(in_margin) > 0, "test invalid"
        scores = []
        for margin in (0, 9):
            metric = metric_class()
            metric([torch.from_numpy(label)[None]], [torch.from_numpy(ignore_margin(annotated, margin))[None]])
            scores.append(metric.aggregate())
        assert scores[0] < 1
        assert scores[1] == 1

    @pytest.mark.parametrize("seed", range(5))
    def test_seg_keeps_its_matches_and_never_falls(self, seed: int) -> None:
        label = random_discs(seed)
        pred = np.roll(label, (2, 1), axis=(0, 1))
        before, after = (seg_scores(overlap_table(pred, ignore_margin(label, margin))) for margin in (0, 9))
        np.testing.assert_array_equal(after > 0, before > 0)
        assert (after >= before).all()
        assert (after > before).any(), "test invalid"

    def test_seg_stays_where_predictions_keep_off_the_ignored_background(self) -> None:
        label = random_discs(0)
        pred = torch.from_numpy(np.where(np.roll(label, 2, axis=0) == label, label, 0))[None]
        scores = []
        for margin in (0, 9):
            metric = SEGMetric()
            metric([pred], [torch.from_numpy(ignore_margin(label, margin))[None]])
            scores.append(metric.aggregate())
        assert 0 < scores[0] < 1, "test invalid"
        assert scores[0] == scores[1]


class TestIgnoreMargin:
    def test_keeps_kind_type_and_metadata(self) -> None:
        for dtype in (np.int16, np.int32, np.int64):
            array = CELLS.astype(dtype)[None]
            out = IgnoreMargin(1)(array)
            assert type(out) is np.ndarray
            assert out.dtype == dtype
            np.testing.assert_array_equal(out[0], MARGIN_1)
        tensor = MetaTensor(torch.from_numpy(CELLS)[None], affine=2 * torch.eye(3), meta={"filename_or_obj": "a.tif"})
        out_tensor = IgnoreMargin(1)(tensor)
        assert isinstance(out_tensor, MetaTensor)
        assert out_tensor.dtype == torch.int32
        assert out_tensor.meta["filename_or_obj"] == "a.tif"
        torch.testing.assert_close(out_tensor.affine, tensor.affine)
        np.testing.assert_array_equal(out_tensor.numpy()[0], MARGIN_1)
        assert type(IgnoreMargin(1)(torch.from_numpy(CELLS)[None])) is torch.Tensor

    @pytest.mark.parametrize("margin", [0, 1])
    def test_leaves_the_input_alone(self, margin: int) -> None:
        array, tensor = CELLS[None].copy(), MetaTensor(torch.from_numpy(CELLS.copy())[None])
        out, out_tensor = IgnoreMargin(margin)(array), IgnoreMargin(margin)(tensor)
        out[:], out_tensor[:] = 9, 9
        np.testing.assert_array_equal(array[0], CELLS)
        np.testing.assert_array_equal(tensor[0].numpy(), CELLS)

    def test_dictionary(self) -> None:
        data = {"label": CELLS[None], "image": CELLS[None]}
        out = IgnoreMargind(["label", "other"], margin=1, allow_missing_keys=True)(data)
        np.testing.assert_array_equal(out["label"][0], MARGIN_1)
        assert out["image"] is data["image"]
        np.testing.assert_array_equal(data["label"][0], CELLS)
        with pytest.raises(KeyError, match="other"):
            IgnoreMargind(["other"], margin=1)(data)

    def test_rejects(self) -> None:
        with pytest.raises(ValueError, match=r"margin must be at least 0, got -1\."):
            IgnoreMargin(margin=-1)
        with pytest.raises(ValueError, match=r"margin must be at least 0, got -1\."):
            ignore_margin(CELLS, margin=-1)
        with pytest.raises(ValueError, match=r"label must have one channel, \(1, X, Y\[, Z\]\), got shape \(5, 8\)\."):
            IgnoreMargin(1)(CELLS)
        for dtype in (np.uint8, np.float32, bool):
            with pytest.raises(TypeError, match=rf"label must be a signed integer label map, got {np.dtype(dtype)}\."):
                ignore_margin(CELLS.astype(dtype), 1)
