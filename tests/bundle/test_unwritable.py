"""Files that one may not read and folders that one may not write to, through the real configs."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from unet_monai.bundle.errors import first_cause, says_all

from tests.bundle.test_evaluation_faults import evaluate, save_weights
from tests.bundle.test_faults import CELL, cause_of, infer, pairs, train
from tests.rights import needs_rights, rights

pytestmark = needs_rights
RUNS: dict[str, Callable[[Path, str], None]] = {
    "training": lambda root, out: train(root, validation=0.5, output_dir=out, ckpt_dir=f"{out} besides"),
    "weights of a training": lambda root, out: train(root, validation=0.5, ckpt_dir=out, output_dir=f"{out} besides"),
    "inference": lambda root, out: infer(root, input=str(root / "images"), output_dir=out),
    "evaluation": lambda root, out: evaluate(root, report_dir=out),
}


@pytest.fixture
def shared() -> Iterator[Path]:
    """A bundle with weights and a data set where every user may read and write."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        pairs(root, CELL, CELL, CELL)
        save_weights(root)
        for path in (root, *root.rglob("*")):
            path.chmod(0o777 if path.is_dir() else 0o666)
        yield root


def test_a_file_without_the_right_to_read_it_is_listed(shared: Path) -> None:
    RUNS["inference"](shared, str(shared / "all"))
    secret = shared / "images" / "1.tif"
    with rights(secret, 0):
        lines = cause_of(lambda: RUNS["inference"](shared, str(shared / "out"))).splitlines()
    assert lines == [
        "1 file failed, the others are done:",
        f"{secret} must be a readable image file, got PermissionError: [Errno 13] Permission denied: '{secret}'",
    ]
    written = {path.name for path in (shared / "out").iterdir()}
    assert written == {path.name for path in (shared / "all").iterdir() if not path.name.startswith("1")}


@pytest.mark.parametrize("kind", RUNS)
def test_a_folder_without_the_right_to_write_to_it(shared: Path, kind: str) -> None:
    RUNS[kind](shared, str(shared / "writable"))
    assert any(path.is_file() for path in (shared / "writable").rglob("*")), "test invalid"
    out = shared / "read only"
    out.mkdir()
    with rights(out, 0o555), pytest.raises((RuntimeError, ValueError, OSError)) as error:
        RUNS[kind](shared, str(out))
    cause = first_cause(error.value)
    assert re.search(rf"PermissionError: \[Errno 13\] .*'{out}.*'", f"{type(cause).__name__}: {cause}")
    assert says_all(cause), "the line stands alone, without a traceback"
    assert "\n" not in str(cause)
    assert not list(out.iterdir())
