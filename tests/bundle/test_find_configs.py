from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from unet_monai.bundle.configs import find_configs

from tests.bundle.conftest import REPOSITORY


def put(folder: Path) -> str:
    folder.mkdir(parents=True)
    (folder / "train.json").touch()
    return str(folder.resolve())


def test_of_the_repository() -> None:
    assert find_configs() == str(REPOSITORY / "bundle" / "configs")


def test_in_a_pack_beside_it_then_inside_it(tmp_path: Path) -> None:
    package = tmp_path / "unet_monai"
    with pytest.raises(
        FileNotFoundError, match=r"the package must come with its configs, got none around .*unet_monai"
    ):
        find_configs(str(package))
    for folder in (package / "bundle_files", tmp_path / "bundle", tmp_path):
        expected = put(folder / "configs")
        assert find_configs(str(package)) == expected


def test_a_wheel_carries_every_package_and_every_file_of_the_bundle() -> None:
    setuptools = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert setuptools["package-dir"] == {"unet_monai.bundle_files": "bundle"}
    code = {".".join(p.parent.relative_to(REPOSITORY).parts) for p in (REPOSITORY / "unet_monai").rglob("*.py")}
    assert set(setuptools["packages"]) == code | {"unet_monai.bundle_files"}
    bundle = REPOSITORY / "bundle"
    carried = {p for pattern in setuptools["package-data"]["unet_monai.bundle_files"] for p in bundle.glob(pattern)}
    written = {p for name in ("configs", "docs") for p in (bundle / name).rglob("*") if p.is_file()}
    assert carried == written | {bundle / "LICENSE"}
    others = {p for p in (REPOSITORY / "unet_monai").rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    package = REPOSITORY / "unet_monai"
    assert others == {*(package / "pictures").glob("*.jinja"), package / "napari_plugin" / "napari.yaml"}
    assert setuptools["package-data"]["unet_monai.napari_plugin"] == ["napari.yaml"]
