"""Train the bundle with one setting changed at a time, each for the same minutes, to fix the defaults of `train.json`.

    python -m benchmarks.defaults_ablation --dataset_dir DIR --name dsb2018 --minutes 5 --validation "*1"

Every row runs `python -m monai.bundle run training` in a process of its own, with one thread, two rows at a time. The
number of steps follows from the time of a step, measured first, so that all rows get the same minutes of steps.
Finished rows are kept in `docs/ablation/<name>.json` and skipped when the command is given again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import torch
from monai.bundle import ConfigParser

REPOSITORY = Path(__file__).parents[1]
# Steps of the learning rate's schedule in a row of any length; it validates halfway and at the end.
EPOCHS = 12
WIDE = [32, 64, 128, 256, 512]
BALANCED = (
    "{'_target_':'unet_monai.data.balanced_class_weights','data':'$@split[\\'training\\']',"
    "'ignore_label':'@ignore_label','spatial_dims':'@spatial_dims'}"
)
SGD = "{'_target_':'torch.optim.SGD','params':'$@network.parameters()','lr':'@learning_rate','momentum':0.99}"

ROWS: dict[str, dict[str, object]] = {
    "defaults": {},
    "rate 1e-2": {"learning_rate": 1e-2},
    "rate 1e-3": {"learning_rate": 1e-3},
    "SGD 0.99, rate 1e-2": {"optimizer": SGD, "learning_rate": 1e-2},
    "no norm, rate 1e-3": {"network_def#norm": None, "learning_rate": 1e-3},
    "no norm, rate 3e-4": {"network_def#norm": None, "learning_rate": 3e-4},
    "width 32": {"network_def#features": WIDE},
    "width 32, no norm, rate 3e-4": {"network_def#features": WIDE, "network_def#norm": None, "learning_rate": 3e-4},
    "tile 252, batch 4": {"tile_size": 252, "batch_size": 4},
    "tile 316, batch 2": {"tile_size": 316, "batch_size": 2},
    "tile 572": {"tile_size": 572},
    "dropout 0.5": {"network_def#dropout": 0.5},
    "no elastic": {"elastic_magnitude": 0},
    "w0 0": {"w0": 0},
    "balanced class weights": {"class_weights": BALANCED},
}


def step_seconds(settings: dict[str, object]) -> float:
    """Time a training step (forward, backward, update) of a row on one thread, the best of three."""
    config = ConfigParser(ConfigParser.load_config_file(str(REPOSITORY / "bundle/configs/train.json")))
    config.update({key: value for key, value in settings.items() if key not in ("optimizer", "class_weights")})
    torch.set_num_threads(1)
    network, loss = config.get_parsed_content("network_def"), config.get_parsed_content("loss")
    optimizer = torch.optim.Adam(network.parameters())
    batch, side = config["batch_size"], config["tile_size"]
    tile = torch.rand(batch, 1, side, side)
    target = torch.ones(batch, 2, *network.output_size(side))
    times = []
    for _ in range(4):
        start = time.monotonic()
        optimizer.zero_grad()
        loss(network(tile), target).backward()
        optimizer.step()
        times.append(time.monotonic() - start)
    return min(times[1:])


def run_row(settings: dict[str, object], steps: int) -> dict[str, float]:
    """Train once in a process of its own; return the last SEG, the best one and the seconds it took."""
    run = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", "training"]
    run += ["--config_file", str(REPOSITORY / "bundle/configs/train.json"), "--epochs", str(EPOCHS)]
    run += ["--steps_per_epoch", str(max(steps // EPOCHS, 1)), "--val_interval", str(EPOCHS // 2)]
    with tempfile.TemporaryDirectory() as work:
        run += ["--ckpt_dir", f"{work}/models", "--output_dir", f"{work}/output"]
        run += [word for key, value in settings.items() for word in (f"--{key}", str(value))]
        start = time.monotonic()
        result = subprocess.run(run, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
        if result.returncode:
            raise RuntimeError(result.stderr[-2000:])
        state = torch.load(f"{work}/output/last.pt", weights_only=True)
    last = float(re.findall(r"SEG=([\d.]+|nan)", result.stderr)[-1])
    return {"SEG": last, "best SEG": state["best_metric"], "steps": steps, "seconds": round(time.monotonic() - start)}


def table(finished: dict[str, dict[str, float]]) -> str:
    """Write the finished rows as a Markdown table, the best first."""
    rows = sorted(finished.items(), key=lambda row: -row[1]["SEG"])
    lines = [f"| {name.replace(' | ', ', ')} | {row['steps']} | {row['SEG']:.3f} |" for name, row in rows]
    return "\n".join(["| changed, seed, minutes | steps | SEG |", "|---|---|---|", *lines])


def label(name: str, args: argparse.Namespace) -> str:
    """Name a finished row: what was changed, the seed and the minutes."""
    return f"{name} | seed {args.seed} | {args.minutes:g} min"


def main() -> None:
    """Run the rows that are not finished yet, two at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--validation", default="0.2")
    parser.add_argument("--label_source")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS), metavar="ROW")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    path = REPOSITORY / "docs" / "ablation" / f"{args.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    finished: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}
    data = {"dataset_dir": args.dataset_dir, "validation": args.validation, "seed": args.seed}
    if args.label_source:
        data["label_source"] = args.label_source
    lock = Lock()
    names = [name for name in args.rows if label(name, args) not in finished]
    steps = {name: int(60 * args.minutes / step_seconds(ROWS[name])) for name in names}

    def work(name: str) -> None:
        row = run_row({**data, **ROWS[name]}, steps[name])
        with lock:
            finished[label(name, args)] = row
            path.write_text(json.dumps(finished, indent=2) + "\n")
        print(f"{args.name}: {label(name, args)}: {row}", flush=True)

    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(work, names))
    print(table(finished))


if __name__ == "__main__":
    main()
