"""The app that MONAI Label's server loads: one packed bundle, served with labels of two kinds.

`cell_unet_segmentation` gives and takes instances: 1, 2, ... are the cells. `cell_unet_segmentation_classes` gives and
takes maps of classes: 1 cell, 2 border (where cells touch), for clients that paint one value for each class, such as 3D
Slicer. Both have the same weights, those of `models/model.pt` in the bundle. Asked for a region, as QuPath does, each
gives the cells as polygons. This file runs in the server's own environment, where the bundle's package is not
installed.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastapi import HTTPException
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random
from monailabel.tasks.infer.basic_infer import CallBackTypes
from monailabel.tasks.infer.bundle import BundleInferTask
from monailabel.tasks.train.bundle import BundleTrainTask
from monailabel.transform.writer import PolygonWriter

NAME = "cell_unet_segmentation"
APP = Path(__file__).resolve().parent
BUNDLE = APP / "model" / NAME
sys.path += [str(APP), str(BUNDLE)]

from polygons import cell_polygons, region_slices  # noqa: E402 (of the app's folder)
from uncertain_borders import border_uncertainty  # noqa: E402
from unet_monai.data.growing_split import TRAINING, VALIDATION, grow_split  # noqa: E402 (of the bundle's package)
from unet_monai.data.writing import writing  # noqa: E402
from unet_monai.transforms.cell_classes import CELL, TOUCHING, cell_classes  # noqa: E402

POLYGON_CLASS, POLYGON_COLOUR = "cell", (255, 0, 0)  # QuPath replaces the cells of a class that /info/ lists
OF_CLASSES = {NAME: False, f"{NAME}_classes": True}
TRAINING_SETTINGS = ("steps_per_epoch", "val_interval", "tile_size", "batch_size", "learning_rate", "max_minutes")


class CellInferTask(BundleInferTask):
    """Segment an image; the result is a label image of the image's own kind and size, uint16.

    Args:
        path: folder of the bundle.
        conf: settings of the server's command line.
        of_classes: serve classes instead of instances.
    """

    def __init__(self, path: str, conf: dict[str, str], of_classes: bool) -> None:
        super().__init__(path, conf)
        self.of_classes = of_classes
        self.labels = {"cell": CELL, "border": TOUCHING} if of_classes else {"cell": CELL}

    def writer(self, data: dict[str, Any], extension: str | None = None, dtype: Any = None) -> tuple[Any, Any]:
        """Write the result as uint16: the server's writer has no 32-bit PNG."""
        instances = np.asarray(data["pred"])
        if instances.max() > np.iinfo(np.uint16).max:
            raise ValueError(f"instances must be at most 65535 for a client, got {instances.max()}.")
        if self.of_classes:
            data["pred"] = cell_classes(instances, radius=self.bundle_config["ridge_radius"])
        return super().writer(data, extension, dtype=np.uint16)

    def uncertainty(self, image: str, device: str) -> float:
        """Segment an image, write nothing, and measure how unsure the network is at the borders it found.

        Args:
            image: path of the image.
            device: device to compute on.

        Returns:
            The `border_uncertainty`, in [0, 1].
        """
        scores: list[torch.Tensor] = []

        def keep(data: dict[str, Any]) -> dict[str, Any]:
            scores.append(torch.as_tensor(data["pred"]).float())
            return data

        request = {"image": image, "device": device, "skip_writer": True}
        _, found = self(request, callbacks={CallBackTypes.INFERER: keep})
        return border_uncertainty(scores[0].softmax(dim=0).cpu().numpy(), np.asarray(found["pred"]))


class CellPolygonTask(BundleInferTask):
    """Segment a region of an image; the result is a polygon for each cell, as ASAP's XML, DSA's JSON or plain JSON.

    Args:
        path: folder of the bundle.
        conf: settings of the server's command line.
    """

    def __init__(self, path: str, conf: dict[str, str]) -> None:
        super().__init__(path, conf, add_post_restore=False)  # it would stretch a region to the image's size

    def pre_transforms(self, data: dict[str, Any] | None = None) -> list[Any]:
        """Cut out the region before its grey values are normalised, as if it were an image of its own."""
        load, *others = super().pre_transforms(data)
        return [load, _cut_out_region, *others]

    def writer(self, data: dict[str, Any], extension: str | None = None, dtype: Any = None) -> tuple[Any, Any]:
        """Write the polygons, in pixels of the whole image, by MONAI Label's own writer."""
        # MONAI Label's FindContoursd would make a class of each cell, and rounds its contours to the pixels' centres.
        instances, min_area = np.asarray(data["pred"]).T, data["min_poly_area"] or 0
        contours = cell_polygons(instances, location=data["location"], min_area=min_area)
        elements = [{"label": POLYGON_CLASS, "contours": contours}]
        data["result"] = {"annotation": {"elements": elements, "labels": {POLYGON_CLASS: POLYGON_COLOUR}}}
        written: tuple[Any, Any] = PolygonWriter()(data)
        return written


def _cut_out_region(data: dict[str, Any]) -> dict[str, Any]:
    image = data["image"]
    if data["level"]:
        raise HTTPException(422, f"level must be 0, the image's own resolution, got {data['level']}.")
    try:
        x, y = region_slices(data["location"], data["size"], image.shape[1:])
    except ValueError as error:
        raise HTTPException(422, str(error)) from error
    return {**data, "image": image[:, x, y]}


