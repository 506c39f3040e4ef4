"""Write a package for the BioImage Model Zoo, https://bioimage.io, which Fiji, ilastik and QuPath read."""

from __future__ import annotations

import math
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import ScaleIntensityRangePercentiles
from unet_monai.data import draw_cells
from unet_monai.data.image_io import PERCENTILES
from unet_monai.data.writing import writing
from unet_monai.export.graphs import export_graph, write_onnx
from unet_monai.export.model_card import ModelCard
from unet_monai.export.same_size import SameSizeUNet
from unet_monai.extras import import_extra
from unet_monai.networks import NetworkTraits, ValidUNet

# Least side of the test image, where the network allows smaller ones.
TEST_SIDE = 128


def save_bioimageio(network: ValidUNet, path: Path, card: ModelCard) -> None:
    """Write the zip: a graph in ONNX with :class:`SameSizeUNet` in it, its description, a test image and its result.

    The output has the size of the input. Sides are multiples of the pooling step. A halo is stated, in whole steps, so
    that programs that cut images into tiles get the scores of the whole image.

    Args:
        network: trained network, on the CPU; it is put into evaluation mode.
        path: file to write, ``.zip``.
        card: who made it, and so on.

    Raises:
        ModuleNotFoundError: when the extra ``export`` is not installed.
        FileExistsError: when the file is there already.
        ValueError: when the card's classes are not as many as the network's, or ``bioimageio.spec`` finds the package
            not valid.
    """
    spec = import_extra("bioimageio.spec", "export")
    path = Path(path)
    traits = NetworkTraits.of(network)
    if len(card.classes) != traits.out_channels:
        raise ValueError(f"classes must be {traits.out_channels}, as many as the network's, got {card.classes}.")
    if path.exists():
        raise FileExistsError(f"output must not exist yet, got {path}.")
    same_size = SameSizeUNet(network).eval()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        program = export_graph(same_size, traits.in_channels, same_size.smallest, same_size.steps)
        write_onnx(program, folder / "model.onnx", output="probabilities", metadata=traits.to_texts())
        image = _draw_test_image(traits.in_channels, _test_size(same_size))
        np.save(folder / "test_input.npy", image)
        np.save(folder / "test_output.npy", _probabilities(same_size, image))
        shutil.copy(card.documentation, folder / "README.md")
        with writing(path) as part:
            spec.save_bioimageio_package(_describe(same_size, traits, card, folder), output_path=part)


def _test_size(network: SameSizeUNet) -> list[int]:
    """Choose the least valid size whose picture is large enough to show cells; a depth stays the smallest."""
    sides = [
        least + max(math.ceil((TEST_SIDE - least) / step), 0) * step
        for least, step in zip(network.smallest, network.steps, strict=True)
    ]
    return [*network.smallest[:-2], *sides[-2:]]


def _draw_test_image(channels: int, size: list[int]) -> np.ndarray:
    """Draw cells, the same in each channel and plane: float32 (1, C, [D,] H, W)."""
    picture, _ = draw_cells(seed=0, size=(size[-2], size[-1]))
    return np.array(np.broadcast_to(picture.astype(np.float32), (1, channels, *size)))


def _probabilities(network: SameSizeUNet, image: np.ndarray) -> np.ndarray:
    """Normalise a batch of one image as the bundle does, and score it."""
    lower, upper = PERCENTILES
    normalise = ScaleIntensityRangePercentiles(lower, upper, b_min=0, b_max=1, channel_wise=True)
    with torch.inference_mode():
        return network(torch.as_tensor(normalise(image[0]))[None]).numpy()


def _describe(network: SameSizeUNet, traits: NetworkTraits, card: ModelCard, folder: Path) -> Any:
    """Build the model description, format 0.5."""
    v0_5 = import_extra("bioimageio.spec.model.v0_5", "export")
    nodes = import_extra("bioimageio.spec.common", "export")
    onnx = import_extra("onnx", "export")
    (opset,) = [o.version for o in onnx.load(folder / "model.onnx").opset_import if o.domain == ""]
    addresses = [re.findall(r"https?://\S+", reference)[-1] for reference in card.references]
    return v0_5.ModelDescr(
        name=card.name,
        description=card.description,
        authors=[v0_5.Author(name=name) for name in card.authors],
        license=v0_5.LicenseId(card.licence),
        cite=[v0_5.CiteEntry(text=t, url=nodes.HttpUrl(a)) for t, a in zip(card.references, addresses, strict=True)],
        documentation=nodes.FileDescr(source=folder / "README.md"),
        covers=[] if card.cover is None else [nodes.FileDescr(source=card.cover.resolve())],
        tags=["unet", "pytorch", "cells", "instance-segmentation", f"{network.dims}d"],
        inputs=[_describe_input(v0_5, nodes, network, traits, folder)],
        outputs=[_describe_output(v0_5, nodes, network, card, folder)],
        weights=v0_5.WeightsDescr(
            onnx=v0_5.OnnxWeightsDescr(
                source=folder / "model.onnx", opset_version=opset, comment=_size_of_cells(traits)
            )
        ),
    )


def _describe_input(v0_5: Any, nodes: Any, network: SameSizeUNet, traits: NetworkTraits, folder: Path) -> Any:
    axes = "zyx"[-network.dims :]
    sizes = [
        v0_5.ParameterizedSize(min=least, step=step)
        for least, step in zip(network.smallest, network.steps, strict=True)
    ]
    lower, upper = PERCENTILES
    percentiles = v0_5.ScaleRangeKwargs(axes=[v0_5.AxisId(a) for a in axes], min_percentile=lower, max_percentile=upper)
    return v0_5.InputTensorDescr(
        id=v0_5.TensorId("image"),
        description="Intensities.",
        axes=[
            v0_5.BatchAxis(),
            v0_5.ChannelAxis(channel_names=[f"channel{i}" for i in range(traits.in_channels)]),
            *(v0_5.SpaceInputAxis(id=v0_5.AxisId(a), size=size) for a, size in zip(axes, sizes, strict=True)),
        ],
        preprocessing=[v0_5.ScaleRangeDescr(kwargs=percentiles)],
        test_tensor=nodes.FileDescr(source=folder / "test_input.npy"),
    )


def _describe_output(v0_5: Any, nodes: Any, network: SameSizeUNet, card: ModelCard, folder: Path) -> Any:
    axes = "zyx"[-network.dims :]
    input_id = v0_5.TensorId("image")
    space = []
    for axis, halo in zip(axes, network.halo, strict=True):
        name = v0_5.AxisId(axis)
        size = v0_5.SizeReference(tensor_id=input_id, axis_id=name)
        space.append(v0_5.SpaceOutputAxisWithHalo(id=name, size=size, halo=halo))
    return v0_5.OutputTensorDescr(
        id=v0_5.TensorId("probabilities"),
        description="Probability of each class.",
        axes=[v0_5.BatchAxis(), v0_5.ChannelAxis(channel_names=list(card.classes)), *space],
        data=v0_5.IntervalOrRatioDataDescr(type="float32", range=(0.0, 1.0)),
        test_tensor=nodes.FileDescr(source=folder / "test_output.npy"),
    )


def _size_of_cells(traits: NetworkTraits) -> str:
    """Say how large cells must be: the graph cannot rescale images."""
    diameter = traits.image_scale * traits.cell_diameter
    if math.isnan(diameter):
        return ""
    return f"Rescale images so that the typical cell is {diameter:.0f} pixels across, as in the training."
