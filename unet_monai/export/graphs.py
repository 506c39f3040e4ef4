"""Write a network as a graph that runs without this package: ONNX, and torch's own exported program."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from unet_monai.data.writing import writing
from unet_monai.extras import import_extra
from unet_monai.networks import ValidUNet
from unet_monai.networks.tile_shapes import covering_output_size
from unet_monai.networks.traits import NetworkTraits

# Folding of constants stops at small tensors by default; folded, batch normalisation is part of the convolutions.
LARGEST_FOLDED = 2**31


def save_torch_program(network: ValidUNet, path: str | PathLike[str]) -> None:
    """Write a network with ``torch.export.save``; read it with ``torch.export.load``.

    It takes any number of tiles, of any size that the poolings fit, and refuses others. Its ``extra_files`` hold the
    texts of :class:`NetworkTraits`.

    Args:
        network: trained network, on the CPU; it is put into evaluation mode.
        path: file to write, ``.pt2``.
    """
    program = export_tiles(network)
    in_memory = io.BytesIO()  # torch's writer aborts the process after an error of the file system
    torch.export.save(program, in_memory, extra_files=NetworkTraits.of(network).to_texts())
    with writing(Path(path)) as part:
        part.write_bytes(in_memory.getbuffer())


def save_onnx(network: ValidUNet, path: str | PathLike[str]) -> None:
    """Write a network as ONNX: input ``image`` (B, C, *S), output ``scores`` (B, K, *S - 2 * border), float32.

    It takes any number of tiles, of any size that the poolings fit. Its ``metadata_props`` hold the texts of
    :class:`NetworkTraits`, from which ``unet_monai.networks.OnnxNetwork`` reads them.

    Args:
        network: trained network, on the CPU; it is put into evaluation mode.
        path: file to write.

    Raises:
        ModuleNotFoundError: when the extra ``export`` is not installed.
    """
    write_onnx(export_tiles(network), path, output="scores", metadata=NetworkTraits.of(network).to_texts())


def export_tiles(network: ValidUNet) -> ExportedProgram:
    """Trace a network for tiles of any number and any valid size.

    A side n fits the poolings when n modulo ``step`` is that of the border: n = step * k + border % step.
    """
    steps = [2**p for p in network.poolings]
    smallest = [covering_output_size(1, b, s) + 2 * b for b, s in zip(network.border, steps, strict=True)]
    return export_graph(network, network.in_channels, smallest, steps)


def export_graph(module: nn.Module, channels: int, smallest: Sequence[int], steps: Sequence[int]) -> ExportedProgram:
    """Trace a module for inputs (B, channels, *S) with any B, and any S of ``smallest + n * steps``, n >= 0.

    Args:
        module: what to trace; it is put into evaluation mode.
        channels: channels of its input.
        smallest: least size along each axis.
        steps: from one size to the next, along each axis.

    Example:
        >>> program = export_graph(nn.Conv2d(1, 2, 3), 1, smallest=(4, 4), steps=(4, 2))
        >>> program.module()(torch.zeros(3, 1, 12, 6)).shape
        torch.Size([3, 2, 10, 4])
    """
    # Traced with all sizes different, and none of them 1, which torch would take for fixed.
    sides = [n + s * (2 + axis) for axis, (n, s) in enumerate(zip(smallest, steps, strict=True))]
    sizes: dict[int, Any] = {0: Dim("batch")}
    for axis, (least, step) in enumerate(zip(smallest, steps, strict=True)):
        sizes[2 + axis] = step * Dim(f"k{axis}") + least % step if step > 1 else Dim.AUTO
    with torch.no_grad():
        example = torch.zeros(2, channels, *sides)
        return torch.export.export(module.eval(), (example,), dynamic_shapes=(sizes,), strict=False)


def write_onnx(
    program: ExportedProgram, path: str | PathLike[str], *, output: str, metadata: Mapping[str, str]
) -> None:
    """Write a traced module with the input ``image`` as ONNX, constants folded, weights inside the file.

    Args:
        program: of :func:`export_graph`.
        path: file to write.
        output: name of its output.
        metadata: texts for the file's ``metadata_props``.

    Raises:
        ModuleNotFoundError: when the extra ``export`` is not installed.
    """
    import_extra("onnx", "export")
    optimizer = import_extra("onnxscript.optimizer", "export")
    # It lists the operators of torchvision that it does without.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    graph = torch.onnx.export(
        program, (), dynamo=True, input_names=["image"], output_names=[output], optimize=False, verbose=False
    )
    graph = cast(torch.onnx.ONNXProgram, graph)  # None comes from the older exporter only
    optimizer.optimize(graph.model, input_size_limit=LARGEST_FOLDED, output_size_limit=LARGEST_FOLDED)
    graph.model.metadata_props.update(metadata)
    with writing(Path(path)) as part:
        graph.save(part)
