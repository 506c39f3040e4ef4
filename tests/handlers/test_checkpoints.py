from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import pytest
import torch
from ignite.engine import Events
from unet_monai.handlers import CheckpointHandler
from unet_monai.handlers.checkpoints import save_atomically
from unet_monai.networks import ValidUNet

from tests.handlers.training import Training, make_training


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def assert_same_weights(one: dict, other: dict) -> None:
    assert list(one) == list(other)
    for key in one:
        assert torch.equal(one[key], other[key]), key


class TestSaveAtomically:
    def test_makes_the_folder_and_leaves_nothing_else(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "folder" / "model.pt"
        save_atomically({"a": torch.arange(3)}, path)
        assert load(path)["a"].tolist() == [0, 1, 2]
        assert [p.name for p in path.parent.iterdir()] == ["model.pt"]

    def test_replaces_the_old_file(self, tmp_path: Path) -> None:
        for value in (1, 2):
            save_atomically({"a": torch.tensor(value)}, str(tmp_path / "model.pt"))
        assert load(tmp_path / "model.pt")["a"] == 2

    def test_a_kill_while_writing_leaves_the_old_file_whole(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "model.pt"
        save_atomically({"a": torch.tensor(1)}, path)
        before = path.read_bytes()

        def killed(state: object, file: BinaryIO) -> None:
            file.write(b"half a fi")
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(torch, "save", killed)
            with pytest.raises(KeyboardInterrupt):
                save_atomically({"a": torch.tensor(2)}, path)
        assert path.read_bytes() == before
        assert list(tmp_path.glob("*.pt")) == [path], "a half-written file must not look like weights"
        save_atomically({"a": torch.tensor(3)}, path)
        assert load(path)["a"] == 3
        assert len(list(tmp_path.iterdir())) == 1, "the next save takes over what the kill left"


class TestCheckpointHandler:
    def saved(self, tmp_path: Path, best_metric: float, best_metric_epoch: int) -> bool:
        """Tell whether the weights of epoch 4 become the ones to keep."""
        network = torch.nn.Linear(1, 1)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        evaluator = SimpleNamespace(state=SimpleNamespace(best_metric=best_metric, best_metric_epoch=best_metric_epoch))
        paths = [str(tmp_path / "model.pt"), str(tmp_path / "last.pt")]
        handler = CheckpointHandler(*paths, network, network, optimizer, evaluator)
        handler(SimpleNamespace(state=SimpleNamespace(epoch=4)))
        state = load(tmp_path / "last.pt")
        assert (state["epoch"], state["best_metric_epoch"]) == (4, best_metric_epoch)
        assert state["best_metric"] == pytest.approx(best_metric, nan_ok=True)
        return (tmp_path / "model.pt").exists()

    def test_weights_of_the_best_epoch_are_kept(self, tmp_path: Path) -> None:
        assert self.saved(tmp_path, 0.9, best_metric_epoch=4)

    def test_weights_of_another_epoch_are_not(self, tmp_path: Path) -> None:
        assert not self.saved(tmp_path, 0.9, best_metric_epoch=3)

    @pytest.mark.parametrize(("metric", "epoch"), [(-1, -1), (math.nan, 1)])
    def test_without_a_validation_the_newest_are_kept(self, tmp_path: Path, metric: float, epoch: int) -> None:
        assert self.saved(tmp_path, metric, best_metric_epoch=epoch)

    def test_best_and_last_of_a_training(self, tmp_path: Path) -> None:
        training = make_training(tmp_path, epochs=5)
        weights: dict[int, dict] = {}

        def remember(trainer: object) -> None:
            state = training.averaged_network.state_dict()
            weights[training.trainer.state.epoch] = {key: value.clone() for key, value in state.items()}

        training.trainer.add_event_handler(Events.EPOCH_COMPLETED, remember)
        training.trainer.run()
        best = training.evaluator.state.best_metric_epoch
        assert 1 <= best < 5, "test invalid: the last epoch is the best"
        assert_same_weights(load(training.weights_path), weights[best])
        last = load(training.state_path)
        assert_same_weights(last["averaged_network"], weights[5])
        assert_same_weights(last["network"], training.network.state_dict())
        assert (last["epoch"], last["best_metric_epoch"]) == (5, best)

    def test_an_empty_validation_list_keeps_the_final_weights(self, tmp_path: Path) -> None:
        training = make_training(tmp_path, epochs=2, validate=False)
        training.trainer.run()
        assert_same_weights(load(training.weights_path), training.averaged_network.state_dict())


class TestResumeHandler:
    @pytest.mark.parametrize("killed_in", [2, 4])
    def test_killed_and_resumed_equals_undisturbed_bit_for_bit(self, tmp_path: Path, killed_in: int) -> None:
        undisturbed = make_training(tmp_path / "a", epochs=5)
        undisturbed.trainer.run()

        killed = make_training(tmp_path / "b", epochs=5)
        # In the middle of an epoch: its first step is done, its second is not.
        killed.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=2 * killed_in - 1), interrupt)
        with pytest.raises(RuntimeError, match="killed"):
            killed.trainer.run()
        assert load(killed.state_path)["epoch"] == killed_in - 1
        resumed = make_training(tmp_path / "b", epochs=5, resume=True)
        epochs: list[int] = []
        resumed.trainer.add_event_handler(Events.EPOCH_STARTED, lambda engine: epochs.append(engine.state.epoch))
        resumed.trainer.run()

        assert epochs == list(range(killed_in, 6))
        assert_same_training(resumed, undisturbed)

    def test_a_finished_training_can_be_made_longer(self, tmp_path: Path) -> None:
        make_training(tmp_path, epochs=2).trainer.run()
        longer = make_training(tmp_path, epochs=3, resume=True)
        rates: list[float] = []
        longer.trainer.add_event_handler(
            Events.EPOCH_STARTED, lambda engine: rates.append(longer.optimizer.param_groups[0]["lr"])
        )
        longer.trainer.run()
        assert rates == [pytest.approx(0.05 * 0.5 * (1 + math.cos(math.pi * 2 / 3)))]
        assert load(longer.state_path)["epoch"] == 3

    @pytest.mark.parametrize("steps", [1, 3])
    def test_epochs_of_another_length(self, tmp_path: Path, steps: int) -> None:
        make_training(tmp_path, epochs=2).trainer.run()
        resumed = make_training(tmp_path, epochs=4, resume=True, steps_per_epoch=steps)
        numbers: list[tuple[int, int]] = []
        resumed.trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda engine: numbers.append((engine.state.epoch, engine.state.iteration))
        )
        resumed.trainer.run()
        assert numbers == [(3 + n // steps, 2 * steps + n + 1) for n in range(2 * steps)]

    def test_without_a_state(self, tmp_path: Path) -> None:
        training = make_training(tmp_path, epochs=2, resume=True)
        with pytest.raises(FileNotFoundError, match=r"no training to resume at .*last\.pt: leave out --resume"):
            training.trainer.run()
        assert not training.weights_path.exists()

    def test_with_no_epoch_left(self, tmp_path: Path) -> None:
        make_training(tmp_path, epochs=2).trainer.run()
        for epochs in (1, 2):
            with pytest.raises(ValueError, match=rf"epochs must exceed the 2 already trained .*, got {epochs}\."):
                make_training(tmp_path, epochs=epochs, resume=True).trainer.run()

    @pytest.mark.parametrize(
        ("state", "message"),
        [
            ({"network": {}}, r"must be a state that a training wrote, got none of 'averaged_network' in .*last\.pt\."),
            ({}, r"must be a state that a training wrote, got none of 'network' in .*last\.pt\."),
            ([1], r"must be a file of weights such as model\.pt, got .*last\.pt \(list\)\."),
        ],
    )
    def test_with_something_else_in_its_file(self, tmp_path: Path, state: object, message: str) -> None:
        training = make_training(tmp_path, epochs=2, resume=True)
        training.state_path.parent.mkdir()
        torch.save(state, training.state_path)
        with pytest.raises(ValueError, match=rf"^training to resume {message}$"):
            training.trainer.run()

    def test_with_another_network(self, tmp_path: Path) -> None:
        make_training(tmp_path, epochs=1).trainer.run()
        state = load(tmp_path / "output" / "last.pt")
        state["network"] = ValidUNet(features=(3, 4), norm="batch").state_dict()
        torch.save(state, tmp_path / "output" / "last.pt")
        training = make_training(tmp_path, epochs=2, resume=True)
        with pytest.raises(ValueError, match=r"training to resume must fit .*: add --network_def#features '\[3,4\]'$"):
            training.trainer.run()

    def test_with_another_kind_of_optimiser(self, tmp_path: Path) -> None:
        make_training(tmp_path, epochs=1).trainer.run()
        state = load(tmp_path / "output" / "last.pt")
        state["optimizer"]["param_groups"][0]["momentum"] = 0.9
        torch.save(state, tmp_path / "output" / "last.pt")
        with pytest.raises(ValueError, match=r"must have the same kind of optimiser, got .*last\.pt: momentum\."):
            make_training(tmp_path, epochs=2, resume=True).trainer.run()


def interrupt(engine: object) -> None:
    raise RuntimeError("killed")


def assert_same_training(one: Training, other: Training) -> None:
    for path in ("weights_path", "state_path"):
        mine, theirs = load(getattr(one, path)), load(getattr(other, path))
        if path == "state_path":
            for name in ("network", "averaged_network"):
                assert_same_weights(mine.pop(name), theirs.pop(name))
            optimizers = mine.pop("optimizer"), theirs.pop("optimizer")
            assert optimizers[0]["param_groups"] == optimizers[1]["param_groups"]
            for i, state in optimizers[0]["state"].items():
                assert_same_weights(state, optimizers[1]["state"][i])
            assert mine == theirs
        else:
            assert_same_weights(mine, theirs)
    assert_same_weights(one.network.state_dict(), other.network.state_dict())
