"""Each rule of the model zoo holds for the bundle, and is seen to fail where it is broken."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unet_monai.bundle import zoo_rules
from unet_monai.bundle.zoo_rules import REQUIRED_FILES, broken_rules, necessary_files, sha256

from tests.bundle.conftest import REPOSITORY


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The files that the rules look at, laid out as in a pack."""
    root = tmp_path / "cell_unet_segmentation"
    for name in ("configs", "docs", "LICENSE"):
        source = REPOSITORY / "bundle" / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, root / name)
    for name in ("models/model.pt", "unet_monai/__init__.py"):
        (root / name).parent.mkdir()
        (root / name).write_bytes(b"1")
    return root


def change_json(root: Path, file: str, path: str, value: Any) -> None:
    """Set a nested value, or remove it where the new value is `...`."""
    config = json.loads((root / file).read_text())
    node = config
    *parents, last = path.split("/")
    for key in parents:
        node = node[key]
    assert last in node, "test invalid"
    if value is ...:
        del node[last]
    else:
        node[last] = value
    (root / file).write_text(json.dumps(config))


def change_text(root: Path, file: str, old: str, new: str) -> None:
    text = (root / file).read_text()
    assert old in text, "test invalid"
    (root / file).write_text(text.replace(old, new))


def metadata(path: str, value: Any) -> Callable[[Path], None]:
    return lambda root: change_json(root, "configs/metadata.json", path, value)


def config(file: str, path: str, value: Any = ...) -> Callable[[Path], None]:
    return lambda root: change_json(root, f"configs/{file}", path, value)


def text(file: str, old: str, new: str = "") -> Callable[[Path], None]:
    return lambda root: change_text(root, file, old, new)


def empty(file: str) -> Callable[[Path], None]:
    return lambda root: (root / file).write_text(" \n") and None


def test_the_bundle_breaks_none(bundle: Path) -> None:
    assert broken_rules(bundle) == []


