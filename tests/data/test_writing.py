from __future__ import annotations

import errno
from pathlib import Path

import pytest
from unet_monai.data.writing import writing


def write_half(path: Path, error: BaseException) -> None:
    with writing(path) as part:
        part.write_text("half")
        raise error


class TestWriting:
    def test_an_error_leaves_what_was_there(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        path.write_text("of an earlier run")
        with pytest.raises(OSError, match=r"^.*a\.txt must be writable, got OSError: \[Errno 28\] No space"):
            write_half(path, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(KeyboardInterrupt):
            write_half(path, KeyboardInterrupt())
        assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
        assert path.read_text() == "of an earlier run"

    def test_a_file_in_several_parts(self, tmp_path: Path) -> None:
        for last in (False, True):
            with writing(tmp_path / "a.txt", last=last) as part, part.open("a") as file:
                file.write("x")
            assert (tmp_path / "a.txt").exists() == last
        assert (tmp_path / "a.txt").read_text() == "xx"
