"""Take rights from a path, and be a user whom that stops: root is not."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bundle.conftest import REPOSITORY

NOBODY = 65534


def is_open(folder: Path) -> bool:
    """Tell whether every user may enter a folder and those that it is in."""
    return all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents))


def reason_to_skip() -> str:
    """Say why rights cannot be tested here; nothing if they can."""
    if sys.platform == "win32":
        return "rights are of another kind there"
    if os.geteuid() == 0 and not (is_open(REPOSITORY) and is_open(Path(sys.prefix))):
        return "NOT RUN: root tests this as nobody, who may not read the repository or Python's environment"
    return ""


needs_rights = pytest.mark.skipif(bool(reason_to_skip()), reason=reason_to_skip())


@contextmanager
def rights(path: Path, mode: int) -> Iterator[None]:
    """Let a path have these rights; root is nobody meanwhile."""
    user = os.geteuid()
    path.chmod(mode)
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)
        path.chmod(0o700)