@pytest.mark.parametrize("name", REQUIRED_FILES)
def test_each_necessary_file_is_missed(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    assert broken_rules(bundle) == necessary_files(bundle) == [f"{name} must exist."]


@pytest.mark.parametrize(
    ("rule", "change", "message"),
    [
        ("licences", empty("LICENSE"), r"LICENSE must state a licence, got ' "),
        ("licences", empty("docs/data_license.txt"), r"docs/data_license\.txt must state a licence"),
        ("licences", text("docs/data_license.txt", "CC0 1.0", "TODO"), r"docs/data_license\.txt must state"),
        ("names", metadata("name", ""), r"name in metadata\.json must be filled in, got ''\."),
        ("metadata_texts", metadata("authors", ""), r"authors in metadata\.json must be filled in, got ''\."),
        ("metadata_texts", metadata("authors", " - "), r"authors in metadata\.json must be filled in, got ' - '\."),
        ("metadata_texts", metadata("authors", "Your Name"), r"authors in metadata\.json must be filled in"),
        ("metadata_texts", metadata("authors", ["A", "B"]), r"authors in metadata\.json must be filled in"),
        ("metadata_texts", metadata("intended_use", ...), r"intended_use in .* must be filled in, got None\."),
        ("metadata_texts", metadata("data_source", "tbd"), r"data_source in .* must be filled in, got 'tbd'\."),
        ("metadata_texts", metadata("copyright", ""), r"copyright in .* must be filled in"),
        ("metadata_texts", metadata("schema", "https://x.org/y.json"), r"schema in .* must be https://proj.*20240725"),
        ("version_and_changelog", metadata("version", "0.2.0"), r"changelog .* must have an entry for version 0\.2\.0"),
        ("version_and_changelog", metadata("changelog/0.1.0", ""), r"must have an entry for version 0\.1\.0\."),
        ("version_and_changelog", metadata("changelog", ...), r"must have an entry for version 0\.1\.0\."),
        ("version_and_changelog", metadata("version", "v1"), r"version in .* must have three numbers, got v1\."),
        (
            "exact_versions",
            metadata("pytorch_version", "2.13.0+cpu"),
            r"pytorch .*pip can install, got 2\.13\.0\+cpu\.",
        ),
        ("exact_versions", metadata("required_packages_version/scipy", ">=1.12"), r"scipy .*, got >=1\.12\."),
        ("exact_versions", metadata("numpy_version", ...), r"numpy .* got None\."),
        ("exact_versions", metadata("required_packages_version/tqdm", ""), r"version of tqdm"),
        (
            "network_data_format",
            metadata("network_data_format/inputs/image/num_channels", "1"),
            r"inputs#image#num_channels in metadata\.json must be a <class 'int'>, got '1'\.",
        ),
        ("network_data_format", metadata("network_data_format/outputs/pred", ...), r"outputs#pred#type .* got None\."),
        ("config_keys", config("inference.json", "inferer"), r"inferer must be defined in configs/inference\.json\."),
        ("config_keys", config("inference.json", "output_dir"), r"output_dir must be defined in configs/inference"),
        ("config_keys", config("train.json", "train/trainer/max_epochs"), r"train#trainer#max_epochs must be defined"),
        ("config_keys", config("train.json", "validate/dataset", "@train#dataset"), r"validate#dataset#data must be"),
        ("no_personal_paths", config("train.json", "ckpt_dir", "/home/me/models"), r"train\.json .* got /home/me/mod"),
        ("no_personal_paths", config("paper.json", "tile_size", "$open('~/size')"), r"paper\.json .* got ~/size\."),
        (
            "no_personal_paths",
            config("train.json", "ckpt_dir", "C:\\data"),
            r"train\.json must not name a folder of one",
        ),
        ("no_personal_paths", config("experiments/dic_hela.json", "epochs", "/x"), r"experiments/dic_hela.*, got /x\."),
        ("readme_sections", text("docs/README.md", "### **Tags**"), r"docs/README\.md must have a section 'tags'\."),
        (
            "readme_sections",
            text("docs/README.md", "Segmentation, Instance segmentation", "TODO"),
            r"section 'tags' .* got 'TODO",
        ),
        ("readme_sections", text("docs/README.md", "## **Performance**", "## **Authors**"), r"a section 'performance'"),
    ],
)
def test_a_broken_rule_is_named(bundle: Path, rule: str, change: Callable[[Path], None], message: str) -> None:
    change(bundle)
    assert re.search(message, "\n".join(getattr(zoo_rules, rule)(bundle)))
    assert re.search(message, "\n".join(broken_rules(bundle))), "the rule is not among those that packing checks"


def test_sections_have_an_order(bundle: Path) -> None:
    change_text(bundle, "docs/README.md", "### **Tags**\n\nSegmentation", "### **x**\n\nSegmentation")
    change_text(
        bundle, "docs/README.md", "## **System Configuration**", "### **Tags**\n\na\n\n## **System Configuration**"
    )
    assert broken_rules(bundle) == [
        "the sections of docs/README.md must be in the order authors, tags, model description, data, preprocessing, "
        "performance, system configuration."
    ]


@pytest.mark.parametrize("name", ["cell_unet", "_segmentation", "cell unet_segmentation", "cell_unet_segmentation_v1"])
def test_name_of_the_folder(bundle: Path, name: str) -> None:
    assert broken_rules(bundle.rename(bundle.with_name(name))) == [
        f"the bundle's folder must be named <what>_segmentation, got {name}."
    ]


def test_large_files_are_listed(bundle: Path) -> None:
    weights = bundle / "models" / "model.pt"
    with weights.open("wb") as file:
        file.truncate(25_000_000)
    assert broken_rules(bundle) == []
    with weights.open("ab") as file:
        file.write(b"1")
    entry = {"path": "models/model.pt", "url": "https://example.org/model.pt", "hash_type": "sha256"}
    listing = bundle / "large_files.json"
    for listed, message in (
        ([], "more than 25 MB and must be listed in large_files.json with its https address."),
        ([{**entry, "path": "model.pt", "hash_val": sha256(weights)}], "more than 25 MB and must be listed"),
        ([{**entry, "url": "file:///model.pt", "hash_val": sha256(weights)}], "more than 25 MB and must be listed"),
        ([{**entry, "hash_val": "0"}], "the hash of models/model.pt in large_files.json must be its sha256, got 0."),
        ([entry], "the hash of models/model.pt in large_files.json must be its sha256, got None."),
    ):
        listing.write_text(json.dumps({"large_files": listed}))
        (line,) = broken_rules(bundle)
        assert message in line
    listing.write_text(json.dumps({"large_files": [{**entry, "hash_val": sha256(weights)}]}))
    assert broken_rules(bundle) == []


def test_figures_of_the_documentation_are_those_of_the_metadata() -> None:
    bundle = REPOSITORY / "bundle"
    measures = json.loads((bundle / "configs" / "metadata.json").read_text())["eval_metrics"]
    del measures["data"]
    section = (bundle / "docs" / "README.md").read_text().split("## **Performance**")[1].split("\n## ")[0]
    header, values = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in re.findall(r"^\|[^-].*$", section, re.MULTILINE)
    )
    assert dict(zip(header, map(float, values), strict=True)) == measures
    # The shipped weights are those of this recorded training.
    row = json.loads((REPOSITORY / "docs" / "experiments" / "headline-nuclei_dsb2018-ours-0.json").read_text())
    assert {name: round(row["measures"]["identity"][name], 3) for name in measures} == measures
