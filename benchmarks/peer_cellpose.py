"""Train Cellpose 3 from scratch and predict; runs in an environment of its own, see `docs/experiments.md`.

    python -m benchmarks.peer_cellpose INPUTS --minutes 30 --seed 0 --threads 1 --output_dir OUT

The optimiser is that of `cellpose --train`: SGD at 0.2, decay of the weights 1e-5, eight crops of 224 px a step. The
schedule, warm-up and final halvings, and the augmentation are the library's.
"""

from __future__ import annotations

import copy
import tempfile
import time

import cv2
import numpy as np
import torch
from cellpose import dynamics, models, train

from benchmarks.peer_job import Job, divide_steps, read_job, write_results

BATCH_SIZE = 8
# The library's schedule counts in epochs: a warm-up of ten; with more than 100 a fall over the last 50, with more than
# 300 over the last 100; with fewer none. So an epoch is stretched until there are about this many. A training of
# fewer steps has an epoch for each, and may have no fall.
EPOCHS = 200
GREY = [0, 0]


class Training:
    """Networks trained on the same images for different numbers of steps."""

    def __init__(self, job: Job, device: torch.device) -> None:
        # Images without a cell have no diameter to rescale them by.
        with_cells = [(image, label) for image, label in job.training if label.any()]
        self.images = [image for image, _ in with_cells]
        # Computed once, so that a run of `seconds` is hardly more than its steps.
        self.flows = dynamics.labels_to_flows([label.astype(np.uint16) for _, label in with_cells], device=device)

    def seconds(self, network: torch.nn.Module, epochs: int, steps_per_epoch: int) -> float:
        """Train a network; say how long it took."""
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            train.train_seg(
                network,
                train_data=self.images,
                train_labels=self.flows,
                channels=GREY,
                batch_size=BATCH_SIZE,
                SGD=True,
                learning_rate=0.2,
                weight_decay=1e-5,
                n_epochs=epochs,
                nimg_per_epoch=BATCH_SIZE * steps_per_epoch,
                min_train_masks=1,
                save_path=folder,
            )
        return time.perf_counter() - start

    def step_seconds(self, network: torch.nn.Module) -> float:
        """Measure a step on copies of a network, without what a run takes at its start and end.

        Raises:
            RuntimeError: if six steps take no longer than two.
        """
        self.seconds(copy.deepcopy(network), 1, 1)  # what only the very first run takes
        short, long = (self.seconds(copy.deepcopy(network), 1, steps) for steps in (2, 6))
        if long <= short:
            raise RuntimeError(f"six steps must take longer than two, got {long:.3f} s and {short:.3f} s.")
        return (long - short) / 4


def main() -> None:
    """Train for the minutes, then predict."""
    job = read_job()
    torch.set_num_threads(job.threads)
    cv2.setNumThreads(job.threads)
    torch.manual_seed(job.seed)
    model = models.CellposeModel(gpu=torch.cuda.is_available(), pretrained_model=False)
    training = Training(job, model.device)
    epochs, of_epoch = divide_steps(int(60 * job.minutes / training.step_seconds(model.net)), epochs=EPOCHS)
    seconds = training.seconds(model.net, epochs, of_epoch)
    # The mean of what `train_seg` measured in the labels, each of whose images it rescaled by its own.
    diameter = model.net.diam_labels.item()
    instances = [model.eval(image, channels=GREY, diameter=diameter)[0] for image in job.validation]
    write_results(job, instances, steps=epochs * of_epoch, seconds=seconds, packages=("cellpose", "torch", "numpy"))


if __name__ == "__main__":
    main()
