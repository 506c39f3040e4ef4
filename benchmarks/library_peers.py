"""Train StarDist and Cellpose 3 on the same images for the same minutes, and score them as their set's row is scored.

    python -m benchmarks.library_peers --data_root DATA --peer stardist --python PATH --minutes 30

Each peer runs in an interpreter of its own, `--python`, which has the peer and NumPy but neither MONAI nor this package
installed; `docs/experiments.md` says how to make one. It gets the training images and labels and the validation images
as arrays, and gives back instances. A row's file goes to `--results`, where finished rows are skipped.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from unet_monai.transforms.instances import remove_small_components

from benchmarks.experiments import (
    CONFIGS,
    FOLDERS,
    LIBRARY_PEERS,
    Length,
    Row,
    RowError,
    as_typed,
    call,
    finish_row,
    finish_rows,
)
from benchmarks.harness import REPOSITORY, environment
from benchmarks.peer_job import write_inputs

# Both outline cells: there is nothing in them for membranes.
SETS = tuple(name for name in FOLDERS if name != "em_isbi2012")


def read_set(data_set: str, data: Path) -> ConfigParser:
    """Read the configs that train and score a set."""
    config = ConfigParser()
    config.read_config([REPOSITORY / CONFIGS / "train.json", REPOSITORY / CONFIGS / "experiments" / f"{data_set}.json"])
    config["dataset_dir"] = str(data)
    return config


def read_images(config: ConfigParser, use: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Read images and labels as the evaluation does.

    The images' grey values are scaled by percentiles, which changes nothing for a peer that does so itself.

    Args:
        config: configs of the set.
        use: ``"training"`` or ``"validation"``.

    Returns:
        Pairs of float32 (H, W) and instances, int32 (H, W), below 0 where ignored.
    """
    read = config.get_parsed_content("validate#preprocessing")
    items = [read(item) for item in config.get_parsed_content("split")[use]]
    return [(item["image"].array[0].T.copy(), item["label"].array[0].T.copy()) for item in items]


def inside(image: np.ndarray, label: np.ndarray, margin: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut the margin off a training image, for a peer that cannot ignore pixels.

    Raises:
        RowError: if ignored pixels remain.
    """
    image, label = (plane[margin : len(plane) - margin, margin : plane.shape[1] - margin] for plane in (image, label))
    if (label < 0).any():
        raise RowError("labels must have ignored pixels in the margin only, got others.")
    return image, label


def score(config: ConfigParser, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Compute the measures of a set.

    Args:
        config: configs of the set.
        pairs: predicted and true instances, integers (H, W) each.

    Returns:
        The measures that `evaluate.json` writes to `metrics.csv`, without those of predictions under the least size.
    """
    measures = {}
    for group in ("key_metric", "additional_metrics"):
        for name in config[group]:
            metric = config.get_parsed_content(f"{group}#{name}#metric_fn")
            for pred, label in pairs:
                kept = remove_small_components(pred, config["min_size"])
                metric(y_pred=[torch.as_tensor(kept)[None]], y=[torch.as_tensor(label)[None]])
            measures[name] = float(metric.aggregate())
    return measures


def read_predictions(out: Path, labels: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Read a peer's instances.

    Raises:
        RowError: if one is missing or has not the size of its image.
    """
    predictions = []
    for i, label in enumerate(labels):
        path = out / f"{i:04d}.npy"
        if not path.is_file():
            raise RowError(f"{path.name} must be written by the peer, got no such file.")
        pred = np.load(path)
        if pred.shape != label.shape:
            raise RowError(f"{path.name} must have its image's shape {label.shape}, got {pred.shape}.")
        predictions.append(pred)
    return predictions


def run_peer(row: Row, data: Path, length: Length, python: str, out: Path) -> dict[str, object]:
    """Train a peer and score its predictions.

    Returns:
        What goes into the row's file.

    Raises:
        RowError: if the peer fails, or does not predict every image.
    """
    made_with = environment()
    config = read_set(row.data_set, data)
    training = [inside(*pair, config["margin"]) for pair in read_images(config, "training")]
    validation = read_images(config, "validation")
    inputs = write_inputs(out / "inputs", training, [image for image, _ in validation])
    call(peer_command(row, length, str(inputs), str(out / "predictions")), length.threads, python)
    labels = [label for _, label in validation]
    predictions = read_predictions(out / "predictions", labels)
    told: dict[str, Any] = json.loads((out / "predictions" / "training.json").read_text())
    shown = as_typed([f"{row.name}_env/bin/python", *peer_command(row, length, "OUT/inputs/inputs.json", "OUT")])
    return {
        "kind": row.kind,
        "data_set": row.data_set,
        "name": row.name,
        "seed": row.seed,
        "minutes_asked": length.minutes,
        "minutes": round(told["seconds"] / 60, 2),
        "steps": told["steps"],
        "images": {"training": len(training), "validation": len(validation)},
        "measures": {"identity": score(config, list(zip(predictions, labels, strict=True)))},
        "commands": {"training": f"OMP_NUM_THREADS={length.threads} {shown}"},
        **made_with,
        "peer_versions": told["versions"],
        "threads": length.threads,
    }


def peer_command(row: Row, length: Length, inputs: str, out: str) -> list[str]:
    """Write the words that train a peer, to be started by its interpreter in the repository's folder."""
    knobs = {"minutes": f"{length.minutes:g}", "seed": row.seed, "threads": length.threads, "output_dir": out}
    words = ["-W", "ignore", "-m", f"benchmarks.peer_{row.name}", inputs]
    return words + [word for key, value in knobs.items() for word in (f"--{key}", str(value))]


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.library_peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data_root", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--peer", choices=LIBRARY_PEERS, required=True)
    parser.add_argument("--python", required=True, metavar="PATH", help="interpreter that the peer is installed for")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS, help="(all but the membranes)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="(0 1)")
    parser.add_argument("--minutes", type=float, default=10, help="of training for each row (10)")
    parser.add_argument("--threads", type=int, default=1, help="(1)")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "docs" / "experiments", help="folder of the rows")
    options = parser.parse_args(words)
    python = shutil.which(Path(options.python).expanduser())
    if python is None:
        parser.error(f"--python must be an interpreter, got {options.python}.")
    # A link of a virtual environment must not be resolved: it is how Python finds the environment.
    options.python = str(Path(python).absolute())
    return options


def main(words: Sequence[str] | None = None) -> None:
    """Run the rows that are not finished; exit with 1 if one failed."""
    options = parse(words)
    options.results.mkdir(parents=True, exist_ok=True)
    data_root = options.data_root.expanduser().resolve()
    length = Length(options.minutes, options.threads)

    def finish(row: Row) -> str:
        data = data_root / FOLDERS[row.data_set]
        return finish_row(row, lambda out: run_peer(row, data, length, options.python, out), length, options.results)

    rows = [Row("peers", name, options.peer, seed) for seed in options.seeds for name in options.sets]
    finish_rows(rows, finish)


if __name__ == "__main__":
    main()
