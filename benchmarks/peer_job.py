"""What `library_peers` and a peer's own interpreter tell each other; needs NumPy only."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Job(NamedTuple):
    """A training, and the images to predict. All arrays have their rows first.

    Attributes:
        training: images, float32 (H, W) each, and their instances, int32 (H, W), 0 background.
        validation: images to predict, float32 (H, W); their labels are not told.
        minutes: how long the steps of the training may take together.
        seed: seed of the training.
        threads: threads to compute with.
        output_dir: folder of the results.
    """

    training: list[tuple[np.ndarray, np.ndarray]]
    validation: list[np.ndarray]
    minutes: float
    seed: int
    threads: int
    output_dir: Path


def write_inputs(folder: Path, training: Sequence[tuple[np.ndarray, np.ndarray]], validation: list[np.ndarray]) -> Path:
    """Write the arrays of a job.

    Returns:
        The list of the files, JSON: ``{"training": [{"image": ..., "label": ...}], "validation": [...]}``.
    """
    folder.mkdir(parents=True)
    lists: dict[str, list[object]] = {"training": [], "validation": []}
    for i, (image, label) in enumerate(training):
        pair = {"image": f"training_{i:04d}.npy", "label": f"training_{i:04d}_label.npy"}
        np.save(folder / pair["image"], image)
        np.save(folder / pair["label"], label)
        lists["training"].append(pair)
    for i, image in enumerate(validation):
        name = f"validation_{i:04d}.npy"
        np.save(folder / name, image)
        lists["validation"].append(name)
    path = folder / "inputs.json"
    path.write_text(json.dumps(lists, indent=2) + "\n")
    return path


def read_job(words: Sequence[str] | None = None) -> Job:
    """Read the command line of a peer, and the arrays that it names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("inputs", type=Path, help="list of the images and labels, JSON")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    options = parser.parse_args(words)
    lists, folder = json.loads(options.inputs.read_text()), options.inputs.parent
    training = [(np.load(folder / pair["image"]), np.load(folder / pair["label"])) for pair in lists["training"]]
    validation = [np.load(folder / name) for name in lists["validation"]]
    return Job(training, validation, options.minutes, options.seed, options.threads, options.output_dir)


def write_results(
    job: Job, instances: Sequence[np.ndarray], *, steps: int, seconds: float, packages: Sequence[str]
) -> None:
    """Write the instances of each validation image, and how the training went.

    Args:
        job: the job.
        instances: (H, W), 0 background, one for each image of `job.validation`, in its order.
        steps: steps of the training.
        seconds: what they took.
        packages: installed packages whose versions to note.
    """
    job.output_dir.mkdir(parents=True, exist_ok=True)
    for i, of_image in enumerate(instances):
        np.save(job.output_dir / f"{i:04d}.npy", of_image.astype(np.int32))
    versions = {name: version(name) for name in packages}
    training = {"steps": steps, "seconds": seconds, "versions": versions}
    (job.output_dir / "training.json").write_text(json.dumps(training, indent=2) + "\n")


def hold_out(count: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Draw the images of a training that it is watched by; at least one, and at least one to train on.

    Returns:
        Indices of the images that train, and of those held out.

    Example:
        >>> train, held_out = hold_out(20, share=0.15, seed=0)
        >>> len(train), len(held_out), sorted(train + held_out) == list(range(20))
        (17, 3, True)
    """
    order = np.random.default_rng(seed).permutation(count).tolist()
    watched = min(max(round(share * count), 1), count - 1)
    return order[watched:], order[:watched]


def divide_steps(steps: int, *, epochs: int) -> tuple[int, int]:
    """Divide the steps that there is time for into epochs: as many as asked for, or as there are steps.

    Returns:
        Number of epochs, and steps in each.

    Example:
        >>> divide_steps(900, epochs=200), divide_steps(150, epochs=200), divide_steps(0, epochs=200)
        ((225, 4), (150, 1), (1, 1))
    """
    of_epoch = max(steps // epochs, 1)
    return max(steps // of_epoch, 1), of_epoch
