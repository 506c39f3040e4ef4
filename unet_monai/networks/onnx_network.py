"""An exported network in the place of the one it was made of."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import torch
from torch import nn
from unet_monai.extras import import_extra
from unet_monai.networks.traits import NetworkTraits


class OnnxNetwork(nn.Module):
    """Score tiles with ONNX Runtime, from a file that ``python -m unet_monai.export onnx`` wrote.

    It has the attributes of a :class:`ValidUNet` that the inferers ask for, and no parameters. It computes with as many
    threads as torch does when it is made.

    Args:
        path: the ONNX file.
        providers: what ONNX Runtime may compute on, the first choice first. A GPU needs ``"CUDAExecutionProvider"`` and
            the package ``onnxruntime-gpu``.

    Attributes: those of :class:`NetworkTraits`, as the file tells them.

    Raises:
        ModuleNotFoundError: when ONNX Runtime is not installed.
        FileNotFoundError: when there is no such file.
        ValueError: when a provider is not there, or the file was written by another program.
    """

    def __init__(self, path: str | PathLike[str], providers: Sequence[str] = ("CPUExecutionProvider",)) -> None:
        super().__init__()
        runtime = import_extra("onnxruntime", "export")
        if not Path(path).is_file():
            raise FileNotFoundError(f"path must be an existing ONNX file, got {path}.")
        available = runtime.get_available_providers()
        if not set(providers) <= set(available):
            raise ValueError(f"providers must be among {', '.join(available)}, got {', '.join(providers)}.")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = runtime.InferenceSession(str(path), options, providers=list(providers))
        traits = NetworkTraits.from_texts(self.session.get_modelmeta().custom_metadata_map)
        vars(self).update(traits._asdict())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the class scores (logits) of the tile's centre.

        Args:
            x: tiles (B, in_channels, *S), float, of a size that the poolings fit.

        Returns:
            Scores (B, out_channels, *S - 2 * border), float32, on the device of ``x``.
        """
        (tiles,) = self.session.get_inputs()
        (scores,) = self.session.run(None, {tiles.name: x.detach().cpu().float().numpy()})
        return torch.from_numpy(scores).to(x.device)
