"""Share work among processes that only have a folder in common: who creates the claim's file first does the work."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from pathlib import Path
from threading import Event, Thread
from types import TracebackType

CLAIM_SECONDS = 120.0
"""Age at which a claim that was not touched is taken over: more than file systems keep times to themselves."""

HEARTBEATS = 8
"""How often the file of a claim is touched before the claim would be taken over."""


class Claim:
    """A piece of work that this process has taken; see `take_claim`. A context manager: the work is done within.

    While the work goes on, a thread touches the file. Work that ends in an error sets the file's time to 0, so that it
    can be taken over at once.

    Args:
        file: the claim's file, just created.
        seconds: age at which a claim that was not touched is taken over.

    Attributes:
        draft: path beside it that no other claim has, for the result until it is complete.
    """

    def __init__(self, file: Path, seconds: float) -> None:
        self.file, self.draft = file, file.with_name(f"{file.name}.part")
        self._interval, self._done = seconds / HEARTBEATS, Event()
        self._thread = Thread(target=self._touch, daemon=True)

    def __enter__(self) -> Claim:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        if kind is not None and self.file.exists():
            os.utime(self.file, (0, 0))

    def _touch(self) -> None:
        while not self._done.wait(self._interval):
            try:
                os.utime(self.file)
            except OSError:
                # A claim that cannot be touched grows old; at worst another process does the same work once more.
                continue


def take_claim(record: Path, seconds: float = CLAIM_SECONDS) -> Claim | None:
    """Take a piece of work, unless another process is at it.

    The first claim on the record ``a.npz`` is the file ``a.claim-0``, which only one process can create, on network
    file systems too (``O_CREAT | O_EXCL``). It names its process and is touched while that process works. A claim is
    dead when its process was of this machine and is gone, or when it was not touched for `seconds` by the clock of the
    file system, the only one that all processes share. It stays; whoever creates the next one, ``a.claim-1``, takes
    the work over. So each claim has one owner. A process that was only held up, and goes on after its claim was taken
    over, does work that is done already: that must be harmless.

    Args:
        record: what the work will write; its folder must exist.
        seconds: see above.

    Returns:
        The claim; None while another process has it.

    Raises:
        FileNotFoundError: if there is no such folder.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with take_claim(Path(folder) / "a.npz", 60) as claim:
        ...         claim.file.name, take_claim(Path(folder) / "a.npz", 60)
        ('a.claim-0', None)
    """
    number = 0
    while True:
        file = record.with_suffix(f".claim-{number}")
        try:
            descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            if not _is_dead(file, seconds):
                return None
            number += 1
            continue
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                json.dump({"machine": _machine(), "process": os.getpid()}, stream)
        except OSError:  # a full disk: the claim names nobody, and would count as alive
            os.utime(file, (0, 0))
            raise
        return Claim(file, seconds)


def _is_dead(file: Path, seconds: float) -> bool:
    with file.open(encoding="utf-8") as stream:  # opened first: a network file system then asks its server for the time
        text, touched = stream.read(), os.fstat(stream.fileno()).st_mtime
    with tempfile.TemporaryFile(dir=file.parent) as new:
        age = os.fstat(new.fileno()).st_mtime - touched
    if age > seconds:
        return True
    holder = json.loads(text) if text else {}  # empty for an instant, between creation and the first write
    return holder.get("machine") == _machine() and not _is_running(holder["process"])


def _machine() -> str:
    """Name what process numbers are unique in: the host, or a container on it."""
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {os.readlink(namespace) if namespace.exists() else ''}".strip()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
