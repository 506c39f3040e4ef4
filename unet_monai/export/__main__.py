"""Write a network for programs that do not have this package.

python -m unet_monai.export onnx --weights bundle/weights/nuclei.pt --output nuclei.onnx
python -m unet_monai.export torch --weights bundle/weights/nuclei.pt --output nuclei.pt2
python -m unet_monai.export bioimageio --weights bundle/weights/nuclei.pt --output nuclei_bioimageio.zip
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from unet_monai.bundle.configs import find_configs
from unet_monai.export.bioimageio import save_bioimageio
from unet_monai.export.graphs import save_onnx, save_torch_program
from unet_monai.export.model_card import read_model_card
from unet_monai.networks import ValidUNet

CARD = {
    "name": "name of the model (that of metadata.json)",
    "authors": "names, with a semicolon between (those of metadata.json)",
    "license": "SPDX identifier of the licence (Apache-2.0)",
    "documentation": "Markdown file (the bundle's docs/README.md)",
    "cover": "picture, 1:1 or 2:1 (drawn of the test image and its result)",
}


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line, export, and say what was written; an error is one line."""
    parser = argparse.ArgumentParser(prog="python -m unet_monai.export", description=__doc__.splitlines()[0])
    formats = parser.add_subparsers(dest="format", required=True)
    for name, what in (
        ("onnx", "the plain network as ONNX"),
        ("torch", "the plain network as torch.export writes it"),
        ("bioimageio", "a package for bioimage.io, whose graph mirrors and crops by itself"),
    ):
        options = formats.add_parser(name, help=what, description=what)
        options.add_argument("--weights", required=True, help="file of the weights, such as bundle/models/model.pt")
        options.add_argument("--output", required=True, help="file to write")
    for name, what in CARD.items():
        options.add_argument(f"--{name}", help=what)
    args = parser.parse_args(words)
    try:
        _export(args)
    except (ModuleNotFoundError, FileNotFoundError, FileExistsError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    print(f"wrote {args.output}, {Path(args.output).stat().st_size / 1e6:.1f} MB")


def _export(args: argparse.Namespace) -> None:
    """Do what the command line says."""
    if not Path(args.weights).is_file():
        raise FileNotFoundError(f"weights must be an existing file, got {args.weights}.")
    network = ValidUNet.from_state_dict(torch.load(args.weights, map_location="cpu", weights_only=True))
    if args.format == "onnx":
        save_onnx(network, args.output)
    elif args.format == "torch":
        save_torch_program(network, args.output)
    else:
        card = read_model_card(Path(find_configs()), {name: getattr(args, name) for name in CARD})
        save_bioimageio(network, Path(args.output), card)


if __name__ == "__main__":
    main()
