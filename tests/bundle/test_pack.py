"""The bundle as others get it: packed, unpacked elsewhere, and run where `unet_monai` is not installed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import unet_monai
from monai.bundle import ConfigParser
from PIL import Image
from unet_monai import segment
from unet_monai.bundle import pack as pack_module
from unet_monai.bundle.configs import find_configs
from unet_monai.bundle.pack import main, pack
from unet_monai.data import draw_cells

from tests.bundle.conftest import REPOSITORY
from tests.bundle.metadata_schema import SCHEMA

NAME = "cell_unet_segmentation"
SHORT = ["--tile_size", "204", "--epochs", "1", "--steps_per_epoch", "1", "--val_interval", "1"]
# An untrained network gives each class about a third; the thresholds and the size are set so that it finds cells.
LOOSE = {"threshold": 0.335, "edge_threshold": 0.66, "min_size": 3}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the network as the bundle defines it, untrained."""
    parser = ConfigParser()
    parser.read_config(str(REPOSITORY / "bundle" / "configs" / "inference.json"))
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "own.pt"
    torch.save(parser.get_parsed_content("network_def").state_dict(), path)
    return path


@pytest.fixture(scope="module")
def archive(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(str(weights), str(tmp_path_factory.mktemp("dist")))


@pytest.fixture(scope="module")
def unpacked(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user has after unpacking the zip."""
    folder = tmp_path_factory.mktemp("a user's")
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    return folder / NAME


def python_without_the_package(cwd: Path, *args: object) -> subprocess.CompletedProcess[str]:
    """Run Python with the installed packages but without this one.

    An editable install is reached through a `.pth` file, which Python reads in `site` only, left out by `-S`.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": sysconfig.get_path("purelib")}
    command = [sys.executable, "-S", "-W", "ignore", *map(str, args)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)


def test_the_package_is_not_installed_there(tmp_path: Path) -> None:
    """Otherwise the tests below would pass with a pack that lacks the package."""
    result = python_without_the_package(tmp_path, "-c", "import unet_monai")
    assert "No module named 'unet_monai'" in result.stderr


def test_folder_and_zip_hold_the_same_and_nothing_left_behind(archive: Path, unpacked: Path) -> None:
    folder = archive.parent / NAME
    assert archive.name == f"{NAME}_v{unet_monai.__version__}.zip"
    assert {p.name for p in archive.parent.iterdir()} == {NAME, archive.name}
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with zipfile.ZipFile(archive) as file:
        assert {name.removeprefix(f"{NAME}/"): file.read(name) for name in file.namelist()} == files
    assert {name.split("/")[0] for name in files} == {
        "LICENSE",
        "SHA256SUMS",
        "configs",
        "docs",
        "models",
        "unet_monai",
    }
    assert not any("__pycache__" in name for name in files)
    for part, source in (("configs", "bundle"), ("docs", "bundle"), ("unet_monai", ".")):
        sources = (p for p in (REPOSITORY / source / part).rglob("*") if p.is_file() and p.suffix != ".pyc")
        expected = {p.relative_to(REPOSITORY / source).as_posix(): p.read_bytes() for p in sources}
        assert {name: content for name, content in files.items() if name.startswith(f"{part}/")} == expected


def test_weights_are_those_given(archive: Path, weights: Path) -> None:
    assert (archive.parent / NAME / "models" / "model.pt").read_bytes() == weights.read_bytes()


def test_bytes_depend_on_the_content_only(archive: Path, unpacked: Path, weights: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copied.pt"
    shutil.copy(weights, copy)
    copy.chmod(0o600)
    os.utime(copy, (1, 1))
    again = pack(str(copy), str(tmp_path / "dist"))
    assert again.read_bytes() == archive.read_bytes()
    with zipfile.ZipFile(archive) as file:
        entries = file.infolist()
    assert [entry.filename for entry in entries] == sorted(entry.filename for entry in entries)
    kinds = {
        (entry.date_time, entry.external_attr >> 16, entry.create_system, entry.compress_type) for entry in entries
    }
    assert kinds == {((1980, 1, 1, 0, 0, 0), 0o100644, 3, zipfile.ZIP_STORED)}


def test_hashes_are_those_of_all_files(archive: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        files = {name.removeprefix(f"{NAME}/"): file.read(name) for name in file.namelist()}
    lines = [line.split("  ", 1) for line in files.pop("SHA256SUMS").decode().splitlines()]
    assert [name for _, name in lines] == sorted(files)
    assert {name: digest for digest, name in lines} == {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items()
    }


# Where a command is started, and how it names the configs from there. (Not in `configs/` itself: of a config without
# a folder in its path MONAI takes the working directory for the bundle's.)
PLACES = {"bundle": (".", "configs"), "beside": ("..", f"{NAME}/configs"), "elsewhere": ("/", None)}


def place(unpacked: Path, name: str) -> tuple[Path, str]:
    start, configs = PLACES[name]
    return unpacked / start, configs or str(unpacked / "configs")


def places(first: str) -> list[object]:
    """One working directory in the daily tests, all three in the long form."""
    return [pytest.param(name, marks=[] if name == first else pytest.mark.slow) for name in PLACES]


@pytest.mark.parametrize("start", places("elsewhere"))
def test_trains_where_the_package_is_not_installed(unpacked: Path, cells: Path, tmp_path: Path, start: str) -> None:
    cwd, configs = place(unpacked, start)
    data = ["--dataset_dir", cells, "--ckpt_dir", tmp_path / "models", "--output_dir", tmp_path / "output"]
    tiny = ["--network_def#features", "[2,4,8,16,32]", *SHORT]
    command = ["-m", "monai.bundle", "run", "training", "--config_file", f"{configs}/train.json"]
    result = python_without_the_package(cwd, *command, *data, *tiny)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "models" / "model.pt").is_file()
    assert (tmp_path / "output" / "report.html").is_file()


@pytest.mark.parametrize("start", places("beside"))
def test_infers_where_the_package_is_not_installed(
    unpacked: Path, cells: Path, weights: Path, tmp_path: Path, start: str
) -> None:
    cwd, configs = place(unpacked, start)
    image = cells / "images" / "cell 3.png"
    knobs = [word for name, value in LOOSE.items() for word in (f"--{name}", value)]
    command = ["-m", "monai.bundle", "run", "--config_file", f"{configs}/inference.json", "--input", image]
    result = python_without_the_package(cwd, *command, "--output_dir", tmp_path, *knobs)
    assert result.returncode == 0, result.stderr
    assert f"weights: {unpacked / 'models' / 'model.pt'}" in result.stdout
    expected = segment(draw_cells(3, (72, 96))[0], weights, **LOOSE)
    assert len(np.unique(expected)) > 1, "test invalid: nothing was found"
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "cell 3.png")), expected)


