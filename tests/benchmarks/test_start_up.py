"""The overlay that announces the first step, and the wait for a line of another process."""

from __future__ import annotations

import json
import sys
import time

import pytest

from benchmarks.start_up import CONFIG, READY, announce_first_step, run_until


def test_overlay_adds_one_statement_before_the_run() -> None:
    config = json.loads(CONFIG.read_text())
    (key,) = overlay = announce_first_step(config)
    assert key == "run"
    added = [entry for entry in overlay["run"] if entry not in config["run"]]
    assert len(added) == 1
    assert READY in added[0]
    assert overlay["run"][-2:] == [added[0], "$@train#trainer.run()"]
    assert [entry for entry in overlay["run"] if entry not in added] == config["run"]


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_process_is_ended_at_the_line(stream: str) -> None:
    """Progress bars leave a line unfinished, which then begins with their text."""
    program = f"import sys, time; print('bar 0/3 here', file=sys.{stream}, flush=True, end=''); "
    start = time.monotonic()
    run_until("here", [sys.executable, "-c", program + f"print(file=sys.{stream}, flush=True); time.sleep(60)"], 1)
    assert time.monotonic() - start < 30


def test_process_without_the_line_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"must print 'here', got:\n[^$]*nothing to be seen"):
        run_until("here", [sys.executable, "-c", "raise SystemExit('nothing to be seen')"], 1)


def test_processes_get_the_threads() -> None:
    run_until("3", [sys.executable, "-c", "import os; print(os.environ['OMP_NUM_THREADS'])"], threads=3)
