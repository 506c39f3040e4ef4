"""Run the experiments on the public data sets, one row after the other, and skip those that are finished.

    python -m benchmarks.experiments --data_root DATA --kind headline --minutes 30
    python -m benchmarks.experiments --data_root DATA --kind ablation --sets dic_hela --seeds 0
    python -m benchmarks.experiments --table

A row trains and is evaluated by the bundle's own commands, each in a process of its own, and leaves one JSON file in
`--results`; an interrupted run loses only the row at work. `--table` writes these files into the tables of
`docs/experiments.md`, which says more.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

from unet_monai.data.writing import writing

from benchmarks.experiment_tables import write_tables
from benchmarks.harness import REPOSITORY, environment

CONFIGS = "bundle/configs"
FOLDERS = {
    "em_isbi2012": "isbi2012_em",
    "phc_u373": "PhC-C2DH-U373",
    "dic_hela": "DIC-C2DH-HeLa",
    "nuclei_dsb2018": "dsb2018_fluo",
    "phase_t98g": "usiigaci_t98g_phase",
}
PRETRAINED = "bundle/weights/nuclei.pt"
# Names of the rows of each kind, and what each changes in `train.json`.
ROWS: dict[str, dict[str, dict[str, object]]] = {
    "headline": {"ours": {}},
    "ablation": {
        "nothing": {},
        "no_border_weights": {"w0": 0},
        "no_elastic": {"elastic_magnitude": 0},
        "no_ridge": {"ridge_radius": 0},
        "ridge_as_background": {"network_def#out_channels": 2},
        "no_averaging": {"averaged_network": "@network"},
        "own_scale": {"largest_diameter": None},
    },
    "learning_curve": {
        **{f"images_{count}": {"training_images": count} for count in (1, 2, 5, 10, 20)},
        "images_all": {},
        **{f"images_{count}_pretrained": {"training_images": count, "pretrained": PRETRAINED} for count in (1, 2, 5)},
    },
    "peers": {"basic_unet": {}},
}
# Peers that `library_peers` trains, in interpreters of their own; their rows are of the kind "peers" too.
LIBRARY_PEERS = ("stardist", "cellpose")
SETS = {
    "headline": tuple(FOLDERS),
    "ablation": ("dic_hela", "nuclei_dsb2018"),
    "learning_curve": ("dic_hela", "nuclei_dsb2018"),
    "peers": tuple(FOLDERS),
}
# How the names of rows end that say nothing of other sets: the images of those are not rescaled anyway, and the
# shipped weights have seen DSB2018's.
ONLY_FOR = {
    "own_scale": ("phc_u373", "dic_hela", "phase_t98g"),
    "pretrained": ("em_isbi2012", "phc_u373", "dic_hela", "phase_t98g"),
}
VIEWS = ("identity", "mirrors")
# The learning rate falls in this many steps, whatever the length.
EPOCHS = 40
PROBE_STEPS = 30


class Row(NamedTuple):
    """One training, and the evaluation of its weights.

    Attributes:
        kind: one of `ROWS`.
        data_set: one of `FOLDERS`, which is the name of its overlay too.
        name: one of the kind's rows.
        seed: seed of the training.
    """

    kind: str
    data_set: str
    name: str
    seed: int

    @property
    def title(self) -> str:
        """Name the row and its file."""
        return f"{self.kind}-{self.data_set}-{self.name}-{self.seed}"

    @property
    def overrides(self) -> dict[str, object]:
        """Look up what the row changes in `train.json`."""
        return ROWS[self.kind][self.name]


class Length(NamedTuple):
    """How long to train, on a number of threads: so many minutes of steps, or so many steps."""

    minutes: float | None
    threads: int
    steps: int | None = None


class RowError(Exception):
    """A row that could not be made; the others go on."""


def plan(kind: str, data_sets: Sequence[str], names: Sequence[str], seeds: Sequence[int]) -> list[Row]:
    """List the rows of a kind, those of one seed before the next; without those that are `ONLY_FOR` other sets."""
    rows = [Row(kind, data_set, name, seed) for seed in seeds for data_set in data_sets for name in names]
    return [
        row
        for row in rows
        if not any(row.name.endswith(end) and row.data_set not in sets for end, sets in ONLY_FOR.items())
    ]


def bundle_command(row: Row, run: str, data: str, out: str, **settings: object) -> list[str]:
    """Write the words of the command that trains or evaluates a row, to be started in the repository's folder.

    Args:
        row: the row.
        run: ``"training"`` or ``"evaluating"``.
        data: folder of the data set.
        out: folder to write to.
        settings: further knobs.
    """
    # The set's overlay comes after the peer's: it knows how the set is scored.
    configs = [f"{CONFIGS}/train.json", f"{CONFIGS}/experiments/{row.data_set}.json"]
    if row.kind == "peers":
        configs.insert(1, f"benchmarks/{row.name}.json")
    if run == "evaluating":
        configs.append(f"{CONFIGS}/evaluate.json")
    places = {"dataset_dir": data, "output_dir": out, "ckpt_dir": f"{out}/models"}
    knobs = {**places, "seed": row.seed, **row.overrides, **settings}
    words = ["-W", "ignore", "-m", "monai.bundle", "run", run, "--config_file", str(configs).replace(" ", "")]
    typed = {key: "$None" if value is None else str(value) for key, value in knobs.items()}
    return words + [word for key, value in typed.items() for word in (f"--{key}", value)]


def row_commands(row: Row, steps_per_epoch: int, data: str, out: str) -> dict[str, list[str]]:
    """Write the commands of a row, by name: its training, and its evaluation with each set of views."""
    # Never validated, the training keeps its last weights: choosing the best would look at the images that score it.
    length = {"epochs": EPOCHS, "steps_per_epoch": steps_per_epoch, "val_interval": EPOCHS + 1}
    evaluations = {
        views: bundle_command(row, "evaluating", data, out, views=views, report_dir=f"{out}/{views}") for views in VIEWS
    }
    return {"training": bundle_command(row, "training", data, out, **length), **evaluations}


def as_typed(words: Sequence[str]) -> str:
    """Join words as one types them in a shell: a list of config files, which holds ', stands in "."""
    return " ".join(f'"{word}"' if "'" in word else shlex.quote(word) for word in words)