@pytest.mark.parametrize("start", places("bundle"))
def test_evaluates_where_the_package_is_not_installed(unpacked: Path, cells: Path, tmp_path: Path, start: str) -> None:
    cwd, configs = place(unpacked, start)
    files = str([f"{configs}/train.json", f"{configs}/evaluate.json"])
    command = ["-m", "monai.bundle", "run", "evaluating", "--config_file", files, "--dataset_dir", cells]
    result = python_without_the_package(cwd, *command, "--output_dir", tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "evaluation" / "metrics.csv").read_text().count("SEG") == 1


# What the zoo's CI does with a bundle: nothing but its folder goes on the path.
ZOO_CI = """
import json, sys
from monai.bundle import ConfigWorkflow, verify_metadata, verify_net_in_out

root, cells, output, schema = sys.argv[1:]
sys.path.insert(0, root)
meta, logging = root + "/configs/metadata.json", root + "/configs/logging.conf"
files = {"meta_file": meta, "config_file": root + "/configs/inference.json", "bundle_root": root}
verify_metadata(meta, filepath=schema)
verify_net_in_out(net_id="network_def", **files)
missing = {}
for kind, name in (("infer", "inference"), ("train", "train")):
    config = root + "/configs/" + name + ".json"
    workflow = ConfigWorkflow(config, meta, logging, workflow_type=kind, dataset_dir=cells, output_dir=output)
    workflow.initialize()
    missing[kind] = workflow.check_properties()
import unet_monai
print(json.dumps({"package": unet_monai.__file__, "missing": missing}))
"""


def test_passes_the_checks_of_the_zoo(unpacked: Path, cells: Path, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA))
    result = python_without_the_package(tmp_path, "-c", ZOO_CI, unpacked, cells, tmp_path, schema)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    assert report == {"package": str(unpacked / "unet_monai" / "__init__.py"), "missing": {"infer": [], "train": []}}


# The zoo's settings, and its commands for code (`runtests.sh --codeformat`). It means to run mypy and pytype too, but
# not where there are no Python files, and its test for that holds also where there are several.
ZOO_SETTINGS = {
    "setup.cfg": """
[flake8]
select = B,C,E,F,N,P,T4,W,B9
max_line_length = 120
ignore = E203,E501,E741,W503,W504,C408,N812,B023
per_file_ignores = __init__.py: F401, __main__.py: F401
[isort]
known_first_party = models
profile = black
line_length = 120
""",
    "pyproject.toml": """
[tool.black]
line-length = 120
target-version = ["py37", "py38", "py39"]
""",
}
ZOO_COMMANDS = ["isort --check --settings-path .", "black --check --skip-magic-trailing-comma", "flake8"]


