"""Write files so that nothing partial ever stands under its final name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def part_of(path: Path) -> Path:
    """Return the temporary name of a file, beside it."""
    return path.with_name(f".part-{path.name}")


@contextmanager
def writing(path: Path, *, last: bool = True) -> Iterator[Path]:
    """Give the temporary name of a file, `part_of`, under which a block writes it.

    After the block it gets its own name, so that nothing partial ever stands there; after an error nothing stays.

    Args:
        path: the file.
        last: whether the block writes the last part of it; a file in several parts keeps the temporary name till then.

    Raises:
        OSError: naming the file, in place of one that need not, such as that of a full disk.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with writing(Path(folder, "a.txt")) as part:
        ...         _ = part.write_text("whole")
        ...     [file.name for file in Path(folder).iterdir()]
        ['a.txt']
    """
    part = part_of(path)
    try:
        yield part
        if last:
            os.replace(part, path)
    except BaseException as error:
        with suppress(OSError):
            part.unlink()
        # torch puts words of its own, which tell nothing, in place of the system's.
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        if isinstance(cause, OSError):
            raise OSError(f"{path} must be writable, got {type(cause).__name__}: {cause}") from None
        raise
