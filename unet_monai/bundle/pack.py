"""Pack the bundle for sharing: one folder and one zip that need nothing else of this repository.

    python -m unet_monai.bundle.pack --weights bundle/models/model.pt --output dist

The zip is named as the model zoo names its own, ``cell_unet_segmentation_v<version>.zip``, and unpacks into the folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import unet_monai
from monai.bundle import ConfigParser
from unet_monai.bundle.configs import find_configs
from unet_monai.bundle.zoo_rules import LARGE_FILES, broken_rules, sha256

NAME = "cell_unet_segmentation"
HASHES = "SHA256SUMS"


def pack(weights: str, output: str, *, weights_url: str | None = None) -> Path:
    """Write ``cell_unet_segmentation/`` and its zip: configs, documentation, licences, package, weights and hashes.

    The same files give the same zip, byte for byte: entries are sorted, stored as they are, and all have one date and
    one mode. In the folder, ``sha256sum --check SHA256SUMS`` finds what was changed since.

    Args:
        weights: file of the network's weights, such as ``bundle/models/model.pt``; becomes ``models/model.pt``.
        output: folder to write to.
        weights_url: https address of the weights, which the zoo wants where they are larger than 25 MB. They are in the
            zip in any case.

    Returns:
        The path of the zip.

    Raises:
        FileNotFoundError: when there are no weights.
        FileExistsError: when the folder or the zip is there already.
        ValueError: when the weights do not fit the network of ``inference.json``, or the bundle breaks a rule of the
            zoo or holds an empty text, say of its authors. Nothing is written then.
    """
    if not Path(weights).is_file():
        raise FileNotFoundError(f"weights must be an existing file, got {weights}.")
    configs = Path(find_configs())
    _check_weights(weights, configs / "inference.json")
    version = json.loads((configs / "metadata.json").read_text(encoding="utf-8")).get("version")
    folder, archive = Path(output) / NAME, Path(output) / f"{NAME}_v{version}.zip"
    for path in (folder, archive):
        if path.exists():
            raise FileExistsError(f"output must not hold {path.name} yet, got {path}.")
    Path(output).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output) as temporary:
        staged = Path(temporary) / NAME
        _copy_sources(configs.parent, staged)
        _copy_weights(weights, staged, weights_url)
        broken = broken_rules(staged)
        if broken:
            raise ValueError("the bundle must follow the rules of the model zoo, got\n" + "\n".join(broken))
        hashes = [f"{sha256(path)}  {name}\n" for name, path in _files(staged)]
        (staged / HASHES).write_text("".join(hashes), encoding="utf-8", newline="\n")
        write_zip(staged, Path(temporary) / archive.name)
        staged.rename(folder)
        (Path(temporary) / archive.name).rename(archive)
    return archive


def write_zip(folder: Path, archive: Path) -> None:
    """Write a folder into a zip whose bytes depend on the names and contents of its files only.

    Files are stored, not compressed: weights would hardly shrink, and compressed bytes differ from one version of zlib
    to the next.
    """
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for name, path in _files(folder):
            entry = zipfile.ZipInfo(f"{folder.name}/{name}", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, also when packed on Windows
            entry.external_attr = 0o100644 << 16
            file.writestr(entry, path.read_bytes())


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line, pack, and say what was written."""
    parser = argparse.ArgumentParser(description="Pack the bundle for sharing.")
    parser.add_argument("--weights", required=True, help="file of the weights, such as bundle/models/model.pt")
    parser.add_argument("--output", default="dist", help="folder to write to (dist)")
    parser.add_argument("--weights_url", help="https address of the weights, where they are larger than 25 MB")
    args = parser.parse_args(words)
    archive = pack(args.weights, args.output, weights_url=args.weights_url)
    print(f"packed {archive.parent / NAME} and {archive}\nsha256 of the zip: {sha256(archive)}")


def _check_weights(weights: str, config: Path) -> None:
    """Load the weights into the network that inference builds."""
    parser = ConfigParser()
    parser.read_config(str(config))
    network = parser.get_parsed_content("network_def")
    try:
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"weights must fit network_def of {config.name}, got {weights}.") from error


def _copy_sources(bundle: Path, target: Path) -> None:
    """Copy what is written by hand: configs, documentation, licence and the package; nothing that a run left behind."""
    package = Path(unet_monai.__path__[0])
    # The configs of an installed wheel lie inside the package; the pack has them at its own root.
    left_out = shutil.ignore_patterns("__pycache__", ".*", "bundle_files")
    shutil.copytree(package, target / "unet_monai", ignore=left_out)
    for name in ("configs", "docs"):
        shutil.copytree(bundle / name, target / name, ignore=left_out)
    shutil.copy(bundle / "LICENSE", target)


def _copy_weights(weights: str, target: Path, url: str | None) -> None:
    """Copy the weights, and list where else they can be had."""
    path = target / "models" / "model.pt"
    path.parent.mkdir()
    shutil.copy(weights, path)
    if url is not None:
        entry = {"path": "models/model.pt", "url": url, "hash_val": sha256(path), "hash_type": "sha256"}
        text = json.dumps({"large_files": [entry]}, indent=4)
        (target / LARGE_FILES).write_text(text + "\n", encoding="utf-8", newline="\n")


def _files(folder: Path) -> Iterable[tuple[str, Path]]:
    """List the files of a folder by their names in it, sorted, with slashes."""
    return sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
