"""Time `monai.bundle run training` up to its first optimiser step against importing torch and monai alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from unet_monai.data import demo_dataset

from benchmarks.harness import REPOSITORY, Row, alternate, difference

# Seconds more.
TARGET = 5.0
CONFIG = REPOSITORY / "bundle/configs/train.json"
READY = "the benchmark waits for this line"
IMPORTS = [sys.executable, "-c", f"import torch, monai; print({READY!r}, flush=True)"]


def announce_first_step(config: Mapping[str, Any]) -> dict[str, Any]:
    """Make an overlay of a training config that prints `READY` after each update and changes nothing else."""
    *before, start = config["run"]
    updated = "monai.engines.IterationEvents.MODEL_COMPLETED"
    hook = f"$@train#trainer.add_event_handler({updated}, lambda: print({READY!r}, flush=True))"
    return {"run": [*before, hook, start]}


def training_command(bundle_root: Path) -> list[str]:
    """Write that overlay into a bundle folder, and spell the command that trains there on the demo."""
    bundle_root.mkdir(parents=True, exist_ok=True)
    overlay = bundle_root / "first_step.json"
    overlay.write_text(json.dumps(announce_first_step(json.loads(CONFIG.read_text()))))
    run = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", f"['{CONFIG}','{overlay}']"]
    return [*run, "--bundle_root", str(bundle_root)]


def run_until(line: str, command: Sequence[str], threads: int) -> None:
    """Start a process, wait for a line that it prints, and end it.

    Args:
        line: what its standard output or error has at the end of a line.
        command: the process.
        threads: threads that it may compute with.

    Raises:
        RuntimeError: when the process ends before; holds the last of what it printed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    printed = []
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for text in process.stdout or ():
            if text.rstrip().endswith(line):
                process.kill()
                return
            printed.append(text)
    raise RuntimeError(f"command must print {line!r}, got:\n{''.join(printed)[-2000:]}")


def rows(options: Namespace) -> Iterator[Row]:
    """Compare fresh processes in turn: training on the demo, training that draws the demo first, imports."""
    with tempfile.TemporaryDirectory() as folder:
        drawn = training_command(Path(folder, "drawn"))
        demo_dataset(f"{folder}/drawn/output/demo")
        undrawn = (training_command(Path(folder, f"undrawn{i}")) for i in count())
        contestants = (
            lambda: run_until(READY, drawn, options.threads),
            lambda: run_until(READY, next(undrawn), options.threads),
            lambda: run_until(READY, IMPORTS, options.threads),
        )
        with_demo, without_demo, imports = alternate(contestants, options.rounds)
    against = "importing torch and monai"
    for what, seconds, target in (
        ("`run training` to its first optimiser step", with_demo, TARGET),
        ("the same where the demo is drawn first", without_demo, None),
    ):
        check = f"fresh processes: {median(seconds):.1f} s against {median(imports):.1f} s"
        yield difference(what, against, seconds, imports, target, check)
