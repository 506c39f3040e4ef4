"""The panel in napari itself: its manifest, its buttons, the whole loop.

Without napari these tests are skipped, without a display for OpenGL those with a canvas; the others need Qt's
offscreen platform only.
"""

from __future__ import annotations

import importlib.util
import os
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
if importlib.util.find_spec("napari") is None:
    pytest.skip('napari is not installed: pip install -e ".[napari]"', allow_module_level=True)

from napari.components import ViewerModel
from npe2 import PluginManifest
from npe2.manifest.utils import import_python_name
from qtpy.QtWidgets import QApplication
from unet_monai import segment
from unet_monai.data import draw_cells, find_pairs
from unet_monai.napari_plugin import panel as panel_module
from unet_monai.napari_plugin.panel import Panel, make_panel

from tests.napari_plugin.networks import write_weights

IMAGE, LABELS = draw_cells(1, (60, 84))
SHORT = "--tile_size 204 --steps_per_epoch 1 --val_interval 1 --device cpu"


@pytest.fixture(scope="module")
def application() -> QApplication:
    return QApplication.instance() or QApplication([])


@pytest.fixture
def panel(application: QApplication, tmp_path: Path) -> Iterator[Panel]:
    """A panel on a viewer without a window, which needs no OpenGL, with weights that find cells."""
    viewer = ViewerModel()
    viewer.add_image(IMAGE, name="cells", scale=(0.5, 0.5))
    made = Panel(viewer)
    for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
        event.connect(made.container.reset_choices)
    made.weights.value = write_weights(tmp_path / "own.pt")
    made.dataset.value = tmp_path / "set"
    yield made
    made.stop()
    wait(lambda: made.segment.enabled)
    made.container.close()


def wait(done: Callable[[], bool], seconds: float = 120) -> None:
    """Let Qt work until something is done."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it takes too long"
        QApplication.processEvents()
        time.sleep(0.01)


def press(panel: Panel, button: Any) -> None:
    """Press a button and wait until the panel is ready again."""
    button.native.click()
    wait(lambda: panel.segment.enabled)


def test_manifest_is_valid_and_names_the_panel() -> None:
    project = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, file = project["entry-points"]["napari.manifest"]["unet-monai"].split(":")
    (folder,) = importlib.import_module(module).__path__
    manifest = PluginManifest.from_file(Path(folder, file))
    assert manifest.name == project["name"], "napari takes a plugin by the name of its package"
    manifest.validate_imports()
    commands = {command.id: command.python_name for command in manifest.contributions.commands}
    assert [import_python_name(commands[widget.command]) for widget in manifest.contributions.widgets] == [make_panel]


def test_no_viewer_no_panel(application: QApplication) -> None:
    with pytest.raises(RuntimeError, match=r"^a viewer must be open for the panel, got none\.$"):
        make_panel()


def test_segment_adds_the_cells_where_the_image_is(panel: Panel) -> None:
    press(panel, panel.segment)
    layer = panel.labels.value
    expected = segment(IMAGE, panel.weights.value)
    assert expected.max() > 0, "test invalid"
    np.testing.assert_array_equal(layer.data, expected)
    assert layer.name == "cells cells"
    np.testing.assert_array_equal(layer.scale, (0.5, 0.5))
    assert panel.status.value.startswith(f"{expected.max()} cells.")
    assert (panel.progress.value, panel.progress.max) == (1, 1)


def test_a_saved_label_is_what_was_corrected(panel: Panel, tmp_path: Path) -> None:
    panel.viewer.add_labels(LABELS.astype(np.int32))
    panel.labels.value = panel.viewer.layers[-1]
    panel.labels.value.fill(tuple(np.argwhere(LABELS == 1)[0]), 0)
    assert panel.name.value == "cells"
    press(panel, panel.save)
    (pair,) = find_pairs(tmp_path / "set")
    saved = tifffile.imread(pair["label"])
    np.testing.assert_array_equal(saved > 0, LABELS > 1)
    assert saved.max() == LABELS.max() - 1
    press(panel, panel.save)
    assert panel.status.value.startswith("Nothing saved: replace must be on, since cells has a label already")
    panel.replace.value = True
    press(panel, panel.save)
    assert panel.status.value.startswith(f"Saved {saved.max()} cells in ")
    assert not panel.replace.value, "the next save must ask again"


def test_of_a_stack_the_plane_on_view_is_saved(panel: Panel, tmp_path: Path) -> None:
    stack = np.stack([draw_cells(seed, (60, 84))[0] for seed in (1, 2, 3)])
    panel.image.value = panel.viewer.add_image(stack, name="movie", scale=(2, 0.5, 0.5))
    press(panel, panel.segment)
    cells = panel.labels.value
    assert cells.data.shape == stack.shape
    panel.viewer.dims.set_current_step(0, 2)
    assert panel.name.value == "movie_002"
    cells.data[2] = draw_cells(3, (60, 84))[1]
    press(panel, panel.save)
    (pair,) = find_pairs(tmp_path / "set")
    np.testing.assert_array_equal(tifffile.imread(pair["image"]), stack[2])
    np.testing.assert_array_equal(tifffile.imread(pair["label"]), draw_cells(3, (60, 84))[1])


def test_mistakes_are_told_and_the_panel_goes_on(panel: Panel, tmp_path: Path) -> None:
    panel.weights.value = tmp_path / "none.pt"
    press(panel, panel.segment)
    assert panel.status.value.startswith("weights must be an existing file, got ")
    press(panel, panel.save)
    assert panel.status.value == "Choose an image and its labels first."
    press(panel, panel.fine_tune)
    assert panel.status.value.startswith("Not trained: weights must be an existing file, got ")
    panel.viewer.add_labels(LABELS.T.astype(np.int32))
    press(panel, panel.save)
    assert panel.status.value.startswith("The labels must have the image's shape (60, 84), got (84, 60)")
    panel.dataset.line_edit.value = ""
    for button in (panel.save, panel.fine_tune):
        press(panel, button)
        assert panel.status.value == "Choose the folder of the data set first."
    panel.viewer.layers.clear()
    press(panel, panel.segment)
    assert panel.status.value == "Open an image first."


def test_a_runtime_error_of_the_thread_is_told(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> Iterator[Any]:
        yield from ()
        raise RuntimeError("out of memory")

    monkeypatch.setattr(panel_module, "segment_planes", fail)
    press(panel, panel.segment)
    assert panel.status.value == "RuntimeError: out of memory"
    assert len(panel.viewer.layers) == 1


def test_a_cancelled_segmentation_adds_nothing(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: object, **__: object) -> Iterator[Any]:
        for page in range(500):
            time.sleep(0.02)
            yield (page,), LABELS

    panel.image.value = panel.viewer.add_image(np.stack([IMAGE] * 500), name="movie")
    monkeypatch.setattr(panel_module, "segment_planes", slow)
    panel.segment.native.click()
    wait(lambda: panel.progress.value > 0)
    assert not panel.save.enabled
    press(panel, panel.cancel)
    assert panel.status.value == "Cancelled."
    assert len(panel.viewer.layers) == 2


def fake_training(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let a round run a line of Python in place of MONAI, whose start takes seconds."""
    real = panel_module.prepare_round

    def prepare(*args: Any, **kwargs: Any) -> Any:
        plan = real(*args, **kwargs)
        return plan._replace(command=[plan.command[0], "-c", code])

    monkeypatch.setattr(panel_module, "prepare_round", prepare)


