"""The panel that napari shows: segment, correct, save for training, fine-tune."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from unet_monai.bundle import find_bundle_root, find_weights
from unet_monai.extras import import_extra
from unet_monai.napari_plugin.fine_tuning import Progress, Training, prepare_round
from unet_monai.napari_plugin.planes import load_plane_network, plane_indices, segment_planes
from unet_monai.napari_plugin.training_pair import LabelExistsError, save_pair


def make_panel() -> Any:
    """Make the panel for the viewer that is open; napari calls this, as its manifest says.

    Returns:
        The magicgui container to dock; its ``panel`` is the `Panel` behind it.

    Raises:
        RuntimeError: when no viewer is open.
    """
    viewer = import_extra("napari", "napari").current_viewer()
    if viewer is None:
        raise RuntimeError("a viewer must be open for the panel, got none.")
    return Panel(viewer).container


class Panel:
    """The widgets and what they do. The work itself is in the modules beside this one.

    Args:
        viewer: napari's viewer, or a ``ViewerModel``.
    """

    def __init__(self, viewer: Any) -> None:
        self.viewer = viewer
        self.worker: Any = None
        self.training: Training | None = None
        self._make_widgets()
        self.segment.changed.connect(self.start_segmenting)
        self.save.changed.connect(self.save_labels)
        self.fine_tune.changed.connect(self.start_fine_tuning)
        self.cancel.changed.connect(self.stop)
        self.image.changed.connect(self._suggest_name)
        viewer.dims.events.current_step.connect(self._suggest_name)
        self._suggest_name()
        self._set_busy(False)

    def _make_widgets(self) -> None:
        w = import_extra("magicgui.widgets", "napari")
        layers = import_extra("napari.layers", "napari")
        self.image = w.ComboBox(label="image", choices=lambda _: self._layers(layers.Image))
        self.weights = w.FileEdit(label="weights", mode="r", filter="*.pt", value=_default_weights())
        self.cell_diameter = w.FloatSpinBox(
            label="cell diameter, px", min=0, max=10_000, value=0, tooltip="0: that of the training images"
        )
        self.segment = w.PushButton(text="Segment")
        self.labels = w.ComboBox(label="labels", choices=lambda _: self._layers(layers.Labels))
        self.dataset = w.FileEdit(
            label="data set", mode="d", tooltip="folder with images/ and labels/, or an empty one"
        )
        self.name = w.LineEdit(label="name in it")
        self.replace = w.CheckBox(text="replace its label", tooltip="the replaced one moves to replaced_labels/")
        self.save = w.PushButton(text="Save as training label")
        self.epochs = w.SpinBox(label="epochs", min=1, max=100_000, value=8)
        self.settings = w.LineEdit(label="more settings", tooltip="as on the command line: --max_minutes 10")
        self.fine_tune = w.PushButton(text="Fine-tune")
        self.cancel = w.PushButton(text="Cancel")
        self.progress = w.ProgressBar(label="progress", value=0, min=0, max=1)
        self.status = w.TextEdit(label="", value="")
        self.status.read_only = True
        segmenting = [self.image, self.weights, self.cell_diameter, self.segment]
        saving = [self.labels, self.dataset, self.name, self.replace, self.save]
        training = [self.epochs, self.settings, self.fine_tune, self.cancel, self.progress, self.status]
        self.container = w.Container(widgets=[*segmenting, *saving, *training], labels=True)
        self.container.panel = self

    def start_segmenting(self) -> None:
        """Segment all planes of the image in a thread; its cells become a layer."""
        layer = self.image.value
        if layer is None:
            return self._say("Open an image first.")
        image = layer.data[0] if layer.multiscale else layer.data
        try:
            network, total = load_plane_network(self.weights.value), len(plane_indices(image.shape, rgb=layer.rgb))
        except (FileNotFoundError, ValueError) as error:
            return self._say(str(error))
        cells = np.zeros(image.shape[:-1] if layer.rgb else image.shape, np.int32)

        def show(item: tuple[tuple[int, ...], np.ndarray]) -> None:
            cells[item[0]] = item[1]
            self._advance(self.progress.value + 1, total)

        def finish() -> None:
            self._add_cells(layer, cells)

        self._advance(0, total)
        self._say(f"Segmenting {layer.name} with {self.weights.value} ...")
        planes = segment_planes(
            image, network, rgb=layer.rgb, cell_diameter=self.cell_diameter.value or None, device=_device()
        )
        return self._run(planes, show, finish)

    def save_labels(self) -> None:
        """Save the plane on view and its labels into the data set, and say what was written."""
        image, labels = self.image.value, self.labels.value
        if image is None or labels is None:
            return self._say("Choose an image and its labels first.")
        if str(self.dataset.line_edit.value).strip() == "":
            return self._say("Choose the folder of the data set first.")
        try:
            index = self._plane_on_view(image)
            pixels, cells = (layer.data[0] if layer.multiscale else layer.data for layer in (image, labels))
            if cells.shape != pixels.shape[: cells.ndim] or len(index) + 2 != cells.ndim:
                return self._say(f"The labels must have the image's shape {pixels.shape}, got {cells.shape}.")
            saved = save_pair(
                self.dataset.value, self.name.value, pixels[index], cells[index], replace=self.replace.value
            )
        except LabelExistsError as error:
            return self._say(f'Nothing saved: {error} Tick "replace its label" and save again.')
        except (ValueError, OSError) as error:
            return self._say(f"Nothing saved: {error}")
        self.replace.value = False
        lines = [f"Saved {saved.num_cells} cells in {saved.label}."]
        if saved.new_image:
            lines.append(f"Saved the image in {saved.image}.")
        if saved.in_parts:
            lines.append(f"In several parts, which training takes for one cell each: {saved.in_parts}.")
        return self._say(" ".join(lines))

    def start_fine_tuning(self) -> None:
        """Train on the data set in a process of its own; the next segmentation has the new weights."""
        if str(self.dataset.line_edit.value).strip() == "":
            return self._say("Choose the folder of the data set first.")
        try:
            words = shlex.split(self.settings.value)
            plan = prepare_round(self.dataset.value, self.weights.value, epochs=self.epochs.value, settings=words)
            self.training = training = Training(plan)
        except (ValueError, OSError) as error:
            return self._say(f"Not trained: {error}")

        def show(item: Progress | str) -> None:
            if isinstance(item, Progress):
                self._advance(item.step, item.steps)
                self._say(f"Training: step {item.step} of {item.steps}, {item.figures}")
            elif item:
                self._say(item)

        def finish() -> None:
            if training.cancelled:
                return self._say("Cancelled. The weights are those from before.")
            self.weights.value = plan.weights
            return self._say(f"Trained. The weights are now {plan.weights}; the report is {plan.report}.")

        self._advance(0, 1)
        self._say(f"Training in {plan.folder} ...")
        return self._run(training.follow(), show, finish)

    def stop(self) -> None:
        """Cancel what runs; a segmentation after the plane that it is at."""
        if self.training is not None and self.training.runs():
            self.training.cancel()
        elif self.worker is not None:
            self.worker.quit()

    def _run(self, items: Iterator[Any], show: Callable[[Any], None], finish: Callable[[], None]) -> None:
        """Run a generator in a thread, one at a time."""
        threading = import_extra("napari.qt.threading", "napari")
        failed: list[Exception] = []

        def take(item: Any) -> None:
            if isinstance(item, Exception):
                failed.append(item)
                self._say(f"{type(item).__name__}: {item}")
            else:
                show(item)

        def end(_: Any = None) -> None:
            if not failed:
                finish()

        def aborted() -> None:
            self._say("Cancelled.")

        self._set_busy(True)
        connections = {"yielded": take, "returned": end, "aborted": aborted, "finished": lambda: self._set_busy(False)}
        self.worker = threading.create_worker(_with_errors, items, _connect=connections)

    def _add_cells(self, layer: Any, cells: np.ndarray) -> None:
        name = f"{layer.name} cells"
        placing = {key: getattr(layer, key) for key in ("scale", "translate", "rotate", "shear")}
        added = self.viewer.add_labels(cells, name=name, affine=layer.affine, **placing)
        self.labels.reset_choices()
        self.labels.value = added
        count = sum(int(cells[index].max()) for index in plane_indices(cells.shape, rgb=False))
        self._say(f"{count} cells. Correct them with the tools of the layer {added.name!r}, then save.")

    def _plane_on_view(self, layer: Any) -> tuple[int, ...]:
        """Return the index of the layer's plane that the viewer shows."""
        ndim = layer.ndim
        if self.viewer.dims.ndisplay != 2 or tuple(self.viewer.dims.displayed[-2:]) != tuple(
            range(self.viewer.dims.ndim - 2, self.viewer.dims.ndim)
        ):
            raise ValueError("the viewer must show the last two axes in 2-D, got another view.")
        position = layer.world_to_data(self.viewer.dims.point[-ndim:])
        limits = layer.data[0].shape if layer.multiscale else layer.data.shape
        return tuple(int(np.clip(round(at), 0, size - 1)) for at, size in zip(position[:-2], limits, strict=False))

    def _suggest_name(self, _: Any = None) -> None:
        """Suggest a name: the layer's, with the plane's number of a stack."""
        layer = self.image.value
        if layer is None:
            return
        index = self._plane_on_view(layer) if self.viewer.dims.ndisplay == 2 else ()
        self.name.value = "_".join([layer.name, *(f"{at:03d}" for at in index)])

    def _layers(self, kind: type) -> list[Any]:
        return [layer for layer in self.viewer.layers if isinstance(layer, kind)]

    def _advance(self, step: int, steps: int) -> None:
        self.progress.value = 0  # first: magicgui refuses a maximum below the value
        self.progress.max, self.progress.value = steps, step

    def _set_busy(self, busy: bool) -> None:
        for button in (self.segment, self.save, self.fine_tune):
            button.enabled = not busy
        self.cancel.enabled = busy

    def _say(self, text: str) -> None:
        self.status.value = text


def _with_errors(items: Iterable[Any]) -> Iterator[Any]:
    """Hand on an error as the last item: napari's workers lose every RuntimeError, such as that of a full memory."""
    try:
        yield from items
    except Exception as error:
        yield error


def _default_weights() -> Path | None:
    """Find the weights of the bundle around the package; an installed wheel has none."""
    try:
        return Path(find_weights(find_bundle_root()))
    except (FileNotFoundError, ValueError):
        return None


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