class UncertainBorders(Strategy):
    """Choose the image without a label at whose cells' borders the network is least sure.

    Each image is segmented once with the weights at hand; what was measured is kept until they change. Of equal images
    the first by name is chosen. An image in which no cell was found comes last.

    Args:
        model: the model that segments.
    """

    def __init__(self, model: CellInferTask) -> None:
        super().__init__("The image with the most uncertain borders of cells")
        self.model = model
        self.measured: dict[tuple[str, int], float] = {}

    def __call__(self, request: dict[str, Any], datastore: Any) -> dict[str, Any] | None:
        """Choose the next image, None where all have labels; a client may set `device`."""
        images = sorted(datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels")))
        version = os.stat(self.model.get_path()).st_mtime_ns
        self.measured = {key: value for key, value in self.measured.items() if key[1] == version}
        for image in images:
            if (image, version) not in self.measured:
                path = datastore.get_image_uri(image)
                self.measured[image, version] = self.model.uncertainty(path, request.get("device", "cuda"))
        if not images:
            return None
        chosen = max(images, key=lambda image: self.measured[image, version])
        return {"id": chosen, "uncertainty": self.measured[chosen, version]}


class CellTrainTask(BundleTrainTask):
    """Go on training with the labels submitted so far.

    Unlike MONAI Label's own task it starts by the bundle's loader of weights, which keeps the rescaling of the images
    at hand, ends the schedule of the learning rate with the training, and never moves an image from training to
    validation or back: `output/annotated.json` in the bundle remembers where each went.

    Args:
        path: folder of the bundle.
        conf: settings of the server's command line.
        of_classes: labels are maps of classes instead of instances.
    """

    def __init__(self, path: str, conf: dict[str, str], of_classes: bool) -> None:
        super().__init__(path, conf)
        self.border_label = TOUCHING if of_classes else None
        self.settings: dict[str, Any] = {}

    def config(self) -> dict[str, Any]:
        """List what a client may set, with the defaults."""
        return {**super().config(), **{name: self.bundle_config[name] for name in TRAINING_SETTINGS}}

    def __call__(self, request: dict[str, Any], datastore: Any) -> dict[str, Any]:
        """Train; what a client leaves empty, as 3D Slicer does, has its default."""
        given = {name: value for name, value in request.items() if value not in (None, "")}
        self.settings = {name: given[name] for name in TRAINING_SETTINGS if name in given}
        return super().__call__(given, datastore)

    def _partition_datalist(
        self, datalist: list[dict[str, str]], request: dict[str, Any], shuffle: bool = False
    ) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
        memory = BUNDLE / "output" / "annotated.json"
        earlier = json.loads(memory.read_text(encoding="utf-8")) if memory.is_file() else {}
        by_name = {Path(item["image"]).name: item for item in datalist}
        uses = grow_split(by_name, earlier, validation=float(request.get("val_split", 0.2)))
        memory.parent.mkdir(exist_ok=True)
        with writing(memory) as part:
            part.write_text(json.dumps(uses, indent=2) + "\n", encoding="utf-8")
        training = [item for name, item in by_name.items() if uses[name] == TRAINING]
        return training, [item for name, item in by_name.items() if uses[name] == VALIDATION]

    def _load_checkpoint(self, model_pytorch: str, pretrained: bool, train_handlers: list[dict[str, Any]]) -> None:
        if pretrained:
            self.settings["pretrained"] = model_pytorch

    def _update_overrides(self, overrides: dict[str, Any]) -> dict[str, Any]:
        epochs = overrides[self.const.key_train_trainer_max_epochs()]
        overrides.update(self.settings, epochs=epochs, border_label=self.border_label)
        return overrides


class CellUNetApp(MONAILabelApp):
    """The server's app.

    Args:
        app_dir: folder of this file.
        studies: folder of the images and their labels.
        conf: settings of the server's command line.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        super().__init__(
            app_dir=app_dir, studies=studies, conf=conf, name="Cell U-Net", description="Touching cells, told apart"
        )
        self.polygons = CellPolygonTask(str(BUNDLE), conf)

    def init_infers(self) -> dict[str, CellInferTask]:
        """Make the models that segment."""
        return {name: CellInferTask(str(BUNDLE), self.conf, classes) for name, classes in OF_CLASSES.items()}

    def infer_wsi(self, request: dict[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Segment a region of an image, by either model, and give the cells as polygons.

        MONAI Label's own method cuts a region out of TIFF only, by OpenSlide, and of a PNG gives the whole.

        Raises:
            HTTPException: if there is no such model or image, or no such region in it.
        """
        model, image = request["model"], request["image"]
        if model not in self._infers:
            raise HTTPException(404, f"model must be one of {', '.join(self._infers)}, got {model}.")
        uploaded = os.path.isabs(image)
        path = image if uploaded else (datastore or self.datastore()).get_image_uri(image)
        if not path:
            raise HTTPException(404, f"image must be one of the server's folder, got {image}.")
        file, answer = self.polygons({**request, "image": path, "description": self.polygons.description})
        return {"file": file, "params": answer}

    def init_trainers(self) -> dict[str, CellTrainTask]:
        """Make the trainings."""
        return {name: CellTrainTask(str(BUNDLE), self.conf, classes) for name, classes in OF_CLASSES.items()}

    def init_strategies(self) -> dict[str, Any]:
        """Make the ways to choose the next image to annotate."""
        return {
            "first": First(),
            "random": Random(),
            "uncertain_borders": UncertainBorders(CellInferTask(str(BUNDLE), self.conf, of_classes=False)),
        }
