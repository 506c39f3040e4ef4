from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from unet_monai.large_images.claims import Claim, take_claim


def held_by(folder: Path, *, age: float, **holder: object) -> None:
    """Write the claim of another process, touched some seconds ago."""
    file = folder / "a.claim-0"
    file.write_text(json.dumps(holder) if holder else "")
    os.utime(file, (time.time() - age,) * 2)


def take(folder: Path, seconds: float = 60) -> Claim | None:
    return take_claim(folder / "a.npz", seconds)


def ended_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_of_many_one_gets_it(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        for number in range(20):
            claims = list(pool.map(lambda _, n=number: take_claim(tmp_path / f"{n}.npz", 60), range(16)))
            assert sum(claim is not None for claim in claims) == 1


def test_one_that_a_full_disk_left_empty_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that names nobody counts as alive for as long as another machine's: a restart would wait for it."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(json, "dump", full)
        with pytest.raises(OSError, match="No space left on device"):
            take(tmp_path)
    assert (tmp_path / "a.claim-0").read_text() == "", "test invalid"
    claim = take(tmp_path)
    assert claim is not None
    assert claim.file.name == "a.claim-1"


def test_of_many_one_takes_it_over(tmp_path: Path) -> None:
    held_by(tmp_path, age=61)
    with ThreadPoolExecutor(16) as pool:
        claims = [claim for claim in pool.map(lambda _: take(tmp_path), range(64)) if claim is not None]
    assert [claim.file.name for claim in claims] == ["a.claim-1"]
    assert claims[0].draft == tmp_path / "a.claim-1.part"


@pytest.mark.parametrize("holder", [{}, {"machine": "another one", "process": 1}])
def test_one_of_another_machine_is_dead_when_it_was_not_touched(tmp_path: Path, holder: dict[str, object]) -> None:
    held_by(tmp_path, age=50, **holder)
    assert take(tmp_path) is None
    held_by(tmp_path, age=70, **holder)
    assert take(tmp_path) is not None


def test_one_of_a_process_that_is_gone_is_dead_at_once(tmp_path: Path) -> None:
    claim = take(tmp_path)
    assert claim is not None
    machine = json.loads(claim.file.read_text())["machine"]
    held_by(tmp_path, age=0, machine=machine, process=os.getppid())
    assert take(tmp_path) is None
    held_by(tmp_path, age=0, machine=f"not {machine}", process=ended_process())
    assert take(tmp_path) is None
    held_by(tmp_path, age=0, machine=machine, process=ended_process())
    assert take(tmp_path) is not None


def test_it_is_kept_as_long_as_the_work_goes_on(tmp_path: Path) -> None:
    claim = take(tmp_path, 0.4)
    assert claim is not None
    with claim:
        for _ in range(6):
            time.sleep(0.2)
            assert take(tmp_path, 0.4) is None
    time.sleep(0.6)
    assert take(tmp_path, 0.4) is not None


def test_work_that_fails_is_given_up_at_once(tmp_path: Path) -> None:
    claim = take(tmp_path)
    assert claim is not None
    with pytest.raises(KeyboardInterrupt), claim:
        raise KeyboardInterrupt
    again = take(tmp_path)
    assert again is not None
    assert again.file.name == "a.claim-1"


def test_without_its_folder_there_is_no_claim(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        take(tmp_path / "gone")
