"""The packed bundle pushed to a hub and downloaded by version, with MONAI's own commands.

The hub is a stand-in on this machine (`hub.py`); the real one is never asked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, download, push_to_hf_hub
from PIL import Image
from unet_monai.bundle.pack import NAME, pack

from tests.bundle.conftest import REPOSITORY, run_bundle
from tests.bundle.hub import TOKEN, Hub, serve

huggingface_hub = pytest.importorskip(
    "huggingface_hub", reason='NOT RUN: huggingface_hub is not installed: pip install "unet-monai[sharing]"'
)
REPO = f"lab/{NAME}"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packed bundle; the network is untrained."""
    parser = ConfigParser()
    parser.read_config(str(REPOSITORY / "bundle" / "configs" / "inference.json"))
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("dist")
    torch.save(parser.get_parsed_content("network_def").state_dict(), folder / "own.pt")
    pack(str(folder / "own.pt"), str(folder))
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """An empty hub, the only one that huggingface_hub knows, in this process and in those that it starts."""
    with serve() as hub:
        settings = {
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(tmp_path / "hf"),
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        addresses = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", addresses)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        yield hub


def files_of(folder: Path) -> dict[str, bytes]:
    """Read all files of a bundle but what the download keeps for itself."""
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {name: content for name, content in files.items() if not name.startswith(".cache/")}


def other_weights(dist: Path, target: Path) -> Path:
    """Copy the packed bundle with weights that differ."""
    shutil.copytree(dist / NAME, target / NAME)
    path = target / NAME / "models" / "model.pt"
    state = torch.load(path, weights_only=True)
    torch.save({**state, "output_conv.bias": state["output_conv.bias"] + torch.tensor([0.0, 1, 0])}, path)
    return target


def test_each_version_comes_back_as_it_was_pushed(hub: Hub, dist: Path, tmp_path: Path) -> None:
    second = other_weights(dist, tmp_path / "second")
    for version, folder in (("0.1.0", dist), ("0.2.0", second)):
        push_to_hf_hub(repo=REPO, name=NAME, bundle_dir=str(folder), version=version)
    assert files_of(dist / NAME) != files_of(second / NAME), "test invalid"
    for version, folder in (("0.1.0", dist), ("0.2.0", second), (None, second)):
        target = tmp_path / f"downloaded {version}"
        download(NAME, version=version, bundle_dir=target, source="huggingface_hub", repo=REPO)
        assert files_of(target / NAME) == files_of(folder / NAME)


def test_the_hubs_page_shows_the_bundles_documentation(hub: Hub, dist: Path) -> None:
    push_to_hf_hub(repo=REPO, name=NAME, bundle_dir=str(dist))
    files = hub.commits[hub.names[REPO]["main"]]
    head, text = files["README.md"].decode().removeprefix("---\n").split("\n---\n", 1)
    assert "license: apache-2.0" in head.splitlines()
    assert text.encode() == files["docs/README.md"]


def test_a_version_that_was_never_pushed_is_an_error(hub: Hub, dist: Path, tmp_path: Path) -> None:
    push_to_hf_hub(repo=REPO, name=NAME, bundle_dir=str(dist), version="0.1.0")
    with pytest.raises(huggingface_hub.errors.RevisionNotFoundError):
        download(NAME, version="9.9.9", bundle_dir=tmp_path, source="huggingface_hub", repo=REPO)


def test_pushing_needs_the_token(hub: Hub, dist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(huggingface_hub.errors.HfHubHTTPError, match="401"):
        push_to_hf_hub(repo=REPO, name=NAME, bundle_dir=str(dist))
    assert hub.names == {}


def command(cwd: Path, *args: object) -> None:
    words = [sys.executable, "-W", "ignore", "-m", *map(str, args)]
    result = subprocess.run(words, cwd=cwd, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def label_map(bundle: Path, image: Path, output: Path) -> bytes:
    """Run a bundle's inference; an untrained network finds cells by loose thresholds."""
    knobs = ["--threshold", 0.335, "--edge_threshold", 0.66, "--min_size", 3, "--output_dir", output]
    result = run_bundle(bundle, "run", "--config_file", "configs/inference.json", "--input", image, *knobs)
    assert result.returncode == 0, result.stderr
    return (output / image.name).read_bytes()


@pytest.mark.slow
def test_a_downloaded_version_segments_alike_from_the_command_line(
    hub: Hub, dist: Path, cells: Path, tmp_path: Path
) -> None:
    second, image = other_weights(dist, tmp_path / "second"), cells / "images" / "cell 3.png"
    places = ["--repo", REPO, "--name", NAME]
    push = ["fire", "monai.bundle", "push_to_hf_hub", *places, "--bundle_dir", "."]
    command(dist, *push, "--version", "0.1.0")
    command(second, *push, "--version", "0.2.0")
    fetch = ["monai.bundle", "download", *places, "--source", "huggingface_hub", "--bundle_dir", "got"]
    command(tmp_path, *fetch, "--version", "0.1.0")
    expected = label_map(dist / NAME, image, tmp_path / "direct")
    assert label_map(tmp_path / "got" / NAME, image, tmp_path / "downloaded") == expected
    assert len(np.unique(np.asarray(Image.open(tmp_path / "direct" / image.name)))) > 1, "test invalid"
    assert label_map(second / NAME, image, tmp_path / "other") != expected, "test invalid"
