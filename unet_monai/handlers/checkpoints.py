"""Write and read training states so that a kill, at any moment, leaves a whole file."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Events
from monai.engines.workflow import Workflow
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from unet_monai.data.writing import writing
from unet_monai.networks.weights_file import check_weights_fit, read_weights_file

logger = logging.getLogger(__name__)

STATE_KEYS = ("network", "averaged_network", "optimizer", "epoch", "best_metric", "best_metric_epoch")


def save_atomically(state: Any, path: str | Path) -> None:
    """Save ``state`` under a temporary name, then rename it: ``path`` is always the old or the new file, whole.

    Raises:
        OSError: naming the file, if it can't be written: where the disk is full, for instance.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with writing(target) as part, open(part, "wb") as file:
        torch.save(state, file)


class CheckpointHandler:
    """Keep the best weights and the last training state, after each epoch of the trainer.

    The weights are the plain state dict of the averaged network, the one that is validated: those of the best
    validation so far, or the newest ones where there is nothing to validate. Attach it after the validation handler,
    so that an epoch's validation is over. Of several processes the first one writes.

    Args:
        weights_path: file of the weights, such as ``models/model.pt``.
        state_path: file of the training state, for :class:`ResumeHandler`.
        network: the network that is trained.
        averaged_network: its average over the last steps, see :class:`WeightAveragingHandler`.
        optimizer: the optimiser.
        evaluator: the engine that validates; its key metric decides.
    """

    def __init__(
        self,
        weights_path: str,
        state_path: str,
        network: nn.Module,
        averaged_network: nn.Module,
        optimizer: Optimizer,
        evaluator: Workflow,
    ) -> None:
        self.weights_path = weights_path
        self.state_path = state_path
        self.network = network
        self.averaged_network = averaged_network
        self.optimizer = optimizer
        self.evaluator = evaluator

    def attach(self, engine: Workflow) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.report)

    @idist.one_rank_only()
    def __call__(self, engine: Workflow) -> None:
        """Save after an epoch."""
        best = self.evaluator.state
        if self._never_validated() or best.best_metric_epoch == engine.state.epoch:
            save_atomically(self.averaged_network.state_dict(), self.weights_path)
        state = {
            "network": self.network.state_dict(),
            "averaged_network": self.averaged_network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": engine.state.epoch,
            "best_metric": float(best.best_metric),
            "best_metric_epoch": int(best.best_metric_epoch),
        }
        save_atomically(state, self.state_path)

    def report(self, engine: Workflow) -> None:
        """Say at the end which weights were kept."""
        best = self.evaluator.state
        figure = f"{best.key_metric_name} {best.best_metric:.3f} of epoch {best.best_metric_epoch}"
        logger.info("%s: %s", self.weights_path, "not validated" if self._never_validated() else figure)

    def _never_validated(self) -> bool:
        return self.evaluator.state.best_metric_epoch == -1 or math.isnan(self.evaluator.state.best_metric)


class ResumeHandler:
    """Go on with an interrupted training from the state that :class:`CheckpointHandler` wrote.

    The learning rate follows the schedule of the new run, from the epoch that was reached: with more ``epochs`` than
    before, a finished training goes on. The steps of an epoch may be others than before.

    Args:
        state_path: file of the training state.
        network: network to load into.
        averaged_network: its average, to load into.
        optimizer: the optimiser.
        lr_scheduler: its schedule, a function of the epoch.
        evaluator: the engine that validates; it gets the best metric so far.
        map_location: device of the loaded tensors.

    Raises:
        FileNotFoundError: when training starts and the file does not exist.
        ValueError: when that training had no fewer epochs than are asked for now, or another network or optimiser, and
            when the file holds something else.
    """

    def __init__(
        self,
        state_path: str,
        network: nn.Module,
        averaged_network: nn.Module,
        optimizer: Optimizer,
        lr_scheduler: LambdaLR,
        evaluator: Workflow,
        map_location: torch.device | str,
    ) -> None:
        self.state_path = state_path
        self.network = network
        self.averaged_network = averaged_network
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.evaluator = evaluator
        self.map_location = map_location

    def attach(self, engine: Workflow) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Workflow) -> None:
        """Load the state before the first epoch."""
        if not Path(self.state_path).is_file():
            raise FileNotFoundError(f"no training to resume at {self.state_path}: leave out --resume to start one.")
        state = self._read_state()
        if state["epoch"] >= engine.state.max_epochs:
            raise ValueError(
                f"epochs must exceed the {state['epoch']} already trained to resume, got {engine.state.max_epochs}."
            )
        self.network.load_state_dict(state["network"])
        self.averaged_network.load_state_dict(state["averaged_network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._set_learning_rate(state["epoch"])
        # The epochs may have another length than before.
        engine.state.epoch, engine.state.iteration = state["epoch"], state["epoch"] * engine.state.epoch_length
        self.evaluator.state.best_metric = state["best_metric"]
        self.evaluator.state.best_metric_epoch = state["best_metric_epoch"]
        logger.info("resumed after epoch %d from %s", state["epoch"], self.state_path)

    def _read_state(self) -> dict[str, Any]:
        """Load the state, and see that it is one of this network and optimiser before any of it is used."""
        name, path = "training to resume", self.state_path
        state = read_weights_file(path, name, self.map_location)
        missing = [key for key in STATE_KEYS if key not in state]
        if missing:
            raise ValueError(f"{name} must be a state that a training wrote, got none of {missing[0]!r} in {path}.")
        check_weights_fit(state["network"], self.network, name=name, path=path)
        ours, theirs = (optimizer["param_groups"][0] for optimizer in (self.optimizer.state_dict(), state["optimizer"]))
        if set(ours) != set(theirs):
            differs = ", ".join(sorted(set(ours) ^ set(theirs)))
            raise ValueError(f"{name} must have the same kind of optimiser, got another one in {path}: {differs}.")
        return state

    def _set_learning_rate(self, epoch: int) -> None:
        """Put the schedule at ``epoch``, as that many steps of it would have."""
        schedule = self.lr_scheduler
        schedule.last_epoch = epoch
        for group, base, factor in zip(
            self.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
        ):
            group["lr"] = base * factor(epoch)
