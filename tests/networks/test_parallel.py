"""Two processes on the CPU; and what `distribute` relies on where there are GPUs, as far as a CPU can tell."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from unet_monai.networks import ValidUNet, distribute


def test_synchronised_normalisation_has_the_same_weights_and_scores() -> None:
    """What was made of the network before, optimiser, average and checkpoint, goes on with what it becomes."""
    torch.manual_seed(0)
    network = ValidUNet(features=(2, 4, 8), norm="batch")
    for name, statistics in network.named_buffers():
        if name.endswith("running_mean"):
            statistics.normal_()
    weights = dict(network.named_parameters())
    tile = torch.rand(1, 1, 84, 84)
    network.eval()
    with torch.inference_mode():
        expected = network(tile)
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    assert synchronised is network
    assert any(isinstance(module, nn.SyncBatchNorm) for module in network.modules()), "test invalid"
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    now = dict(network.named_parameters())
    assert list(now) == list(weights)
    assert all(now[name] is weights[name] for name in weights)
    ValidUNet.from_state_dict(network.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(network(tile), expected)


def trained(spatial_dims: int, rank: int | None) -> dict[str, torch.Tensor]:
    """Train for three steps of two tiles each, of which a process of two takes one."""
    torch.manual_seed(0)
    network = ValidUNet(spatial_dims, features=(2, 4), norm="batch", dropout=0.0).double()
    model = network if rank is None else distribute(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01, eps=1e-3)
    for tiles in torch.rand(3, 2, 1, *[24] * spatial_dims, dtype=torch.float64):
        optimizer.zero_grad()
        model(tiles if rank is None else tiles[rank : rank + 1]).square().mean().backward()
        optimizer.step()
    scores = network.eval()(torch.rand(1, 1, *[24] * spatial_dims, dtype=torch.float64))
    return {**network.state_dict(), "scores": scores.detach()}


def train_one_of_two(rank: int, folder: Path, spatial_dims: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save(trained(spatial_dims, rank), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_two_processes_normalise_by_the_tiles_of_both(tmp_path: Path, spatial_dims: int) -> None:
    torch.multiprocessing.spawn(train_one_of_two, (tmp_path, spatial_dims), nprocs=2)
    expected = trained(spatial_dims, rank=None)
    for rank in (0, 1):
        state = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert list(state) == list(expected)
        for name, values in expected.items():
            torch.testing.assert_close(state[name], values, rtol=0, atol=1e-9, equal_nan=True)


def test_processes_must_be_known() -> None:
    with pytest.raises(ValueError, match="Default process group has not been initialized"):
        distribute(ValidUNet(features=(2, 4)))
