from __future__ import annotations

from pathlib import Path

import pytest
import unet_monai
from unet_monai.bundle import find_bundle_root


def test_packed_bundle_holds_the_package(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "bundle" / "configs").mkdir(parents=True)
    assert find_bundle_root(str(tmp_path / "unet_monai")) == str(tmp_path.resolve())


def test_in_the_repository_it_lies_beside_the_package(tmp_path: Path) -> None:
    (tmp_path / "bundle" / "configs").mkdir(parents=True)
    assert find_bundle_root(str(tmp_path / "unet_monai")) == str(tmp_path.resolve() / "bundle")


@pytest.mark.parametrize("there", [(), ("bundle",), ("configs",)])
def test_neither(tmp_path: Path, there: tuple[str, ...]) -> None:
    for name in there:
        (tmp_path / name).touch() if name == "configs" else (tmp_path / name).mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"no configs/ folder in .*: give the bundle's folder with --bundle_root"
    ):
        find_bundle_root(str(tmp_path / "unet_monai"))


def test_of_the_running_package_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "somewhere" / "unet_monai"
    (tmp_path / "somewhere" / "configs").mkdir(parents=True)
    monkeypatch.setattr(unet_monai, "__path__", [str(package)])
    monkeypatch.chdir(tmp_path)
    assert find_bundle_root() == str((tmp_path / "somewhere").resolve())
