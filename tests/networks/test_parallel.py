"""What `distribute` relies on where there are GPUs, as far as a CPU can tell."""

from __future__ import annotations

import pytest
import torch
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


def test_processes_must_be_known() -> None:
    with pytest.raises(ValueError, match="Default process group has not been initialized"):
        distribute(ValidUNet(features=(2, 4)))