def annotate(panel: Panel) -> None:
    panel.viewer.add_labels(LABELS.astype(np.int32))
    press(panel, panel.save)
    assert panel.status.value.startswith("Saved "), "test invalid"


def test_new_weights_are_those_of_the_next_segmentation(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    annotate(panel)
    bar = "training:  50%|##### | 3/6 [00:02<00:02, 1.3step/s, epoch=1/2, loss=0.913]"
    fake_training(monkeypatch, f"print('starting'); print({bar!r})")
    press(panel, panel.fine_tune)
    assert panel.weights.value == panel.dataset.value / "fine_tuned" / "1" / "models" / "model.pt"
    assert panel.status.value.startswith("Trained. The weights are now ")
    assert (panel.progress.value, panel.progress.max) == (3, 6)


def test_a_cancelled_training_ends_and_changes_no_weights(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    annotate(panel)
    weights = panel.weights.value
    fake_training(monkeypatch, "import time; time.sleep(100)")
    panel.fine_tune.native.click()
    wait(lambda: panel.training is not None and panel.training.runs())
    press(panel, panel.cancel)
    assert panel.status.value == "Cancelled. The weights are those from before."
    assert panel.weights.value == weights
    assert not panel.training.runs()


def test_a_training_that_fails_says_why(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    annotate(panel)
    weights = panel.weights.value
    fake_training(monkeypatch, "import sys; print('ValueError: no such'); sys.exit(1)")
    press(panel, panel.fine_tune)
    assert panel.status.value.startswith("RuntimeError: training must end without an error, got 'ValueError: no such'")
    assert panel.weights.value == weights


@pytest.mark.slow
def test_the_whole_loop(panel: Panel) -> None:
    press(panel, panel.segment)
    before = panel.labels.value.data.copy()
    annotate(panel)
    panel.epochs.value, panel.settings.value = 2, SHORT
    press(panel, panel.fine_tune)
    assert panel.status.value.startswith("Trained. "), panel.status.value
    assert panel.progress.value == panel.progress.max == 2
    press(panel, panel.segment)
    np.testing.assert_array_equal(panel.labels.value.data, segment(IMAGE, panel.weights.value))
    assert (panel.labels.value.data != before).any()


def test_the_panels_own_picture_shows_its_buttons(panel: Panel, tmp_path: Path) -> None:
    path = tmp_path / "panel.png"
    assert panel.container.native.grab().save(str(path))
    assert np.asarray(Image.open(path).convert("L")).std() > 1
    assert [panel.segment.text, panel.save.text, panel.fine_tune.text, panel.cancel.text] == [
        "Segment",
        "Save as training label",
        "Fine-tune",
        "Cancel",
    ]


@pytest.mark.skipif("DISPLAY" not in os.environ, reason="napari's canvas needs OpenGL, so a display (xvfb-run)")
def test_docked_in_napari_by_its_name() -> None:
    import napari

    viewer = napari.Viewer(show=False)
    try:
        _, container = viewer.window.add_plugin_dock_widget("unet-monai", "Cells")
        viewer.add_image(IMAGE, name="cells")
        assert container.panel.image.value is viewer.layers[0]
        assert container.panel.name.value == "cells"
        assert container.panel.weights.value.name.endswith(".pt")
        assert viewer.screenshot(canvas_only=False, flash=False).std() > 1
    finally:
        viewer.close()
