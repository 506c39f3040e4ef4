"""The rules of MONAI's model zoo, each a small function that names what breaks it.

The zoo's contribution guide is https://github.com/Project-MONAI/model-zoo/blob/dev/CONTRIBUTING.md, and its checks are
``ci/verify_bundle.py`` beside it. What needs a network to be built is left to MONAI's own checks
(``verify_metadata``, ``verify_net_in_out``, ``check_properties``), which the tests run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SCHEMA = "https://project-monai.github.io/schema/meta_schema_20240725.json"
LARGE_FILES = "large_files.json"
LARGEST_FILE = 25 * 10**6
REQUIRED_FILES = (
    "LICENSE",
    "configs/metadata.json",
    "configs/inference.json",
    "configs/train.json",
    "configs/logging.conf",
    "docs/README.md",
    "docs/data_license.txt",
    "models/model.pt",
    "unet_monai/__init__.py",
)
TEXTS = (
    *("schema", "version", "monai_version", "pytorch_version", "numpy_version", "task", "description"),
    *("authors", "copyright", "data_source", "data_type", "image_classes", "label_classes", "pred_classes"),
    "intended_use",
)
SECTIONS = ("authors", "tags", "model description", "data", "preprocessing", "performance", "system configuration")
CONFIG_KEYS = {
    "inference.json": ("bundle_root", "device", "network_def", "inferer", "output_dir"),
    "train.json": (
        *("bundle_root", "device", "dataset_dir", "output_dir", "val_interval"),
        *("train#trainer#max_epochs", "train#dataset#data", "train#handlers", "train#preprocessing", "train#inferer"),
        *("validate#evaluator", "validate#dataset#data", "validate#handlers", "validate#preprocessing"),
        *("validate#postprocessing", "validate#inferer", "validate#key_metric"),
    ),
}
PLACEHOLDER = re.compile(r"\b(todo|tbd|fixme|xxx|your[ _]name|firstname\d?|lastname\d?|lorem ipsum)\b", re.I)


def necessary_files(root: Path) -> list[str]:
    """A bundle holds its metadata, licences, configs, documentation, weights and code.

    Source: the guide, "Preferred Files and Keys", "License Format" and "Readme Format"; ``verify_bundle_directory``.
    The code lies in the bundle because the zoo and MONAI Label put nothing but the bundle on Python's path.
    """
    return [f"{name} must exist." for name in REQUIRED_FILES if not (root / name).is_file()]


def licences(root: Path) -> list[str]:
    """The licence of the bundle, and that of the data behind the weights, are written out.

    Source: the guide, "License Format".
    """
    return [
        f"{name} must state a licence, got {text[:40]!r}."
        for name in ("LICENSE", "docs/data_license.txt")
        if not _is_filled_in(text := (root / name).read_text(encoding="utf-8"))
        or not re.search("licen[cs]e", text, re.I)
    ]


def names(root: Path) -> list[str]:
    """The folder's name ends with the task, and the metadata holds a name to show.

    Source: the guide, "Model naming". MONAI Label tells the kind of a model by the folder's name.
    """
    metadata = _metadata(root)
    broken = []
    if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_]*_segmentation", root.name):
        broken.append(f"the bundle's folder must be named <what>_segmentation, got {root.name}.")
    if not _is_filled_in(metadata.get("name")):
        broken.append(f"name in metadata.json must be filled in, got {metadata.get('name')!r}.")
    return broken


def metadata_texts(root: Path) -> list[str]:
    """Authors, intended use, source of the data and the other texts are there, and no placeholders.

    Source: the schema of 2024-07-25, which asks for texts; that they say something is our own rule.
    """
    metadata = _metadata(root)
    broken = [
        f"{key} in metadata.json must be filled in, got {metadata.get(key)!r}."
        for key in TEXTS
        if not _is_filled_in(metadata.get(key))
    ]
    if metadata.get("schema") != SCHEMA:
        broken.append(f"schema in metadata.json must be {SCHEMA}, got {metadata.get('schema')}.")
    return broken


def version_and_changelog(root: Path) -> list[str]:
    """The version is a number of three parts, and the changelog says what is new in it.

    Source: the guide, "Necessary tests"; ``verify_version_changes``.
    """
    metadata = _metadata(root)
    version = str(metadata.get("version"))
    broken = []
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        broken.append(f"version in metadata.json must have three numbers, got {version}.")
    if not _is_filled_in(metadata.get("changelog", {}).get(version)):
        broken.append(f"changelog in metadata.json must have an entry for version {version}.")
    return broken


def exact_versions(root: Path) -> list[str]:
    """Each package has one version, such as pip finds in an index: no range, and no local build such as ``+cpu``.

    Source: ``ci/get_bundle_requirements.py``, which installs ``name==version``.
    """
    metadata = _metadata(root)
    versions = {key: metadata.get(f"{key}_version") for key in ("monai", "pytorch", "numpy")}
    versions |= {**metadata.get("required_packages_version", {}), **metadata.get("optional_packages_version", {})}
    return [
        f"the version of {name} in metadata.json must be one that pip can install, got {version}."
        for name, version in versions.items()
        if not re.fullmatch(r"\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?", str(version))
    ]


def network_data_format(root: Path) -> list[str]:
    """The metadata describes each input and output of the network.

    Source: the schema of 2024-07-25; MONAI Label also wants the names ``image`` and ``pred``.
    """
    kinds: dict[str, type | tuple[type, ...]] = {"type": str, "format": str, "num_channels": int, "dtype": str}
    kinds |= {"spatial_shape": list, "value_range": list, "channel_def": dict}
    tensors = _metadata(root).get("network_data_format", {})
    broken = []
    for group, name in (("inputs", "image"), ("outputs", "pred"), ("post_processed_outputs", "pred")):
        tensor = tensors.get(group, {}).get(name, {})
        broken += [
            f"network_data_format#{group}#{name}#{key} in metadata.json must be a {kind}, got {tensor.get(key)!r}."
            for key, kind in kinds.items()
            if not isinstance(tensor.get(key), kind)
        ]
    return broken


def config_keys(root: Path) -> list[str]:
    """The configs have the names that other programs look for.

    Source: the guide, "Preferred Files and Keys".
    """
    return [
        f"{key} must be defined in configs/{name}."
        for name, keys in CONFIG_KEYS.items()
        for key in keys
        if not _holds(json.loads((root / "configs" / name).read_text(encoding="utf-8")), key.split("#"))
    ]


def no_personal_paths(root: Path) -> list[str]:
    """No config names a folder of one computer.

    Source: the guide, "Preparing a bundle".
    """
    return [
        f"{path.relative_to(root).as_posix()} must not name a folder of one computer, got {found[1]}."
        for path in sorted((root / "configs").rglob("*.json"))
        # What is added to another path, as in "$@bundle_root + '/models'", may begin with a slash.
        for found in re.finditer(r"""(?<!\+ )["']((~?/|[A-Za-z]:\\)[^"']*)["']""", path.read_text(encoding="utf-8"))
    ]


def readme_sections(root: Path) -> list[str]:
    """The documentation has the sections of the zoo's template, in its order, and none of them is empty.

    Source: https://github.com/Project-MONAI/model-zoo/blob/dev/docs/readme_template.md
    """
    text = (root / "docs" / "README.md").read_text(encoding="utf-8")
    parts = re.split(r"^#+ (.*)$", text, flags=re.MULTILINE)[1:]
    headings = [heading.strip("* ").lower() for heading in parts[::2]]
    contents = dict(zip(headings, parts[1::2], strict=True))
    broken = [f"docs/README.md must have a section {name!r}." for name in SECTIONS if name not in headings]
    broken += [
        f"section {name!r} of docs/README.md must be filled in, got {contents[name].strip()[:40]!r}."
        for name in SECTIONS
        if name in contents and not _is_filled_in(contents[name])
    ]
    if not broken and [name for name in headings if name in SECTIONS] != list(SECTIONS):
        broken.append(f"the sections of docs/README.md must be in the order {', '.join(SECTIONS)}.")
    return broken


def large_files(root: Path) -> list[str]:
    """A file of more than 25 MB is listed with the address that it can be had from, and with its hash.

    Source: the guide, "Model storage" and "Prepare a config file for large files".
    """
    listing = root / LARGE_FILES
    entries = json.loads(listing.read_text(encoding="utf-8"))["large_files"] if listing.is_file() else []
    listed = {entry["path"]: entry for entry in entries}
    broken = []
    for path in sorted(path for path in root.rglob("*") if path.is_file() and path.stat().st_size > LARGEST_FILE):
        name = path.relative_to(root).as_posix()
        entry = listed.get(name, {})
        if not str(entry.get("url")).startswith("https://"):
            broken.append(f"{name} has more than 25 MB and must be listed in {LARGE_FILES} with its https address.")
        elif (entry.get("hash_type"), entry.get("hash_val")) != ("sha256", sha256(path)):
            broken.append(f"the hash of {name} in {LARGE_FILES} must be its sha256, got {entry.get('hash_val')}.")
    return broken


RULES: tuple[Callable[[Path], list[str]], ...] = (
    licences,
    names,
    metadata_texts,
    version_and_changelog,
    exact_versions,
    network_data_format,
    config_keys,
    no_personal_paths,
    readme_sections,
    large_files,
)


def broken_rules(root: Path) -> list[str]:
    """List what keeps a packed bundle from the zoo, one line each; of a bundle that lacks files, only these."""
    return necessary_files(root) or [line for rule in RULES for line in rule(root)]


def sha256(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _metadata(root: Path) -> dict[str, Any]:
    return json.loads((root / "configs" / "metadata.json").read_text(encoding="utf-8"))


def _is_filled_in(text: Any) -> bool:
    """Whether it is a text with a word in it, and without a placeholder."""
    return isinstance(text, str) and bool(re.search(r"\w", text)) and not PLACEHOLDER.search(text)


def _holds(config: Any, path: list[str]) -> bool:
    """Whether the config has the nested key."""
    if not path:
        return True
    return isinstance(config, Mapping) and path[0] in config and _holds(config[path[0]], path[1:])