def call(words: Sequence[str], threads: int, python: str = sys.executable) -> None:
    """Run Python, or another interpreter, with these words.

    Raises:
        RowError: if it fails; holds the end of what it wrote.
    """
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    result = subprocess.run([python, *words], cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if result.returncode:
        # Of a progress bar, which goes back to the start of its line, only the last state is of interest.
        lines = [line.rpartition("\r")[2] for line in result.stdout.decode(errors="replace").split("\n")]
        raise RowError(f"exit status {result.returncode}\n" + "\n".join(lines)[-3000:].strip())


def steps_per_epoch(row: Row, data: str, length: Length) -> int:
    """Share out the steps among the epochs; train a few of them first to learn how many the minutes hold."""
    if length.minutes is None:
        return ceil((length.steps or 1) / EPOCHS)
    with tempfile.TemporaryDirectory() as out:
        settings = {"epochs": 1, "steps_per_epoch": PROBE_STEPS, "val_interval": 2}
        call(bundle_command(row, "training", data, out, **settings), length.threads)
        step_seconds = training_seconds(Path(out)) / PROBE_STEPS
    return max(round(60 * length.minutes / step_seconds / EPOCHS), 1)


def training_seconds(out: Path) -> float:
    """Read how long a training took: its steps with the loading of their tiles, and the writing of its states."""
    return json.loads((out / "report" / "history.json").read_text())["seconds"]


def read_measures(path: Path) -> dict[str, float]:
    """Read `metrics.csv` of an evaluation."""
    pairs = (line.split(",") for line in path.read_text().splitlines())
    return {name: float(value) for name, value in pairs}


def run_row(row: Row, data: str, length: Length, out: Path) -> dict[str, object]:
    """Train a row and evaluate its last weights.

    Args:
        row: the row.
        data: folder of the data set.
        length: how long to train.
        out: folder for weights and reports.

    Returns:
        What goes into the row's file. Its commands have DATA and OUT in place of the folders.

    Raises:
        RowError: if a command fails.
    """
    made_with = environment()  # before the training: the commit may change meanwhile
    steps = steps_per_epoch(row, data, length)
    for words in row_commands(row, steps, data, str(out)).values():
        call(words, length.threads)
    to_show = row_commands(row, steps, f"DATA/{Path(data).name}", "OUT")
    split = json.loads((out / "models" / "split.json").read_text())
    return {
        "kind": row.kind,
        "data_set": row.data_set,
        "name": row.name,
        "seed": row.seed,
        "overrides": row.overrides,
        "minutes_asked": length.minutes,
        "minutes": round(training_seconds(out) / 60, 2),
        "steps": EPOCHS * steps,
        "images": {use: len(items) for use, items in split.items()},
        "measures": {views: read_measures(out / views / "metrics.csv") for views in VIEWS},
        "commands": {
            name: f"OMP_NUM_THREADS={length.threads} {as_typed(['python', *words])}" for name, words in to_show.items()
        },
        **made_with,
        "threads": length.threads,
    }


def finish_row(
    row: Row, make: Callable[[Path], Mapping[str, object]], length: Length, results: Path, keep: Path | None = None
) -> str:
    """Make a row's file, whole or not at all, unless it is there.

    Args:
        row: the row.
        make: makes what goes into the file; called with a folder to work in.
        length: how long the row is to train.
        results: folder of the rows' files.
        keep: folder to work in, and to leave all that is made there; None for one that is thrown away.

    Returns:
        One line that says what became of the row.

    Raises:
        RowError: if it cannot be made, or the finished row has another length.
    """
    path = results / f"{row.title}.json"
    if path.exists():
        made = json.loads(path.read_text())
        asked = {"minutes_asked": length.minutes, "threads": length.threads}
        if length.steps:
            asked["steps"] = EPOCHS * ceil(length.steps / EPOCHS)
        found = {name: made[name] for name in asked}
        if found != asked:
            raise RowError(f"{path} must have {asked}, got {found}: move it away.")
        return "finished before"
    with tempfile.TemporaryDirectory() as work:
        result = make(keep / row.title if keep else Path(work))
    with writing(path) as part:
        part.write_text(json.dumps(result, indent=2) + "\n")
    return f"{result['steps']} steps, {result['minutes']} min, {result['measures']}"


def finish_rows(rows: Iterable[Row], finish: Callable[[Row], str]) -> None:
    """Finish one row after the other, and say what became of each; exit with 1 if one failed."""
    failed = {}
    for row in rows:
        try:
            print(f"{row.title}: {finish(row)}", flush=True)
        except RowError as error:
            failed[row.title] = str(error)
            print(f"{row.title}: FAILED", flush=True)
    if failed:
        sys.exit("\n".join(f"\n{title} FAILED:\n{error}" for title, error in failed.items()))


def read_rows(results: Path) -> list[dict[str, Any]]:
    """Read the files of the finished rows, in the order of the kinds, sets, names and seeds."""
    rows = [json.loads(path.read_text()) for path in results.glob("[!.]*.json")]
    kinds, sets = list(ROWS), list(FOLDERS)
    return sorted(
        rows,
        key=lambda row: (
            kinds.index(row["kind"]),
            sets.index(row["data_set"]),
            [*ROWS[row["kind"]], *LIBRARY_PEERS].index(row["name"]),
            row["seed"],
        ),
    )


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.experiments",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data_root", type=Path, help="folder of the data sets")
    parser.add_argument("--folder", nargs="*", default=[], metavar="SET=PATH", help="a set that lies elsewhere")
    parser.add_argument("--kind", choices=list(ROWS))
    parser.add_argument("--sets", nargs="+", choices=list(FOLDERS), help="(those of the kind)")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="(all of the kind)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="(0 1)")
    parser.add_argument("--minutes", type=float, default=10, help="of training for each row (10)")
    parser.add_argument("--steps", type=int, help="of training for each row, instead of minutes")
    parser.add_argument("--threads", type=int, default=1, help="(1)")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "docs" / "experiments", help="folder of the rows")
    parser.add_argument("--keep", type=Path, help="folder to keep weights and reports in (they are thrown away)")
    parser.add_argument("--table", action="store_true", help="write the tables of RESULTS.md, and run nothing")
    options = parser.parse_args(words)
    if options.table:
        return options
    if options.kind is None or options.data_root is None:
        parser.error("--kind and --data_root are needed, or --table.")
    unknown = sorted(set(options.rows or []) - set(ROWS[options.kind]))
    if unknown:
        parser.error(f"--rows must be of {', '.join(ROWS[options.kind])}, got {', '.join(unknown)}.")
    wrong = [entry for entry in options.folder if entry.partition("=")[0] not in FOLDERS or "=" not in entry]
    if wrong:
        parser.error(f"--folder must be SET=PATH with a SET of {', '.join(FOLDERS)}, got {', '.join(wrong)}.")
    return options


def main(words: Sequence[str] | None = None) -> None:
    """Run the rows that are not finished, or write the tables; exit with 1 if a row failed."""
    options = parse(words)
    if options.table:
        write_tables(read_rows(options.results), options.results.with_suffix(".md"))
        return
    folders = {name: options.data_root / folder for name, folder in FOLDERS.items()}
    folders |= {entry.partition("=")[0]: Path(entry.partition("=")[2]) for entry in options.folder}
    folders = {name: folder.expanduser().resolve() for name, folder in folders.items()}
    options.results.mkdir(parents=True, exist_ok=True)
    keep = options.keep and options.keep.resolve()
    kind = options.kind
    length = Length(None if options.steps else options.minutes, options.threads, options.steps)

    def finish(row: Row) -> str:
        data = str(folders[row.data_set])
        return finish_row(row, lambda out: run_row(row, data, length, out), length, options.results, keep)

    rows = plan(kind, options.sets or SETS[kind], options.rows or list(ROWS[kind]), options.seeds)
    finish_rows(rows, finish)


if __name__ == "__main__":
    main()
