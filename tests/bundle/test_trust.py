"""Files of strangers: weights that hold code are refused, archives stay in their folder, downloads are hashed."""

from __future__ import annotations

import ast
import json
import os
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.apps import extractall
from monai.apps.utils import HashCheckError
from monai.bundle import ConfigWorkflow, download_large_files
from monai.handlers import CheckpointLoader
from PIL import Image
from unet_monai import segment
from unet_monai.bundle import find_weights
from unet_monai.data import draw_cells
from unet_monai.export.__main__ import main as export
from unet_monai.networks import ValidUNet, load_pretrained

from tests.bundle.conftest import REPOSITORY
from tests.bundle.test_faults import CELL as CELL_LABEL
from tests.bundle.test_faults import CONFIGS, FEATURES, cause_of, infer, pairs, train

LINE = r"{name} must be a file of weights such as model\.pt, got {path} \(UnpicklingError\)\."


class Program:
    """What Python's pickle lets a file do when it is opened: run a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle with one image."""
    (tmp_path / "in").mkdir()
    Image.fromarray(draw_cells(0, (48, 56))[0]).save(tmp_path / "in" / "a.png")
    return tmp_path


def write_program(path: Path) -> Path:
    """Write weights that would make a folder beside them; return that folder's path."""
    marker = path.with_name("it ran")
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = ValidUNet(out_channels=3, features=FEATURES, norm="batch").state_dict()
    torch.save({**weights, "network": weights, "program": Program(marker)}, path)
    return marker


def test_the_program_is_one(tmp_path: Path) -> None:
    marker = write_program(tmp_path / "model.pt")
    torch.load(tmp_path / "model.pt", weights_only=False)
    assert marker.is_dir(), "test invalid"


@pytest.mark.parametrize("setting", ["resume", "pretrained"])
def test_training_runs_no_program(tmp_path: Path, setting: str) -> None:
    path = tmp_path / ("output/last.pt" if setting == "resume" else "given.pt")
    marker = write_program(path)
    pairs(tmp_path, CELL_LABEL, CELL_LABEL)
    value = True if setting == "resume" else str(path)
    line = cause_of(lambda: train(tmp_path, validation=0.5, **{setting: value}))
    name = "training to resume" if setting == "resume" else "pretrained"
    assert re.fullmatch(LINE.format(name=name, path=path), line)
    assert not marker.exists()
    assert not (tmp_path / "models" / "model.pt").exists()


@pytest.mark.parametrize("given", [True, False])
def test_inference_runs_no_program(folder: Path, given: bool) -> None:
    path = folder / ("given.pt" if given else "models/model.pt")
    marker = write_program(path)
    line = cause_of(lambda: infer(folder, **({"checkpoint": str(path)} if given else {})))
    assert re.fullmatch(LINE.format(name="checkpoint", path=path), line)
    assert not marker.exists()
    assert not list((folder / "out").glob("*"))


def test_evaluation_runs_no_program(tmp_path: Path) -> None:
    marker = write_program(tmp_path / "models" / "model.pt")
    pairs(tmp_path, CELL_LABEL, CELL_LABEL)

    def evaluate() -> None:
        settings = {"bundle_root": str(tmp_path), "network_def#features": FEATURES, "device": "cpu"}
        files = [str(CONFIGS / name) for name in ("train.json", "evaluate.json")]
        workflow = ConfigWorkflow(files, logging_file=False, dataset_dir=str(tmp_path), validation=0.5, **settings)
        workflow.initialize()
        workflow.run()

    path = tmp_path / "models" / "model.pt"
    assert re.fullmatch(LINE.format(name="checkpoint", path=path), cause_of(evaluate))
    assert not marker.exists()


def test_no_other_door_runs_a_program(folder: Path) -> None:
    """Neither the Python functions, nor the loader of MONAI that the configs use, nor the export."""
    path = folder / "model.pt"
    marker = write_program(path)
    network = ValidUNet(out_channels=3, features=FEATURES, norm="batch")
    loader = CheckpointLoader(str(path), {"model": network})
    calls: dict[str, Callable[[], Any]] = {
        "find_weights": lambda: find_weights(str(folder), str(path), network=network),
        "load_pretrained": lambda: load_pretrained(network, str(path)),
        "segment": lambda: segment(torch.zeros(20, 20).numpy(), path),
        "loader": lambda: loader(None),
        "export": lambda: export(["onnx", "--weights", str(path), "--output", str(folder / "a.onnx")]),
    }
    for name, call in calls.items():
        with pytest.raises(Exception, match=r"(?i)weights"):
            call()
        assert not marker.exists(), name


def sources() -> list[Path]:
    return [path for name in ("unet_monai", "monai_label") for path in (REPOSITORY / name).rglob("*.py")]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_load_is_of_weights_only_and_nothing_is_fetched_or_unpacked(path: Path) -> None:
    """What a name stands for is not looked up: none of these names is used for anything else here."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in ("pickle.load", "pickle.loads", "eval", "exec", "os.system"), called
        assert called.rpartition(".")[2] not in ("extractall", "unpack_archive", "urlopen", "urlretrieve"), called
        if called in ("torch.load", "load"):
            only = [word.value for word in node.keywords if word.arg == "weights_only"]
            assert len(only) == 1, ast.unparse(node)
            assert ast.literal_eval(only[0]) is True
        if called == "np.load":
            assert all(word.arg != "allow_pickle" for word in node.keywords), ast.unparse(node)


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("member", ["../outside.txt", "/outside.txt", "bundle/../../outside.txt"])
def test_archives_stay_in_their_folder(tmp_path: Path, kind: str, member: str) -> None:
    """Those of MONAI's own commands, by which a packed bundle is downloaded and unpacked."""
    (tmp_path / "text").write_text("hello")
    archive = tmp_path / f"bundle.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            file.write(tmp_path / "text", "placeholder")
            file.filelist[0].filename = member
    else:
        with tarfile.open(archive, "w") as file:
            info = file.gettarinfo(tmp_path / "text", member)
            info.name = member
            file.addfile(info)
    with pytest.raises(ValueError, match=r"(?i)unsafe path"):
        extractall(archive, tmp_path / "inside" / "folder", has_base=False)
    assert not list(tmp_path.rglob("outside.txt"))


def test_large_files_are_checked_against_their_hash(tmp_path: Path) -> None:
    """A pack lists weights above 25 MB with address and sha256, see test_pack; this is who reads that list."""
    (tmp_path / "there.pt").write_bytes(b"other weights")
    (tmp_path / "models").mkdir()
    entry = {"path": "models/model.pt", "url": (tmp_path / "there.pt").as_uri(), "hash_type": "sha256"}
    listed = {"large_files": [{**entry, "hash_val": 64 * "0"}]}
    (tmp_path / "large_files.json").write_text(json.dumps(listed))
    with pytest.raises(HashCheckError, match="sha256 hash check of downloaded file failed"):
        download_large_files(str(tmp_path))
    assert not (tmp_path / "models" / "model.pt").exists()


def test_the_document_names_every_check() -> None:
    text = (REPOSITORY / "docs" / "trust.md").read_text(encoding="utf-8")
    for word in ("config is code", "weights_only", "SHA256SUMS", "--checkpoint", "--pretrained", "--resume"):
        assert word in text
    for place in ("README.md", "bundle/docs/README.md"):
        text = (REPOSITORY / place).read_text(encoding="utf-8")
        assert "config is code" in text
        assert "`weights_only`" in text
