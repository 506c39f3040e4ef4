from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.config import TensorOrList
from monai.handlers import IgniteMetricHandler, MetricsSaver, from_engine
from unet_monai.metrics.cell_tracking import DETMetric, SEGMetric

from tests.drawings import draw, random_discs
from tests.reference.metrics import det_reference, det_score, seg_reference

METRICS = [SEGMetric, DETMetric]


def as_image(label: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(label)[None]


def random_images(count: int, *, dims: int = 2) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return predictions and truths with unequal numbers of cells; the last truth holds none."""
    shape = (24, 30, 10)[:dims]
    truths = [random_discs(seed, shape, count=3 * seed + 2) for seed in range(count - 1)]
    preds = [np.where(truth == 2, 1, np.roll(truth, 2, axis=0)) for truth in truths]
    truths.append(np.zeros(shape, np.int32))
    preds.append(preds[0])
    return [as_image(pred) for pred in preds], [as_image(truth) for truth in truths]


@pytest.mark.parametrize("dims", [2, 3])
def test_pooled_over_all_objects(dims: int) -> None:
    preds, truths = random_images(4, dims=dims)
    seg, det = SEGMetric(), DETMetric()
    for pred, truth in zip(preds, truths, strict=True):
        seg([pred], [truth])
        det([pred], [truth])
    pairs = [(pred[0].numpy(), truth[0].numpy()) for pred, truth in zip(preds, truths, strict=True)]
    scores = [seg_reference(*pair) for pair in pairs]
    pooled = np.mean(np.concatenate(scores))
    assert abs(pooled - np.mean([np.mean(s) for s in scores if s])) > 0.01, "test invalid: equals the mean over images"
    assert seg.aggregate().item() == pytest.approx(pooled, abs=1e-6)
    counts = np.sum([det_reference(*pair) for pair in pairs], axis=0)
    assert det.aggregate().item() == pytest.approx(det_score(*counts), abs=1e-6)


def test_rows_can_be_read_for_each_image() -> None:
    pred = as_image(draw("77777..5"))
    truth = as_image(draw("1122..33"))
    np.testing.assert_allclose(SEGMetric()([pred], [truth]), [[(2 / 5 + 2 / 5 + 0) / 3, 3]])
    assert DETMetric()([pred], [truth]).tolist() == [[5 + 10 + 1, 3]]


@pytest.mark.parametrize("metric_class", METRICS)
def test_batch_equals_list(metric_class: type) -> None:
    preds, truths = random_images(3)
    rows = metric_class()(torch.stack(preds), torch.stack(truths))
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows, metric_class()(preds, truths), equal_nan=True)


@pytest.mark.parametrize("metric_class", METRICS)
def test_perfect_is_one_and_empty_is_zero(metric_class: type) -> None:
    _, truths = random_images(3)
    perfect, empty = metric_class(), metric_class()
    perfect(truths, truths)
    empty([torch.zeros_like(truth) for truth in truths], truths)
    assert perfect.aggregate() == 1
    assert empty.aggregate() == 0


def test_det_is_never_negative() -> None:
    metric = DETMetric()
    metric([torch.arange(1, 31).reshape(1, 5, 6)], [as_image(np.pad([[1, 1]], ((0, 4), (0, 4))))])
    assert metric.aggregate() == 0


@pytest.mark.parametrize("metric_class", METRICS)
def test_nan_without_reference_objects(metric_class: type) -> None:
    metric = metric_class()
    metric([as_image(draw("1100"))], [as_image(draw("...."))])
    assert metric.aggregate().isnan()


@pytest.mark.parametrize("metric_class", METRICS)
def test_ignored_pixels(metric_class: type) -> None:
    metric = metric_class()
    metric([as_image(draw("11..22"))], [as_image(draw("11..??"))])
    assert metric.aggregate() == 1


@pytest.mark.parametrize("metric_class", METRICS)
def test_in_an_ignite_engine(metric_class: type, tmp_path: Path) -> None:
    preds, truths = random_images(4)
    data = [[{"pred": preds[i], "label": truths[i]} for i in pair] for pair in ((0, 1), (2, 3))]
    engine = Engine(lambda _, batch: batch)
    handler = IgniteMetricHandler(metric_class(), output_transform=from_engine(["pred", "label"]))
    handler.attach(engine, "score")
    MetricsSaver(str(tmp_path), metric_details="*", batch_transform=lambda batch: [{} for _ in batch]).attach(engine)
    expected = metric_class()
    expected(preds, truths)
    for _ in range(2):
        engine.run(data)
        assert engine.state.metrics["score"] == pytest.approx(expected.aggregate().item())
        torch.testing.assert_close(engine.state.metric_details["score"], expected.get_buffer(), equal_nan=True)
    assert len((tmp_path / "score_raw.csv").read_text().splitlines()) == 1 + 4


@pytest.mark.parametrize("metric_class", METRICS)
def test_survives_pickling(metric_class: type) -> None:
    metric = metric_class()
    metric(*random_images(2))
    assert pickle.loads(pickle.dumps(metric)).aggregate() == metric.aggregate()


@pytest.mark.parametrize(
    ("y_pred", "y", "message"),
    [
        (
            torch.ones(1, 1, 4, 5).int(),
            torch.ones(1, 1, 4, 6).int(),
            r"y_pred must have the shape of y, \(1, 1, 4, 6\)",
        ),
        (torch.ones(1, 2, 4, 5).int(), torch.ones(1, 2, 4, 5).int(), r"y must have the shape \(B, 1, X, Y"),
        (torch.ones(1, 1, 4, 5).int(), None, r"y must have the shape \(B, 1, X, Y\[, Z\]\), got None\."),
        (
            [torch.ones(1, 4, 5).int()] * 2,
            [torch.ones(1, 4, 5).int()],
            r"y_pred must hold as many images as y, 1, got 2",
        ),
    ],
)
@pytest.mark.parametrize("metric_class", METRICS)
def test_rejects_shapes(metric_class: type, y_pred: TensorOrList, y: TensorOrList | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric_class()(y_pred, y)


@pytest.mark.parametrize("metric_class", METRICS)
def test_rejects_probabilities(metric_class: type) -> None:
    with pytest.raises(TypeError, match=r"y_pred must be an integer label map, got float32\."):
        metric_class()(torch.ones(1, 1, 4, 5), torch.ones(1, 1, 4, 5).int())


@pytest.mark.parametrize("metric_class", METRICS)
def test_needs_an_image(metric_class: type) -> None:
    with pytest.raises(RuntimeError, match=r"Metric has no image to aggregate: call it on predictions first\."):
        metric_class().aggregate()
