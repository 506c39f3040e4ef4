"""Time contestants side by side and write down their ratios."""

from __future__ import annotations

import json
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("unet-monai", "monai", "torch", "numpy", "scipy", "albumentationsx")


class Row(NamedTuple):
    """One line of the table.

    Attributes:
        what: what was timed.
        against: what it was compared with.
        kind: ``"times faster"`` (seconds of the other / ours), ``"times the cost"`` (ours / the other) or
            ``"seconds more"`` (ours - the other).
        ratio: median over the rounds; of "seconds more" it is the difference.
        spread: lowest and highest ratio of a round.
        target: the least ratio for "times faster", the largest for the others; None where there is none.
        check: what both sides were seen to compute alike, or why they do not.
        seconds: median seconds, ours and the other's.
    """

    what: str
    against: str
    kind: str
    ratio: float
    spread: tuple[float, float]
    target: float | None
    check: str
    seconds: tuple[float, float]

    @property
    def met(self) -> bool | None:
        """Whether the target was reached; None without one."""
        if self.target is None:
            return None
        return self.ratio >= self.target if self.kind == "times faster" else self.ratio <= self.target


def alternate(
    contestants: Sequence[Callable[[], object]], rounds: int = 7, warm_up: int = 1, pause: float = 0
) -> list[list[float]]:
    """Time some functions in turn, A B A B ..., so that a machine's changing speed meets all of them alike.

    Args:
        contestants: functions without arguments.
        rounds: counted calls of each.
        warm_up: calls of each before, not counted.
        pause: seconds before each call, not counted, for the threads of the one before to fall asleep.

    Returns:
        Seconds of each contestant's calls, one list per contestant.
    """
    seconds: list[list[float]] = [[] for _ in contestants]
    for turn in range(warm_up + rounds):
        for contestant, times in zip(contestants, seconds, strict=True):
            time.sleep(pause)
            _synchronise()
            start = time.perf_counter()
            contestant()
            _synchronise()
            if turn >= warm_up:
                times.append(time.perf_counter() - start)
    return seconds


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def faster(
    what: str, against: str, ours: Sequence[float], theirs: Sequence[float], target: float | None, check: str
) -> Row:
    """Make the row of how many times faster we are than the other, from the seconds of each round."""
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return _row(what, against, "times faster", ratios, target, check, (median(ours), median(theirs)))


def cost(
    what: str, against: str, ours: Sequence[float], theirs: Sequence[float], target: float | None, check: str
) -> Row:
    """Make the row of how many times the other's cost ours is, from the seconds of each round."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return _row(what, against, "times the cost", ratios, target, check, (median(ours), median(theirs)))


def difference(
    what: str, against: str, ours: Sequence[float], theirs: Sequence[float], target: float | None, check: str
) -> Row:
    """Make the row of how many seconds more than the other ours takes, from the seconds of each round."""
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    return _row(what, against, "seconds more", differences, target, check, (median(ours), median(theirs)))


def _row(
    what: str,
    against: str,
    kind: str,
    ratios: Sequence[float],
    target: float | None,
    check: str,
    seconds: tuple[float, float],
) -> Row:
    return Row(what, against, kind, median(ratios), (min(ratios), max(ratios)), target, check, seconds)


def table(rows: Sequence[Row]) -> str:
    """Write rows as a Markdown table, met and missed targets alike."""
    lines = [
        "| what | against | ratio | lowest to highest | target | met | same result |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        bound = "at least" if row.kind == "times faster" else "at most"
        target = "" if row.target is None else f"{bound} {row.target:g}"
        met = {True: "yes", False: "**no**", None: ""}[row.met]
        low, high = row.spread
        lines.append(
            f"| {row.what} | {row.against} | {row.ratio:.3g} {row.kind} | {low:.3g} to {high:.3g} "
            f"| {target} | {met} | {row.check} |"
        )
    return "\n".join(lines)


def environment() -> dict[str, object]:
    """Describe the machine, the versions and the commit that a table belongs to."""
    git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True)
    return {
        "commit": git.stdout.strip(),
        "machine": _processor(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
    return f"{names[0]}, {platform.system()}" if names else platform.platform()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def save(rows: Sequence[Row], path: Path) -> None:
    """Write the rows with the machine, versions and commit as JSON."""
    content = {**environment(), "rows": [{**row._asdict(), "met": row.met} for row in rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
