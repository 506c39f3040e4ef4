from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.handlers import IgniteMetricHandler, from_engine
from PIL import Image
from unet_monai.handlers import ImageResultsHandler
from unet_monai.handlers.image_results import picture_plane, scores_of_images
from unet_monai.metrics import APMetric, DETMetric, SEGMetric
from unet_monai.pictures import contact_sheet, draw_errors
from unet_monai.pictures.errors import ERROR_LEGEND

from tests.drawings import random_discs
from tests.handlers.validation import ITEMS, make_evaluator, make_item, make_metrics


class Writer:
    def __init__(self) -> None:
        self.images: list[tuple] = []

    def add_image(self, tag: str, image: np.ndarray, step: int, dataformats: str) -> None:
        self.images.append((tag, image, step, dataformats))


def run(
    folder: Path, items: list[dict], *, cells: int = 9, batch_size: int = 1, **options: object
) -> ImageResultsHandler:
    metrics = make_metrics()
    evaluator = make_evaluator(items, metrics, cells=cells, batch_size=batch_size)
    handler = ImageResultsHandler(folder, metrics, **options)
    handler.attach(evaluator)
    evaluator.run()
    return handler


def png_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.png"))


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_measures_and_counts_of_each_image_the_worst_first(tmp_path: Path, batch_size: int) -> None:
    results = run(tmp_path, ITEMS, cells=2, batch_size=batch_size).results
    assert [result.address for result in results] == ["/data/four.png", "/data/three.png", "/data/two.png"]
    assert [result.measures["SEG"] for result in results] == [pytest.approx(x) for x in (1 / 2, 2 / 3, 1)]
    assert [result.measures["DET"] for result in results] == [pytest.approx(x) for x in (1 / 2, 2 / 3, 1)]
    assert results[0].true == {"right": 2, "missed": 2, "split": 0, "merged": 0}
    assert results[0].pred == {"right": 2, "split": 0, "merged": 0, "false": 0, "excused": 0}


def test_pictures_are_rows_first_and_only_of_the_worst(tmp_path: Path) -> None:
    handler = run(tmp_path / "report", ITEMS, cells=2, max_images=2)
    assert png_names(tmp_path / "report") == ["01_four.png", "02_three.png"]
    assert [result.picture for result in handler.results] == ["01_four.png", "02_three.png", ""]
    label = ITEMS[1]["label"][0].numpy().T
    expected = draw_errors(label.astype(float), np.where(label <= 2, label, 0), label)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "report" / "01_four.png")), expected)


def test_images_without_cells(tmp_path: Path) -> None:
    nothing, invented = make_item("/data/nothing.png", 0), make_item("/data/invented.png", 0)
    invented["image"][0, 3:6, 3:6] = 1
    results = run(tmp_path, [nothing, *ITEMS[:2], invented], cells=2).results
    names = ["invented.png", "four.png", "two.png", "nothing.png"]
    assert [Path(result.address).name for result in results] == names
    assert np.isnan(results[0].measures["SEG"])


def test_nothing_is_drawn_unless_the_run_is_the_best_so_far(tmp_path: Path) -> None:
    metrics = make_metrics()
    evaluator = make_evaluator(ITEMS, metrics)
    handler = ImageResultsHandler(tmp_path, metrics, max_images=2)
    handler.attach(evaluator)
    seen = []
    for epoch, cells in enumerate((1, 3, 2, 9), start=1):
        evaluator.network.cells = cells
        evaluator.run(epoch)
        seen.append((handler.epoch, png_names(tmp_path)))
    assert seen[:2] == [(1, ["01_four.png", "02_three.png"]), (2, ["01_four.png", "02_two.png"])]
    assert seen[2] == seen[1]
    assert seen[3] == (4, ["01_two.png", "02_four.png"])


