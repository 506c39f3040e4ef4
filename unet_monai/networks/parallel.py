"""Train one network on several processes."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel


def distribute(network: nn.Module) -> DistributedDataParallel:
    """Wrap a network so that the processes of the group train it together: each step averages their gradients.

    Batch normalisation takes the statistics of all processes' tiles: on GPUs by PyTorch's ``SyncBatchNorm``, which has
    no CPU form, elsewhere by :class:`SharedBatchNorm`.

    Args:
        network: the network, on its device; its batch normalisation is replaced in place, its weights stay the same.

    Returns:
        What to train; ``network`` stays what to save, to load and to average.

    Raises:
        ValueError: when the process group is not initialised (PyTorch's).
    """
    device: torch.device = next(network.parameters()).device
    if device.type == "cuda":
        return DistributedDataParallel(nn.SyncBatchNorm.convert_sync_batchnorm(network), device_ids=[device])
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm):
                setattr(module, name, SharedBatchNorm(child))
    return DistributedDataParallel(network)


class SharedBatchNorm(_BatchNorm):
    """Batch normalisation by the statistics of the tiles of all processes, which must have as many each, of one size.

    Args:
        norm: the batch normalisation whose place it takes, and whose parameters and running statistics it goes on with.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor
    momentum: float

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self._parameters, self._buffers, self.training = norm._parameters, norm._buffers, norm.training

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Normalise (B, C, *S), in training by what all processes have, otherwise by the running statistics."""
        if not self.training:
            return super().forward(features)
        axes, per_channel = [0, *range(2, features.ndim)], (-1, *[1] * (features.ndim - 2))
        processes = dist.get_world_size()
        mean = all_reduce(features.mean(axes)) / processes
        centred = features - mean.view(per_channel)
        variance = all_reduce(centred.square().mean(axes)) / processes
        with torch.no_grad():
            count = processes * features.numel() / len(mean)
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        factor = self.weight * torch.rsqrt(variance + self.eps)
        return centred * factor.view(per_channel) + self.bias.view(per_channel)

    def _check_input_dim(self, features: torch.Tensor) -> None:
        """Take any number of axes."""
