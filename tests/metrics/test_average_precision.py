from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from monai.metrics import PanopticQualityMetric
from unet_monai.metrics import APMetric, PQMetric
from unet_monai.metrics.average_precision import AP_THRESHOLDS, ap_curve
from unet_monai.metrics.instance_matching import match_counts, overlap_table

from tests.drawings import draw, random_discs
from tests.reference.average_precision import all_ious, counts_reference, pq_reference

METRICS = [APMetric, PQMetric]
THRESHOLDS = ["0.1", "0.2", "0.25", "1/3", "0.5", "0.6", "2/3", "0.75", "0.8", "1"]


def number(threshold: str) -> float:
    numerator, _, denominator = threshold.partition("/")
    return float(numerator) / float(denominator or 1)


def confetti(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two tiny maps of scattered instances: many ties, halves, ambiguous matches and ignored pixels."""
    random = np.random.default_rng(seed)
    pred, truth = random.integers(0, 5, size=(2, 3, 6))
    truth[random.random(truth.shape) < random.choice([0, 0.25])] = -1
    return pred, truth


def discs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return discs shifted by a few pixels, some merged, missed and spurious, and their truth."""
    truth = random_discs(seed, shape=(30, 40), count=8)
    pred = np.roll(truth, np.random.default_rng(seed).integers(-2, 3, size=2), axis=(0, 1))
    pred[pred == 1] = 2
    pred[pred == 3] = 0
    pred[:15][pred[:15] == 4] = 40
    pred[20:23, 5:9] = 50
    return pred, truth


def as_images(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    preds, truths = zip(*pairs, strict=True)
    return [torch.from_numpy(pred)[None] for pred in preds], [torch.from_numpy(truth)[None] for truth in truths]


def drawn(y_pred: str, y: str, iou_threshold: float = 0.5) -> tuple[int, int, int]:
    return match_counts(overlap_table(draw(y_pred), draw(y)), iou_threshold)


class TestMatchCounts:
    def test_drawn_hit_miss_and_spurious(self) -> None:
        pred = draw("""
            .777...9
            .777....
            ........
        """)
        truth = draw("""
            1111....
            1111.222
            .....222
        """)
        table = overlap_table(pred, truth)
        assert match_counts(table, 0.75) == (1, 1, 1)
        assert match_counts(table, 0.76) == (0, 2, 2)

    def test_an_iou_of_exactly_the_threshold_is_a_hit(self) -> None:
        assert drawn("777..", "44444", 0.6) == (1, 0, 0)
        assert drawn("777..", "44444", 0.601) == (0, 1, 1)
        assert 0.6 in AP_THRESHOLDS

    def test_only_one_of_two_exact_halves_is_a_hit(self) -> None:
        assert drawn("8899", "1111") == (1, 1, 0)
        assert drawn("8888", "1122") == (1, 0, 1)

    def test_matches_as_many_as_possible(self) -> None:
        # IoU 1-7 is 1/2, 1-8 and 2-7 are 1/3: the best pair first would leave 8 and 2 without a match.
        assert drawn("88777777", "11111122", 0.3) == (2, 0, 0)
        assert drawn("88777777", "11111122", 0.4) == (1, 1, 1)

    def test_prefers_matches_that_leave_fewer_false_positives(self) -> None:
        # Both halves of 1 qualify, and the match goes to the one that is not excused, whatever their order.
        assert drawn("8899888", "1111???") == (1, 0, 0)
        assert drawn("8899999", "1111???") == (1, 0, 0)
        assert drawn("8899...", "1111???") == (1, 1, 0)

    def test_excused_predictions_are_no_false_positives_but_can_be_hits(self) -> None:
        assert drawn("777..11", "??...11") == (1, 0, 0)
        assert drawn("7777.11", "??...11") == (1, 1, 0)
        assert drawn("77777..", "11???..") == (1, 0, 0)

    @pytest.mark.parametrize("threshold", THRESHOLDS)
    def test_equal_to_trying_all_matchings(self, threshold: str) -> None:
        for seed in range(60):
            pred, truth = confetti(seed)
            expected = counts_reference(pred, truth, threshold)
            assert match_counts(overlap_table(pred, truth), number(threshold)) == expected, seed

    def test_confetti_is_ambiguous(self) -> None:
        candidates = hits = 0
        for seed in range(60):
            pred, truth = confetti(seed)
            candidates += sum(iou >= number("0.1") for iou in all_ious(pred, truth).values())
            hits += counts_reference(pred, truth, "0.1")[0]
        assert candidates > 1.2 * hits > 60, "test invalid"

    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("threshold", ["0.3", "0.5", "0.75"])
    def test_discs_equal_to_trying_all_matchings(self, seed: int, threshold: str) -> None:
        pred, truth = discs(seed)
        assert match_counts(overlap_table(pred, truth), number(threshold)) == counts_reference(pred, truth, threshold)

    def test_empty_maps(self) -> None:
        assert drawn("....", "....") == (0, 0, 0)
        assert drawn("1.2.", "....") == (0, 2, 0)
        assert drawn("....", "1.2.") == (0, 0, 2)

    @pytest.mark.parametrize("threshold", [0, -0.5, 1.01, 50])
    def test_rejects_thresholds(self, threshold: float) -> None:
        with pytest.raises(ValueError, match=rf"iou_threshold must be in \(0, 1\], got {threshold}\."):
            drawn("11", "11", threshold)


class TestAPCurve:
    def test_pooled_over_tables_and_never_rising(self) -> None:
        pairs = [discs(seed) for seed in range(4)]
        curve = ap_curve(overlap_table(pred, truth) for pred, truth in pairs)
        expected = []
        for threshold in AP_THRESHOLDS:
            tp, fp, fn = np.sum([counts_reference(*pair, str(threshold)) for pair in pairs], axis=0)
            expected.append(tp / (tp + fp + fn))
        np.testing.assert_allclose(curve, expected, rtol=1e-12)
        assert curve.shape == (9,)
        assert (np.diff(curve) <= 0).all()
        assert curve[0] > curve[-1], "test invalid"

    def test_thresholds_are_exact(self) -> None:
        assert [round(100 * t) for t in AP_THRESHOLDS] == [50, 55, 60, 65, 70, 75, 80, 85, 90]
        for numerator, threshold in zip(range(10, 19), AP_THRESHOLDS, strict=True):
            cell, part = np.ones(20, int), (np.arange(20) < numerator).astype(int)
            assert ap_curve([overlap_table(part, cell)], [threshold]).tolist() == [1]

    def test_nan_where_there_is_nothing(self) -> None:
        empty, cell = draw("...."), draw("11..")
        assert np.isnan(ap_curve([overlap_table(empty, empty)])).all()
        assert np.isnan(ap_curve([])).all()
        assert (ap_curve([overlap_table(empty, empty), overlap_table(cell, cell)]) == 1).all()


class TestAPMetric:
    @pytest.mark.parametrize("threshold", [0.3, 0.5, 0.75])
    def test_pooled_and_mean_equal_the_reference(self, threshold: float) -> None:
        pairs = [discs(seed) for seed in range(3)] + [(discs(3)[0], np.zeros((30, 40), np.int32))]
        counts = np.array([counts_reference(*pair, str(threshold)) for pair in pairs])
        pooled, mean = APMetric(threshold), APMetric(threshold, reduction="mean")
        for metric in (pooled, mean):
            metric(*as_images(pairs))
        expected = counts[:, 0].sum() / counts.sum()
        expected_mean = np.mean(counts[:, 0] / counts.sum(axis=1))
        assert abs(expected - expected_mean) > 0.001, "test invalid"
        assert pooled.aggregate().item() == pytest.approx(expected, abs=1e-6)
        assert mean.aggregate().item() == pytest.approx(expected_mean, abs=1e-6)
        tables = [overlap_table(*pair) for pair in pairs]
        assert pooled.aggregate().item() == pytest.approx(ap_curve(tables, [threshold])[0], abs=1e-6)

    def test_rows_can_be_read_for_each_image(self) -> None:
        rows = APMetric()(*as_images([(draw("777.5"), draw("4444."))]))
        assert rows.tolist() == [[1 / 2, 2]]
        rows = APMetric()(*as_images([(draw("...."), draw("...."))]))
        assert rows[0, 0].isnan()
        assert rows[0, 1] == 0

    @pytest.mark.parametrize("reduction", ["pooled", "mean"])
    def test_images_with_nothing_change_nothing(self, reduction: str) -> None:
        hit_and_spurious = (draw("777.5"), draw("4444."))
        nothing, ignored = (draw("....."), draw(".....")), (draw("333.."), draw("???.."))
        metric = APMetric(reduction=reduction)
        metric(*as_images([hit_and_spurious, nothing, ignored]))
        assert metric.aggregate() == 0.5

    def test_spurious_cells_of_an_empty_image_count(self) -> None:
        pairs = [(draw("777."), draw("777.")), (draw("1.2."), draw("...."))]
        for reduction, expected in (("pooled", 1 / 3), ("mean", 1 / 2)):
            metric = APMetric(reduction=reduction)
            metric(*as_images(pairs))
            assert metric.aggregate().item() == pytest.approx(expected)

    def test_rejects(self) -> None:
        with pytest.raises(ValueError, match=r"iou_threshold must be in \(0, 1\], got 0\."):
            APMetric(iou_threshold=0)
        with pytest.raises(ValueError, match=r"reduction must be 'pooled' or 'mean', got 'sum'\."):
            APMetric(reduction="sum")


class TestPQMetric:
    def test_pooled_equals_the_reference(self) -> None:
        pairs = [discs(seed) for seed in range(3)] + [confetti(seed) for seed in range(30)]
        metric = PQMetric()
        metric(*as_images(pairs))
        iou_sum, weight = np.sum([pq_reference(*pair) for pair in pairs], axis=0)
        assert metric.aggregate().item() == pytest.approx(iou_sum / weight, abs=1e-6)
        of_image = [total / weight for total, weight in (pq_reference(*pair) for pair in pairs)]
        assert metric.get_buffer()[:, 0].tolist() == pytest.approx(of_image, abs=1e-6)
        assert abs(np.mean(of_image) - iou_sum / weight) > 0.005, "test invalid: equals the mean over images"

    @pytest.mark.parametrize("dims", [2, 3])
    def test_equal_to_monai_without_ignored_pixels(self, dims: int) -> None:
        pairs = [discs(seed) for seed in range(6)]
        pairs += [(pred, np.maximum(truth, 0)) for pred, truth in map(confetti, range(8))]
        if dims == 3:
            pairs = [(np.stack([p, p, p, 0 * p], axis=-1), np.stack([t, t, t, t], axis=-1)) for p, t in pairs]
        ours, theirs = PQMetric(), PanopticQualityMetric(num_classes=1)
        for pred, truth in pairs:
            images = [torch.from_numpy(label.astype(np.int32))[None] for label in (pred, truth)]
            ours([images[0]], [images[1]])
            theirs(*[torch.cat([image, (image > 0).int()])[None] for image in images])
        assert ours.aggregate() > 0.05, "test invalid"
        assert ours.aggregate().item() == pytest.approx(theirs.aggregate().item(), abs=1e-5)

    def test_exactly_half_is_no_hit(self) -> None:
        half, more = PQMetric(), PQMetric()
        half(*as_images([(draw("77.."), draw("4444"))]))
        more(*as_images([(draw("777."), draw("4444"))]))
        assert half.aggregate() == 0
        assert more.aggregate() == 0.75

    def test_images_with_nothing_change_nothing(self) -> None:
        metric = PQMetric()
        metric(
            *as_images([(draw("777.5"), draw("4444.")), (draw("....."), draw(".....")), (draw("33..."), draw("??..."))])
        )
        assert metric.aggregate().item() == pytest.approx(0.75 / 1.5)


@pytest.mark.parametrize("metric_class", METRICS)
class TestBoth:
    def test_perfect_is_one_and_empty_is_zero(self, metric_class: type) -> None:
        truth = discs(0)[1]
        perfect, empty = metric_class(), metric_class()
        perfect(*as_images([(truth, truth)]))
        empty(*as_images([(0 * truth, truth)]))
        assert perfect.aggregate() == 1
        assert empty.aggregate() == 0

    def test_nan_without_any_cell(self, metric_class: type) -> None:
        metric = metric_class()
        metric(*as_images([(draw("...."), draw("...."))]))
        assert metric.aggregate().isnan()

    def test_batch_equals_list(self, metric_class: type) -> None:
        preds, truths = as_images([discs(0), discs(1)])
        rows = metric_class()(torch.stack(preds), torch.stack(truths))
        assert rows.dtype == torch.float32
        assert rows.shape == (2, 2)
        torch.testing.assert_close(rows, metric_class()(preds, truths))

    def test_ignored_pixels(self, metric_class: type) -> None:
        metric = metric_class()
        metric(*as_images([(draw("11..22"), draw("11..??"))]))
        assert metric.aggregate() == 1

    def test_numbering_does_not_matter(self, metric_class: type) -> None:
        pred, truth = discs(2)
        rows, renumbered = (
            metric_class()(*as_images([(pred, truth)])),
            metric_class()(*as_images([(1001 * pred, truth)])),
        )
        torch.testing.assert_close(rows, renumbered)

    def test_survives_pickling(self, metric_class: type) -> None:
        metric = metric_class()
        metric(*as_images([discs(0)]))
        assert pickle.loads(pickle.dumps(metric)).aggregate() == metric.aggregate()

    def test_needs_an_image(self, metric_class: type) -> None:
        with pytest.raises(RuntimeError, match=r"Metric has no image to aggregate: call it on predictions first\."):
            metric_class().aggregate()
