"""Start MONAI Label's server on a folder of images, for clients on this machine.

    python monai_label/start.py --venv .venv-monailabel --app label_app --studies my_images

Images are PNG, JPEG (``.jpg``), ``.tif`` or NIfTI with names that differ in more than their kind.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from set_up import interpreter

CLOSED = "{host} is this machine only. Any web page open in a browser on it can use the server too."
OPEN = """\
{host} is open to others. The server asks for no password and encrypts nothing: whoever reaches the port can read all
images and labels, replace them, and train. Keep to 127.0.0.1 and let people in by an SSH tunnel:
    ssh -L {port}:127.0.0.1:{port} this-machine"""


def who_reaches(host: str, port: int) -> str:
    """Say who reaches a server that listens on an address, and what that means.

    Example:
        >>> print(who_reaches("0.0.0.0", 8000).splitlines()[0])
        0.0.0.0 is open to others. The server asks for no password and encrypts nothing: whoever reaches the port can...
    """
    return (CLOSED if ipaddress.ip_address(host).is_loopback else OPEN).format(host=host, port=port)


def main(words: Sequence[str] | None = None) -> NoReturn:
    """Read the command line and become the server."""
    parser = argparse.ArgumentParser(description="Start MONAI Label's server on a folder of images.")
    parser.add_argument("--venv", default=".venv-monailabel", help="folder of the environment (.venv-monailabel)")
    parser.add_argument("--app", default="label_app", help="folder of the server's app (label_app)")
    parser.add_argument("--studies", required=True, help="folder of the images; labels go to labels/ in it")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine only)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (8000)")
    args = parser.parse_args(words)
    python = interpreter(Path(args.venv).absolute())
    if not python.is_file():
        raise FileNotFoundError(f"venv must be an environment that set_up.py made, got {args.venv}.")
    print(who_reaches(args.host, args.port), file=sys.stderr)
    command = [str(python), "-m", "monailabel.main", "start_server", "--app", args.app, "--studies", args.studies]
    command += ["--host", args.host, "--port", str(args.port)]
    command += ["--uvicorn_app", "server:app"]  # server.py in the app's folder
    paths = [str(Path(args.app).absolute()), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.execve(python, command, {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))})


if __name__ == "__main__":
    main()