def look_at_code(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run one of the zoo's tools on its folder of models."""
    for name, settings in ZOO_SETTINGS.items():
        (folder / name).write_text(settings)
    words = [sys.executable, "-m", *command.split(), "models"]
    return subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("command", ZOO_COMMANDS)
def test_code_has_the_format_of_the_zoo(unpacked: Path, tmp_path: Path, command: str) -> None:
    package = tmp_path / "models" / "cell_unet_segmentation" / "unet_monai"
    shutil.copytree(unpacked / "unet_monai", package, ignore=shutil.ignore_patterns("__pycache__"))
    result = look_at_code(tmp_path, command)
    assert result.returncode == 0, result.stdout
    (package / "wrong.py").write_text("import torch\nimport os\nx = f(1,\n2)\n")
    result = look_at_code(tmp_path, command)
    assert result.returncode == 1
    assert "wrong.py" in result.stdout


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the bundle's sources, to break."""
    bundle = tmp_path / "bundle"
    for part in ("configs", "docs"):
        shutil.copytree(REPOSITORY / "bundle" / part, bundle / part)
    shutil.copy(REPOSITORY / "bundle" / "LICENSE", bundle)
    monkeypatch.setattr(pack_module, "find_configs", lambda: str(bundle / "configs"))
    return bundle


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("authors", "", r"authors in metadata\.json must be filled in, got ''\."),
        ("intended_use", "TODO", r"intended_use in metadata\.json must be filled in, got 'TODO'\."),
        ("changelog", {"0.0.9": "before"}, r"changelog in metadata\.json must have an entry for version 0\.1\.0\."),
    ],
)
def test_refuses_what_the_zoo_would(
    sources: Path, weights: Path, tmp_path: Path, key: str, value: object, message: str
) -> None:
    path = sources / "configs" / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(ValueError, match=rf"the bundle must follow the rules of the model zoo, got\n{message}$"):
        pack(str(weights), str(tmp_path / "dist"))
    assert list((tmp_path / "dist").iterdir()) == []


def test_refuses_a_missing_data_licence(sources: Path, weights: Path, tmp_path: Path) -> None:
    (sources / "docs" / "data_license.txt").unlink()
    with pytest.raises(ValueError, match=r"zoo, got\ndocs/data_license\.txt must exist\.$"):
        pack(str(weights), str(tmp_path / "dist"))


@pytest.mark.parametrize("name", ["no/such.pt", ""])
def test_refuses_missing_weights(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"weights must be an existing file, got {name}\."):
        pack(name, str(tmp_path / "dist"))
    assert not (tmp_path / "dist").exists()


def test_refuses_weights_of_another_network(weights: Path, tmp_path: Path) -> None:
    state = torch.load(weights, weights_only=True)
    for number, content in enumerate(({**state, "more": torch.zeros(1)}, {}, [1])):
        path = tmp_path / f"{number}.pt"
        torch.save(content, path)
        with pytest.raises(ValueError, match=rf"weights must fit network_def of inference\.json, got .*{number}\.pt\."):
            pack(str(path), str(tmp_path / "dist"))


@pytest.mark.parametrize("name", [NAME, f"{NAME}_v{unet_monai.__version__}.zip"])
def test_replaces_nothing(weights: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(FileExistsError, match=rf"output must not hold {name} yet, got .*{name}\."):
        pack(str(weights), str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_command_lists_where_large_weights_are(
    weights: Path, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "https://example.org/model.pt"
    main(["--weights", str(weights), "--output", str(tmp_path), "--weights_url", url])
    written = tmp_path / archive.name
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    entry = {"path": "models/model.pt", "url": url, "hash_val": digest, "hash_type": "sha256"}
    assert json.loads((tmp_path / NAME / "large_files.json").read_text()) == {"large_files": [entry]}
    assert hashlib.sha256(written.read_bytes()).hexdigest() in capsys.readouterr().out


def test_a_pack_packs_itself_again(unpacked: Path, archive: Path, tmp_path: Path) -> None:
    """Also with what its runs have left in it, and without the repository."""
    (unpacked / "output").mkdir()
    args = ["-m", "unet_monai.bundle.pack", "--weights", "models/model.pt", "--output", tmp_path]
    result = python_without_the_package(unpacked, *args)
    (unpacked / "output").rmdir()
    assert result.returncode == 0, result.stderr
    assert (tmp_path / archive.name).read_bytes() == archive.read_bytes()


def test_configs_are_found_from_a_pack(unpacked: Path) -> None:
    assert find_configs(str(unpacked / "unet_monai")) == str(unpacked / "configs")
