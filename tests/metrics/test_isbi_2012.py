from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.config import TensorOrList
from monai.handlers import IgniteMetricHandler, MetricsSaver, from_engine
from scipy import ndimage
from unet_monai.metrics import isbi_2012
from unet_monai.metrics.foreground_rand import thin_borders
from unet_monai.metrics.isbi_2012 import (
    THRESHOLDS,
    PixelErrorMetric,
    RandErrorMetric,
    VInfoMetric,
    VRandMetric,
    WarpingErrorMetric,
)

from tests.drawings import draw, random_discs
from tests.reference.membranes import information_reference, rand_reference, relax_reference

SCORES = [VRandMetric, VInfoMetric]
ERRORS = [RandErrorMetric, PixelErrorMetric, WarpingErrorMetric]
METRICS = SCORES + ERRORS


def as_image(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array)[None]


def probability_of(label: np.ndarray, seed: int) -> np.ndarray:
    """Return a blurred and noisy map of the cells, float32."""
    noise = np.random.default_rng(seed).normal(0, 0.15, label.shape)
    return np.clip(ndimage.gaussian_filter((label > 0).astype(float), 1) + noise, 0, 1).astype(np.float32)


def random_images(count: int, shape: tuple[int, int] = (11, 13)) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return probabilities and truths of discs; touching discs are one cell."""
    truths = [random_discs(seed, shape, count=5, radius=(2, 4)) for seed in range(count)]
    preds = [probability_of(truth, seed) for seed, truth in enumerate(truths)]
    return [as_image(pred) for pred in preds], [as_image(truth) for truth in truths]


def reference(metric_class: type, probability: np.ndarray, truth: np.ndarray, threshold: float) -> float:
    """Score one slice (X, Y) by the definition."""
    cells, proposal = ndimage.label(truth > 0)[0], probability > threshold
    if metric_class is VRandMetric:
        return rand_reference(thin_borders(proposal), cells)[0]
    if metric_class is VInfoMetric:
        return information_reference(thin_borders(proposal), cells)[0]
    if metric_class is RandErrorMetric:
        return 1 - rand_reference(ndimage.label(proposal)[0], cells)[0]
    if metric_class is WarpingErrorMetric:
        return float(np.mean(relax_reference(cells > 0, probability, threshold) != proposal))
    hits = sum(p and t for p, t in zip(proposal.ravel(), truth.ravel() > 0, strict=True))
    precision, recall = hits / proposal.sum(), hits / (truth > 0).sum()
    return 1 - 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("metric_class", METRICS)
def test_best_threshold_of_the_mean_over_slices(metric_class: type) -> None:
    preds, truths = random_images(3)
    thresholds = (0.3, 0.5, 0.7)
    pairs = [(pred[0].numpy(), truth[0].numpy()) for pred, truth in zip(preds, truths, strict=True)]
    scores = np.array([[reference(metric_class, *pair, t) for t in thresholds] for pair in pairs])
    metric = metric_class(thresholds)
    rows = torch.cat([metric([pred], [truth]) for pred, truth in zip(preds, truths, strict=True)])
    np.testing.assert_allclose(rows, np.column_stack([scores, np.ones(3)]), atol=1e-6)
    best = np.max if metric_class in SCORES else np.min
    assert best(scores.mean(axis=0)) != scores.mean(axis=0)[0], "test invalid: the first threshold is the best"
    assert metric.aggregate().item() == pytest.approx(best(scores.mean(axis=0)), abs=1e-6)


def test_the_threshold_is_the_same_for_all_slices() -> None:
    truth = as_image(draw("11.22"))
    metric = VRandMetric((0.2, 0.6))
    # The membrane of one slice is found at the low threshold only, the cells of the other at the high one only.
    metric([torch.tensor([[[0.9, 0.9, 0.1, 0.5, 0.5]]])], [truth])
    metric([torch.tensor([[[0.9, 0.9, 0.5, 0.9, 0.9]]])], [truth])
    rows = metric.get_buffer()[:, :2]
    assert rows.amax(dim=1).mean() > rows.mean(dim=0).amax() + 0.1, "test invalid"
    assert metric.aggregate() == rows.mean(dim=0).amax()


@pytest.mark.parametrize("metric_class", METRICS)
def test_a_probability_at_the_threshold_is_membrane(metric_class: type) -> None:
    metric = metric_class((0.5,))
    metric([torch.tensor([[[0.9, 0.9, 0.5, 0.9, 0.9]]])], [as_image(draw("11.22"))])
    assert metric.aggregate() == (1 if metric_class in SCORES else 0)


@pytest.mark.parametrize("metric_class", METRICS)
def test_default_thresholds(metric_class: type) -> None:
    metric = metric_class()
    assert THRESHOLDS == (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
    assert metric.thresholds == (THRESHOLDS[:-1] if metric_class is WarpingErrorMetric else THRESHOLDS)
    preds, truths = random_images(1)
    assert metric(preds, truths).shape == (1, len(metric.thresholds) + 1)


@pytest.mark.parametrize("metric_class", METRICS)
def test_a_volume_is_a_stack_of_slices(metric_class: type) -> None:
    preds, truths = random_images(5)
    truths[1][:] = 0
    slices, volumes = metric_class(), metric_class()
    slices([p for i, p in enumerate(preds) if i != 1], [t for i, t in enumerate(truths) if i != 1])
    for part in (slice(4), slice(4, 5)):
        volumes([torch.stack(preds[part], dim=-1)], [torch.stack(truths[part], dim=-1)])
    assert volumes.get_buffer()[:, -1].tolist() == [3, 1]
    torch.testing.assert_close(volumes.aggregate(), slices.aggregate())


@pytest.mark.parametrize("metric_class", METRICS)
def test_slices_without_true_cells_are_left_out(metric_class: type) -> None:
    preds, truths = random_images(2)
    empty = torch.zeros_like(truths[0])
    metric, without = metric_class(), metric_class()
    row = metric(preds[:1], [empty])[0]
    assert row[:-1].isnan().all()
    assert row[-1] == 0
    assert metric.aggregate().isnan()
    metric(preds, truths)
    without(preds, truths)
    assert metric.aggregate() == without.aggregate()


@pytest.mark.parametrize("metric_class", METRICS)
def test_batch_equals_list_and_precision_hardly_matters(metric_class: type) -> None:
    preds, truths = random_images(2)
    preds = [pred.bfloat16().float() for pred in preds]
    rows = metric_class()(torch.stack(preds), torch.stack(truths))
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows, metric_class()(preds, truths))
    torch.testing.assert_close(rows, metric_class()([pred.bfloat16() for pred in preds], truths))


@pytest.mark.parametrize("metric_class", METRICS)
def test_binary_truth_equals_instances(metric_class: type) -> None:
    preds, truths = random_images(2)
    binary = [(truth > 0).to(torch.uint8) for truth in truths]
    torch.testing.assert_close(metric_class()(preds, binary), metric_class()(preds, truths))


@pytest.mark.parametrize("metric_class", METRICS)
def test_perfect_and_nearly_perfect(metric_class: type) -> None:
    cells = (
        draw("""
        1111111.22222222
        1111111.22222222
        1111111.22222222
        1111111..2222222
        ........22222222
        33333333..222222
        3333333333..2222
        333333333333....
    """)
        .repeat(3, axis=0)
        .repeat(3, axis=1)
    )
    best = 1 if metric_class in SCORES else 0
    perfect, blurred = metric_class(), metric_class()
    perfect([as_image((cells > 0).astype(np.float32))], [as_image(cells)])
    blurred([as_image(ndimage.gaussian_filter((cells > 0).astype(np.float32), 1))], [as_image(cells)])
    assert perfect.aggregate() == best
    assert blurred.aggregate().item() == pytest.approx(best, abs=0.05)


@pytest.mark.parametrize("metric_class", SCORES)
def test_thinning_forgives_thick_membranes(metric_class: type) -> None:
    cells, thick = draw("111111.222222"), draw("1111...222222")
    metric = metric_class()
    metric([as_image((thick > 0).astype(np.float32))], [as_image(cells)])
    assert metric.aggregate() > 0.8
    unthinned = RandErrorMetric()
    unthinned([as_image((thick > 0).astype(np.float32))], [as_image(cells)])
    assert unthinned.aggregate() > 0.1


def test_one_watershed_for_both_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(isbi_2012, "thin_borders", lambda cells: calls.append(cells) or thin_borders(cells))
    isbi_2012._thinned_table.cache_clear()
    preds, truths = random_images(2)
    thresholds = (0.4, 0.6)
    for metric_class in SCORES:
        metric_class(thresholds)(preds, truths)
    assert len(calls) == len(preds) * len(thresholds)


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
    assert len((tmp_path / "score_raw.csv").read_text().splitlines()) == 1 + 4


@pytest.mark.parametrize("metric_class", METRICS)
def test_survives_pickling(metric_class: type) -> None:
    metric = metric_class((0.4, 0.5))
    metric(*random_images(2))
    restored = pickle.loads(pickle.dumps(metric))
    assert restored.aggregate() == metric.aggregate()
    assert restored.thresholds == (0.4, 0.5)


PROBABILITY, LABEL = torch.full((1, 1, 4, 5), 0.5), torch.ones(1, 1, 4, 5).int()


@pytest.mark.parametrize(
    ("y_pred", "y", "message"),
    [
        (PROBABILITY, torch.ones(1, 1, 4, 6).int(), r"y_pred must have the shape of y, \(1, 1, 4, 6\), got"),
        (PROBABILITY, torch.ones(1, 2, 4, 5).int(), r"y must have the shape \(B, 1, X, Y\[, Z\]\), got \(1, 2, 4, 5\)"),
        (PROBABILITY[0], LABEL[0], r"y must have the shape \(B, 1, X, Y\[, Z\]\), got \(1, 4, 5\)\."),
        (PROBABILITY, None, r"y must have the shape \(B, 1, X, Y\[, Z\]\), got None\."),
        ([PROBABILITY[0]] * 2, [LABEL[0]], r"y_pred must hold as many images as y, 1, got 2"),
        (PROBABILITY + 1, LABEL, r"y_pred must hold probabilities in \[0, 1\], got values from 1\.5 to 1\.5\."),
        (PROBABILITY - 1, LABEL, r"y_pred must hold probabilities in \[0, 1\], got values from -0\.5 to -0\.5\."),
        (PROBABILITY * torch.nan, LABEL, r"y_pred must hold probabilities in \[0, 1\], got values from nan to nan\."),
        (PROBABILITY, LABEL - 2, r"y must hold no ignored pixels \(below 0\), got -1\."),
    ],
)
@pytest.mark.parametrize("metric_class", METRICS)
def test_rejects_values(metric_class: type, y_pred: TensorOrList, y: TensorOrList | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric_class()(y_pred, y)


@pytest.mark.parametrize("metric_class", METRICS)
def test_rejects_kinds(metric_class: type) -> None:
    with pytest.raises(
        TypeError, match=r"y_pred must hold probabilities as floating point numbers, got torch\.int32\."
    ):
        metric_class()(LABEL, LABEL)
    with pytest.raises(TypeError, match=r"y must be an integer label map, got torch\.float32\."):
        metric_class()(PROBABILITY, PROBABILITY)


@pytest.mark.parametrize("thresholds", [(), (0.5, 1.5), (-0.1,)])
@pytest.mark.parametrize("metric_class", METRICS)
def test_rejects_thresholds(metric_class: type, thresholds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"thresholds must be one or more numbers in \[0, 1\], got \("):
        metric_class(thresholds)


@pytest.mark.parametrize("metric_class", METRICS)
def test_needs_an_image(metric_class: type) -> None:
    with pytest.raises(RuntimeError, match=r"Metric has no image to aggregate: call it on predictions first\."):
        metric_class().aggregate()
