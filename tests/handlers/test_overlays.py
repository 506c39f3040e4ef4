from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from PIL import Image

from unet_monai.handlers import OverlayHandler
from unet_monai.pictures import draw_overlay
from unet_monai.pictures.overlays import BOTH, GAP, PREDICTION, TITLE_HEIGHT, TRUTH


def make_item(name: str, size: tuple[int, ...] = (40, 30), channels: int = 1) -> dict[str, torch.Tensor]:
    """One found cell, half a found cell and an invented one, in MONAI's axis order (C, X, Y[, Z])."""
    random = np.random.default_rng(len(name))
    label, pred = np.zeros((1, *size), np.int32), np.zeros((1, *size), np.int32)
    label[:, 5:10, 3:8], label[:, 20:30, 10:20] = 1, 2
    pred[:, 5:10, 3:8], pred[:, 20:30, 10:16], pred[:, 32:38, 3:6] = 1, 2, 3
    image = MetaTensor(torch.from_numpy(random.random((channels, *size))), meta={"filename_or_obj": f"/data/{name}"})
    return {"image": image, "label": torch.from_numpy(label), "pred": torch.from_numpy(pred)}


def run(handler: OverlayHandler, batches: list[list[dict]], epochs: int = 1) -> None:
    engine = Engine(lambda engine, batch: batch)
    handler.attach(engine)
    engine.run(batches, max_epochs=epochs)


def in_sheet(path: Path, shape: tuple[int, ...], column: int = 0) -> np.ndarray:
    sheet = np.asarray(Image.open(path))
    x, y = GAP + column * (shape[1] + GAP), GAP + TITLE_HEIGHT
    return sheet[y : y + shape[0], x : x + shape[1]]


class Writer:
    def __init__(self) -> None:
        self.images: list[tuple] = []

    def add_image(self, tag: str, image: np.ndarray, step: int, dataformats: str) -> None:
        self.images.append((tag, image, step, dataformats))


def test_draws_rows_first_with_contours_where_they_belong(tmp_path: Path) -> None:
    path = tmp_path / "output" / "overlays.png"
    item = make_item("a.png")
    handler = OverlayHandler(str(path))
    run(handler, [[item]])
    zoom = 480 // 40
    picture = in_sheet(path, (30 * zoom, 40 * zoom))
    expected = draw_overlay(*(item[key][0].numpy().T for key in ("image", "pred", "label")))
    np.testing.assert_array_equal(picture, expected)
    # Corners of the three cells at (x, y).
    for (x, y), colour in {(5, 3): BOTH, (20, 10): BOTH, (32, 3): PREDICTION}.items():
        assert tuple(picture[y * zoom, x * zoom]) == colour
    assert tuple(picture[20 * zoom - 1, 25 * zoom]) == TRUTH
    assert handler.titles == ["a.png  SEG 0.80, 2 cells"]


def test_no_more_than_max_images_and_a_new_sheet_each_time(tmp_path: Path) -> None:
    path = tmp_path / "overlays.png"
    handler = OverlayHandler(str(path), max_images=3)
    run(handler, [[make_item("a.png"), make_item("bb.png")], [make_item("ccc.png"), make_item("d.png")]])
    assert [title.split()[0] for title in handler.titles] == ["a.png", "bb.png", "ccc.png"]
    first = path.read_bytes()
    run(handler, [[make_item("eeee.png")]])
    assert [title.split()[0] for title in handler.titles] == ["eeee.png"]
    assert path.read_bytes() != first


def test_tensorboard_gets_the_sheet(tmp_path: Path) -> None:
    writer = Writer()
    path = tmp_path / "overlays.png"
    run(OverlayHandler(str(path), summary_writer=writer), [[make_item("a.png")]])
    (tag, image, step, dataformats) = writer.images[0]
    assert (tag, step, dataformats) == ("overlays", 1, "HWC")
    np.testing.assert_array_equal(image, np.asarray(Image.open(path)))


def test_middle_slice_of_a_volume_and_colour_images(tmp_path: Path) -> None:
    path = tmp_path / "overlays.png"
    volume = make_item("a.nii.gz", (40, 30, 7))
    volume["label"][..., :3] = volume["pred"][..., 4:] = 0
    run(OverlayHandler(str(path)), [[volume], [make_item("b.png", channels=3)]])
    middle = [volume[key][0, :, :, 3].numpy().T for key in ("image", "pred", "label")]
    np.testing.assert_array_equal(in_sheet(path, (360, 480)), draw_overlay(*middle))
    colour = make_item("b.png", channels=3)
    expected = draw_overlay(colour["image"].numpy().T, *(colour[key][0].numpy().T for key in ("pred", "label")))
    np.testing.assert_array_equal(in_sheet(path, (360, 480), column=1), expected)


def test_images_without_cells_and_no_images(tmp_path: Path) -> None:
    item = make_item("a.png")
    item["label"][:] = -1
    handler = OverlayHandler(str(tmp_path / "overlays.png"))
    run(handler, [[item]])
    assert handler.titles == ["a.png  no cell"]
    empty = OverlayHandler(str(tmp_path / "none.png"))
    run(empty, [[]])
    assert not (tmp_path / "none.png").exists()
