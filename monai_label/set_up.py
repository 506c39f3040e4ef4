"""Set up MONAI Label's server for this bundle: an environment of its own, and the app with the packed bundle.

    python monai_label/set_up.py --venv .venv-monailabel --app label_app --weights bundle/weights/nuclei.pt

Without a network: fill a folder beforehand by `pip wheel -w wheelhouse -r monai_label/requirements.txt` and
`pip wheel -w wheelhouse --no-deps monailabel==0.8.5`, and give it as `--wheelhouse wheelhouse`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from unet_monai.bundle.pack import NAME, pack

HERE = Path(__file__).resolve().parent
MONAI_LABEL = "monailabel==0.8.5"
PYTHON = "3.11"


def install(venv: Path, python: str, wheelhouse: str | None = None) -> None:
    """Make the server's virtual environment; one that this made of the same requirements is kept.

    MONAI Label's own requirements cannot be met together today, so it is installed without them, after the versions
    that it was seen to run with. A stub stands in for torchvision.

    Args:
        venv: folder of the environment.
        python: interpreter to make it with, of version 3.11.
        wheelhouse: folder with all wheels, to use no network; None for the package index.

    Raises:
        ValueError: when the interpreter is of another version.
        FileExistsError: when the folder holds something else.
    """
    requirements = HERE / "requirements.txt"
    receipt = venv / requirements.name
    if receipt.is_file() and receipt.read_bytes() == requirements.read_bytes():
        print(f"{venv} is there already")
        return
    if venv.exists():
        raise FileExistsError(f"venv must be a folder that does not exist yet, got {venv}.")
    version = _run(python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()
    if version != PYTHON:
        raise ValueError(f"python must be an interpreter of version {PYTHON}, got {python} of version {version}.")
    subprocess.run([python, "-m", "venv", str(venv)], check=True)
    pip = [str(interpreter(venv)), "-m", "pip", "install"]
    if wheelhouse is not None:
        pip += ["--no-index", "--find-links", wheelhouse]
    subprocess.run([*pip, "-r", str(requirements)], check=True)
    subprocess.run([*pip, "--no-deps", MONAI_LABEL], check=True)
    packages = _run(str(interpreter(venv)), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    shutil.copytree(HERE / "stubs", packages, dirs_exist_ok=True)
    shutil.copy(requirements, receipt)


def build_app(app: Path, weights: str) -> None:
    """Copy the server's app to a folder, and pack the bundle into it.

    Args:
        app: folder of the app; training writes its weights there.
        weights: the weights that the server starts with.

    Raises:
        FileExistsError: when the folder is there already.
        FileNotFoundError: when there are no weights.
        ValueError: when the weights do not fit, or the bundle cannot be packed.
    """
    if app.exists():
        raise FileExistsError(f"app must be a folder that does not exist yet, got {app}.")
    with tempfile.TemporaryDirectory() as temporary:
        pack(weights, temporary)
        shutil.copytree(HERE / "app", app, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.move(Path(temporary) / NAME, app / "model" / NAME)


def interpreter(venv: Path) -> Path:
    """Return the path of an environment's Python."""
    return venv / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line, set up, and say how to start."""
    parser = argparse.ArgumentParser(description="Set up MONAI Label's server for this bundle.")
    parser.add_argument("--venv", default=".venv-monailabel", help="folder of the environment (.venv-monailabel)")
    parser.add_argument("--app", default="label_app", help="folder of the server's app (label_app)")
    parser.add_argument("--weights", required=True, help="the weights to start with, such as bundle/models/model.pt")
    parser.add_argument("--python", default=sys.executable, help=f"interpreter of version {PYTHON} (this one)")
    parser.add_argument("--wheelhouse", help="folder with all wheels, to use no network")
    args = parser.parse_args(words)
    install(Path(args.venv), args.python, args.wheelhouse)
    build_app(Path(args.app), args.weights)
    print(f"start it: python monai_label/start.py --venv {args.venv} --app {args.app} --studies my_images")


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
