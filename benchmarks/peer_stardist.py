"""Train StarDist from scratch and predict; runs in an environment of its own, see `docs/experiments.md`.

    python -m benchmarks.peer_stardist INPUTS --minutes 30 --seed 0 --threads 1 --output_dir OUT

The recipe is that of the library's example for 2-D: 32 rays, percentiles 1 and 99.8 as 0 and 1, flips, quarter turns
and changes of intensity, 15 % of the training images held out to choose the weights and the thresholds by, and a grid
so coarse that the network sees a typical cell as a whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from csbdeep.utils import normalize
from stardist import calculate_extents, fill_label_holes
from stardist.models import Config2D, StarDist2D

from benchmarks.peer_job import Job, hold_out, read_job, write_results

GRIDS = (2, 4, 8)


class TimeLimit(tf.keras.callbacks.Callback):
    """Stop a training when its steps took the time; validations do not count."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.limit = seconds
        self.seconds, self.steps = 0.0, 0
        self.started = 0.0

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Count a step with the loading of its tiles."""
        now = time.perf_counter()
        self.seconds, self.started = self.seconds + now - self.started, now
        self.steps += 1
        self.model.stop_training = self.seconds >= self.limit


def augmenter(seed: int) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Make the function that turns, flips and brightens a training tile."""
    rng = np.random.default_rng(seed)

    def augment(image: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        turns, flip = rng.integers(4), rng.integers(2)
        image, label = (np.rot90(plane, turns) for plane in (image, label))
        if flip:
            image, label = image[::-1], label[::-1]
        return image * rng.uniform(0.6, 2) + rng.uniform(-0.2, 0.2), label

    return augment


def make_model(images: Sequence[np.ndarray], labels: Sequence[np.ndarray], job: Job) -> StarDist2D:
    """Make an untrained model with the finest grid at which its field of view holds the median cell."""
    extents = calculate_extents(labels, np.median)
    for grid in GRIDS:
        shortest = min(min(image.shape) for image in images)
        unit = 8 * grid
        config = Config2D(
            n_rays=32,
            grid=(grid, grid),
            train_patch_size=(min(256, shortest // unit * unit),) * 2,
            train_tensorboard=False,
        )
        model = StarDist2D(config, name=f"grid_{grid}", basedir=str(job.output_dir))
        if all(extents <= np.asarray(model._axes_tile_overlap("YX"))):
            break
    return model


def main() -> None:
    """Train for the minutes, then predict."""
    job = read_job()
    tf.config.threading.set_intra_op_parallelism_threads(job.threads)
    tf.config.threading.set_inter_op_parallelism_threads(job.threads)
    tf.keras.utils.set_random_seed(job.seed)
    images = [normalize(image, 1, 99.8) for image, _ in job.training]
    labels = [fill_label_holes(label) for _, label in job.training]
    (x, y), (x_held, y_held) = (
        ([images[i] for i in indices], [labels[i] for i in indices])
        for indices in hold_out(len(images), share=0.15, seed=job.seed)
    )
    model = make_model(images, labels, job)  # of all: patches are cut out of the images held out, too
    model.prepare_for_training()
    limit = TimeLimit(60 * job.minutes)
    model.callbacks.append(limit)
    # Without workers the tiles are made in the training's own thread.
    model.train(x, y, validation_data=(x_held, y_held), augmenter=augmenter(job.seed), seed=job.seed, workers=0)
    model.optimize_thresholds(x_held, y_held)
    instances = [model.predict_instances(normalize(image, 1, 99.8))[0] for image in job.validation]
    packages = ("stardist", "csbdeep", "tensorflow-cpu", "numpy")
    write_results(job, instances, steps=limit.steps, seconds=limit.seconds, packages=packages)


if __name__ == "__main__":
    main()
