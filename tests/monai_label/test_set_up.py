from __future__ import annotations

import importlib
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from tests.bundle.conftest import REPOSITORY


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    monkeypatch.syspath_prepend(str(REPOSITORY / "monai_label"))
    return importlib.import_module("set_up"), importlib.import_module("start")


def test_an_environment_of_the_same_requirements_is_kept(scripts, tmp_path: Path, capsys) -> None:
    set_up, _ = scripts
    (tmp_path / "requirements.txt").write_bytes((REPOSITORY / "monai_label" / "requirements.txt").read_bytes())
    set_up.install(tmp_path, "no such python")
    assert capsys.readouterr().out == f"{tmp_path} is there already\n"


def test_another_folder_is_no_environment(scripts, tmp_path: Path) -> None:
    set_up, _ = scripts
    (tmp_path / "requirements.txt").write_text("numpy==2.0.0\n")
    with pytest.raises(FileExistsError, match=rf"venv must be a folder that does not exist yet, got {tmp_path}\."):
        set_up.install(tmp_path, "no such python")


def test_another_python_is_refused(scripts, tmp_path: Path) -> None:
    set_up, _ = scripts
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 3.14\n")
    python.chmod(0o755)
    with pytest.raises(ValueError, match=rf"python must be .* of version 3\.11, got {python} of version 3\.14\."):
        set_up.install(tmp_path / "venv", str(python))
    assert not (tmp_path / "venv").exists()


def write_wheel(folder: Path, name: str) -> None:
    """Write a package that holds one empty module."""
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the server's environment is made by Python 3.11")
def test_from_a_wheelhouse_no_index_is_asked(scripts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up, _ = scripts
    for folder in ("here", "here/stubs", "wheelhouse"):
        (tmp_path / folder).mkdir()
    (tmp_path / "here" / "requirements.txt").write_text("required==1.0\n")
    (tmp_path / "here" / "stubs" / "stub.py").touch()
    write_wheel(tmp_path / "wheelhouse", "required")
    monkeypatch.setattr(set_up, "HERE", tmp_path / "here")
    monkeypatch.setattr(set_up, "MONAI_LABEL", "label==1.0")
    index = tmp_path / "index"
    for name in ("required", "label"):
        (index / name).mkdir(parents=True)
        write_wheel(index / name, name)
        (index / name / "index.html").write_text(f'<a href="{name}-1.0-py3-none-any.whl"></a>')
    monkeypatch.setenv("PIP_INDEX_URL", index.as_uri())
    assert subprocess.run([sys.executable, "-m", "pip", "download", "-q", "-d", tmp_path, "label"]).returncode == 0
    with pytest.raises(subprocess.CalledProcessError):
        set_up.install(tmp_path / "incomplete", sys.executable, str(tmp_path / "wheelhouse"))
    write_wheel(tmp_path / "wheelhouse", "label")
    set_up.install(tmp_path / "venv", sys.executable, str(tmp_path / "wheelhouse"))
    found = [str(set_up.interpreter(tmp_path / "venv")), "-c", "import label, required, stub"]
    assert subprocess.run(found).returncode == 0


def test_the_app_is_the_servers_file_and_the_packed_bundle(scripts, tmp_path: Path) -> None:
    set_up, _ = scripts
    set_up.build_app(tmp_path / "app", str(REPOSITORY / "bundle" / "weights" / "nuclei.pt"))
    bundle = tmp_path / "app" / "model" / "cell_unet_segmentation"
    files = ["main.py", "model", "polygons.py", "server.py", "uncertain_borders.py"]
    assert sorted(path.name for path in (tmp_path / "app").iterdir()) == files
    assert {"configs", "docs", "models", "unet_monai"} <= {path.name for path in bundle.iterdir()}
    assert [path.name for path in (bundle / "models").iterdir()] == ["model.pt"]
    with pytest.raises(FileExistsError, match=rf"app must be a folder that does not exist yet, got {tmp_path}/app\."):
        set_up.build_app(tmp_path / "app", "unused")


def test_says_who_reaches_the_server(scripts) -> None:
    _, start = scripts
    assert start.who_reaches("127.0.0.1", 8000).startswith("127.0.0.1 is this machine only.")
    assert start.who_reaches("::1", 8000).startswith("::1 is this machine only.")
    opened = start.who_reaches("0.0.0.0", 8010)
    assert opened.startswith("0.0.0.0 is open to others. The server asks for no password")
    assert opened.endswith("ssh -L 8010:127.0.0.1:8010 this-machine")


def test_an_address_is_a_number(scripts) -> None:
    _, start = scripts
    with pytest.raises(ValueError, match="'everywhere' does not appear to be an IPv4 or IPv6 address"):
        start.who_reaches("everywhere", 8000)


def test_starting_needs_the_environment(scripts, tmp_path: Path) -> None:
    _, start = scripts
    with pytest.raises(FileNotFoundError, match=rf"venv must be .* that set_up.py made, got {tmp_path}\."):
        start.main(["--venv", str(tmp_path), "--studies", str(tmp_path)])
