"""Train one network on several processes."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def distribute(network: nn.Module) -> DistributedDataParallel:
    """Wrap a network so that the processes of the group train it together: each step averages their gradients.

    On GPUs its batch normalisation takes the statistics of all processes' tiles. PyTorch cannot do so on CPUs, where
    each process normalises by its own.

    Args:
        network: the network, on its device; its batch normalisation is replaced in place, its weights stay the same.

    Returns:
        What to train; ``network`` stays what to save, to load and to average.

    Raises:
        ValueError: when the process group is not initialised (PyTorch's).
    """
    device: torch.device = next(network.parameters()).device
    if device.type != "cuda":
        return DistributedDataParallel(network)
    return DistributedDataParallel(nn.SyncBatchNorm.convert_sync_batchnorm(network), device_ids=[device])
