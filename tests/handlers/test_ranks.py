"""Handlers in two processes that hold different data."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ignite.distributed as idist
import numpy as np
import pytest
import torch
import torch.distributed as dist
from ignite.engine import Engine
from ignite.handlers import time_limit
from monai.data import Dataset
from torch.utils.tensorboard import SummaryWriter
from unet_monai.handlers import (
    CellSizeHandler,
    CheckpointHandler,
    EpochSeedHandler,
    SplitHandler,
    TimeLimitHandler,
    WeightAveragingHandler,
    open_summary_writer,
)
from unet_monai.handlers.epoch_seed import RANK_STRIDE
from unet_monai.handlers.ranks import gather

from tests.handlers.test_cell_size import CELLS, MEDIAN, inferer_of, make
from tests.handlers.test_cell_size import run as run_cell_size

Result = dict[str, Any]


def last_step(rank: int) -> int:
    """Run 9 steps with a limit of a minute, which is up in step 4 of rank 1 only."""
    clock = [1000.0]
    time_limit.time = SimpleNamespace(time=lambda: clock[0])

    def step(engine: Engine, batch: int) -> None:
        clock[0] += 20 * rank

    engine = Engine(step)
    TimeLimitHandler(minutes=1).attach(engine)
    engine.run(range(9))
    return engine.state.iteration


def averaged_statistics(rank: int) -> tuple[float, float]:
    """Return the running mean of a rank's own network, and of the average, after an epoch of images of its own."""
    network, averaged = torch.nn.BatchNorm2d(1), torch.nn.BatchNorm2d(1)
    engine = Engine(lambda engine, image: network(image))
    WeightAveragingHandler(network, averaged).attach(engine)
    engine.run([torch.full((1, 1, 2, 2), 10.0 + rank)])
    return network.running_mean.item(), averaged.running_mean.item()


def warnings_of_size(rank: int) -> list[str]:
    """Return what is logged of cells of which a rank has seen a share."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger("unet_monai").addHandler(handler)
    network = make(cell_diameter=20)
    run_cell_size(CellSizeHandler(network, inferer_of(network)), [CELLS[rank], CELLS[2]])
    return messages


def files_written(folder: Path) -> list[str]:
    """List what a rank writes to a folder of its own in a training of one epoch."""
    network = torch.nn.Conv2d(1, 1, 1)
    best = SimpleNamespace(best_metric=0.5, best_metric_epoch=1, key_metric_name="SEG")
    optimizer = torch.optim.SGD(network.parameters())
    weights, state = (str(folder / name) for name in ("model.pt", "last.pt"))
    engine = Engine(lambda engine, image: None)
    CheckpointHandler(weights, state, network, network, optimizer, SimpleNamespace(state=best)).attach(engine)
    SplitHandler(str(folder / "split.json"), Dataset([]), Dataset([])).attach(engine)
    engine.run([0])
    return sorted(path.name for path in folder.glob("*"))


def random_number() -> float:
    EpochSeedHandler(seed=5)(SimpleNamespace(state=SimpleNamespace(epoch=1)))
    return torch.rand(1).item()


def work(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    result = {
        "gathered": gather(f"of rank {rank}"),
        "last step": last_step(rank),
        "statistics": averaged_statistics(rank),
        "warnings": warnings_of_size(rank),
        "random": random_number(),
        "files": files_written(folder / f"files of {rank}"),
        "writer": type(open_summary_writer(str(folder / "events"))).__name__,
    }
    torch.save(result, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(work, (folder,), nprocs=2)
    assert len(list((folder / "events").iterdir())) == 1
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


def test_values_come_together_on_the_first_rank(results: list[Result]) -> None:
    assert [result["gathered"] for result in results] == [["of rank 0", "of rank 1"], []]


def test_all_end_after_the_step_in_which_the_time_of_one_is_up(results: list[Result]) -> None:
    assert [result["last step"] for result in results] == [4, 4]


def test_all_validate_with_the_statistics_of_the_first_rank(results: list[Result]) -> None:
    (own_0, averaged_0), (own_1, averaged_1) = (result["statistics"] for result in results)
    assert own_0 != own_1, "test invalid"
    assert averaged_0 == averaged_1 == own_0


def test_one_warns_by_the_cells_of_all(results: list[Result]) -> None:
    (warning,), nothing = (result["warnings"] for result in results)
    assert nothing == []
    assert f"median diameter of {MEDIAN:.1f} px" in warning


def test_ranks_draw_different_random_numbers(results: list[Result]) -> None:
    for rank, result in enumerate(results):
        torch.manual_seed(6 + rank * RANK_STRIDE)
        assert result["random"] == torch.rand(1).item()


def test_one_writer(results: list[Result]) -> None:
    assert [result["files"] for result in results] == [["last.pt", "model.pt", "split.json"], []]
    assert [result["writer"] for result in results] == [SummaryWriter.__name__, "SilentWriter"]


def test_alone_a_process_gathers_its_own() -> None:
    assert idist.get_world_size() == 1
    np.testing.assert_equal(gather([1, 2]), [[1, 2]])
