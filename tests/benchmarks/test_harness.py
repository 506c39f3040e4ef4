"""The harness on seconds written by hand."""

from __future__ import annotations

import json
import re
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import __main__ as command
from benchmarks import harness
from benchmarks.harness import Row, alternate, cost, difference, faster, save, table

# Ratios 9, 1.5 and 2: their median is not that of the medians.
OURS, THEIRS = [1.0, 2.0, 4.0], [9.0, 3.0, 8.0]


def test_contestants_take_turns() -> None:
    calls = ""

    def contestant(name: str) -> Callable[[], None]:
        def call() -> None:
            nonlocal calls
            calls += name

        return call

    seconds = alternate([contestant("A"), contestant("B"), contestant("C")], rounds=3, warm_up=1)
    assert calls == "ABC" * 4
    assert [len(times) for times in seconds] == [3, 3, 3]


def test_pauses_are_not_counted() -> None:
    start = time.perf_counter()
    (seconds,) = alternate([lambda: None], rounds=2, warm_up=0, pause=0.05)
    assert time.perf_counter() - start >= 0.1
    assert max(seconds) < 0.05


def test_each_contestant_gets_its_own_seconds() -> None:
    slow, quick = alternate([lambda: time.sleep(0.05), lambda: None], rounds=2, warm_up=0)
    assert min(slow) >= 0.05 > max(quick)


def test_warm_up_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 7.0, 20.0])  # the warm-up reads it once only
    monkeypatch.setattr(harness, "time", SimpleNamespace(perf_counter=lambda: next(clock), sleep=time.sleep))
    assert alternate([lambda: None], rounds=1, warm_up=1) == [[13.0]]


def test_ratios_are_those_of_the_rounds() -> None:
    row = faster("a", "b", OURS, THEIRS, 4, "same")
    assert (row.ratio, row.spread, row.kind, row.seconds) == (2, (1.5, 9), "times faster", (2, 8))
    row = cost("a", "b", OURS, THEIRS, 0.5, "same")
    assert (row.ratio, row.spread, row.kind, row.seconds) == (0.5, (1 / 9, 2 / 3), "times the cost", (2, 8))
    row = difference("a", "b", THEIRS, OURS, 5, "same")
    assert (row.ratio, row.spread, row.kind, row.seconds) == (4, (1, 8), "seconds more", (8, 2))


def test_rounds_must_be_as_many_on_both_sides() -> None:
    for make in (faster, cost, difference):
        with pytest.raises(ValueError, match="zip"):
            make("a", "b", [1.0], [1.0, 2.0], None, "same")


@pytest.mark.parametrize(
    ("make", "target", "met"),
    [
        *[(faster, 2, True), (faster, 2.1, False), (faster, None, None)],
        *[(cost, 0.5, True), (cost, 0.4, False)],
        *[(difference, -4, True), (difference, -4.1, False)],
    ],
)
def test_targets_are_least_factors_and_largest_costs(
    make: Callable[..., Row], target: float | None, met: bool | None
) -> None:
    assert make("a", "b", OURS, THEIRS, target, "same").met is met


def test_table_shows_met_and_missed_targets() -> None:
    made = [faster("a", "b", OURS, THEIRS, 2, "equal"), cost("c", "d", OURS, THEIRS, 0.1, "near")]
    made.append(difference("e", "f", THEIRS, OURS, 5, "other"))
    made.append(faster("g", "h", OURS, THEIRS, None, "none"))
    assert table(made).splitlines()[2:] == [
        "| a | b | 2 times faster | 1.5 to 9 | at least 2 | yes | equal |",
        "| c | d | 0.5 times the cost | 0.111 to 0.667 | at most 0.1 | **no** | near |",
        "| e | f | 4 seconds more | 1 to 8 | at most 5 | yes | other |",
        "| g | h | 2 times faster | 1.5 to 9 |  |  | none |",
    ]


def test_saved_rows_come_with_the_machine_and_versions(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.json"
    save([faster("a", "b", OURS, THEIRS, 2, "equal")], path)
    content = json.loads(path.read_text())
    (row,) = content["rows"]
    assert (row["what"], row["ratio"], row["spread"], row["met"]) == ("a", 2, [1.5, 9], True)
    assert {"commit", "machine", "threads", "device", "python", "versions"} < set(content)
    assert content["versions"]["monai"].count(".") == 2


def run_command(monkeypatch: pytest.MonkeyPatch, *words: object) -> list[Namespace]:
    """Run the command with a benchmark of one row in place of all modules; return the options that it was given."""
    given = []

    def rows(options: Namespace) -> Iterator[Row]:
        given.append(options)
        yield faster("a", "b", OURS, THEIRS, 4, "equal")

    monkeypatch.setattr(command, "import_module", lambda name: SimpleNamespace(rows=rows))
    monkeypatch.setattr(command.torch, "set_num_threads", lambda threads: None)
    monkeypatch.setattr("sys.argv", ["benchmarks", *map(str, words)])
    command.main()
    return given


def test_command_prints_and_writes_the_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (options,) = run_command(monkeypatch, "deformation", "--rounds", 3, "--json", tmp_path / "table.json")
    assert options.rounds == 3
    assert "| a | b | 2 times faster |" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "table.json").read_text())["rows"]) == 1


def test_command_runs_all_that_need_no_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert len(run_command(monkeypatch, "--json", tmp_path / "table.json")) == len(command.MODULES) - 1


@pytest.mark.parametrize(
    ("words", "message"),
    [(["start-up"], "MODULE must be one of weight_map, .*, got start-up"), (["time_to_seg"], "needs --dataset_dir")],
)
def test_command_refuses(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run_command(monkeypatch, *words)
    assert re.search(message, capsys.readouterr().err)