def test_sheet_of_the_pictures_that_are_there(tmp_path: Path) -> None:
    writer = Writer()
    handler = run(tmp_path, ITEMS, cells=2, max_images=2, summary_writer=writer)
    assert writer.images == []
    handler.write_sheet(handler.results, "SEG", epoch=7)
    ((tag, sheet, step, order),) = writer.images
    assert (tag, step, order) == ("worst images", 7, "HWC")
    np.testing.assert_array_equal(sheet, np.asarray(Image.open(tmp_path / "sheet.png")))
    pictures = [np.asarray(Image.open(tmp_path / name)) for name in ("01_four.png", "02_three.png")]
    expected = contact_sheet(pictures, ["four.png  SEG 0.50", "three.png  SEG 0.67"], legend=ERROR_LEGEND)
    np.testing.assert_array_equal(sheet, expected)
    for picture in tmp_path.glob("*.png"):
        picture.unlink()
    handler.write_sheet(handler.results, "SEG", epoch=8)
    assert not list(tmp_path.iterdir())


def test_measures_what_the_key_metric_measures(tmp_path: Path) -> None:
    """Its output transform may look at something else than `pred`, as the measures of probabilities do."""
    perfect = IgniteMetricHandler(metric_fn=SEGMetric(), output_transform=from_engine(["label", "label"]))
    metrics = make_metrics() | {"SEG": perfect}
    evaluator = make_evaluator(ITEMS, metrics, cells=2)
    handler = ImageResultsHandler(tmp_path, metrics)
    handler.attach(evaluator)
    evaluator.run()
    assert [result.measures["SEG"] for result in handler.results] == [1, 1, 1]
    # Equally good: in the order of the data, not of what was found of them.
    assert [Path(result.address).stem for result in handler.results] == ["two", "four", "three"]


def test_lower_is_better_where_the_evaluator_says_so(tmp_path: Path) -> None:
    metrics = make_metrics()
    evaluator = make_evaluator(ITEMS, metrics, cells=2)
    evaluator.metric_cmp_fn = lambda current, best: current < best
    handler = ImageResultsHandler(tmp_path, metrics)
    handler.attach(evaluator)
    evaluator.run()
    assert [Path(result.address).stem for result in handler.results] == ["two", "three", "four"]


def test_other_files_of_the_folder_are_left_alone(tmp_path: Path) -> None:
    for name in ("notes.png", "1_mine.png", "07_old.png", "123_old.png", "history.json"):
        (tmp_path / name).touch()
    run(tmp_path, ITEMS[:1])
    assert {path.name for path in tmp_path.iterdir()} == {
        "notes.png", "1_mine.png", "history.json", "01_two.png"
    }  # fmt: skip


class TestScoresOfImages:
    @pytest.mark.parametrize("metric", [SEGMetric(), DETMetric(), APMetric(iou_threshold=0.5)])
    def test_equal_a_metric_that_saw_one_image_only(self, metric: SEGMetric) -> None:
        pairs = [[torch.from_numpy(random_discs(seed + k))[None] for k in (0, 100)] for seed in range(4)]
        for pred, label in pairs:
            metric([pred], [label])
        before, pooled = metric.get_buffer(), metric.aggregate()
        scores = scores_of_images(metric, before)
        assert torch.equal(metric.get_buffer(), before)
        assert torch.equal(metric.aggregate(), pooled)
        for (pred, label), score in zip(pairs, scores, strict=True):
            metric.reset()
            metric([pred], [label])
            assert float(metric.aggregate()) == score
        metric.reset()
        assert len(set(scores)) > 1, "test invalid: all images score the same"


class TestPicturePlane:
    def test_rows_first(self) -> None:
        array = torch.arange(12).reshape(1, 3, 4)
        np.testing.assert_array_equal(picture_plane(array), array[0].numpy().T)

    def test_colours_last(self) -> None:
        array = torch.arange(36).reshape(3, 3, 4)
        np.testing.assert_array_equal(picture_plane(array), np.moveaxis(array.numpy(), (0, 1, 2), (2, 1, 0)))

    def test_middle_slice_of_a_volume_without_the_volume(self) -> None:
        array = torch.arange(84).reshape(1, 3, 4, 7)
        plane = picture_plane(array)
        np.testing.assert_array_equal(plane, array[0, :, :, 3].numpy().T)
        assert not np.shares_memory(plane, array.numpy())
