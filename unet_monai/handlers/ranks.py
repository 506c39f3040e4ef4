"""One training, evaluation or inference on several processes: what they share, and which of them writes."""

from __future__ import annotations

from typing import Any, TypeVar

import ignite.distributed as idist
import torch.distributed as dist
from monai.data import Dataset, DistributedSampler
from torch.utils.tensorboard import SummaryWriter

T = TypeVar("T")


def gather(value: T) -> list[T]:
    """Bring one value of each process to the first one. All processes must call it, in the same order.

    Args:
        value: this process's own; anything that can be pickled.

    Returns:
        On rank 0 the values in the order of the ranks, elsewhere none; of a single process its own.

    Example:
        >>> gather("alone")
        ['alone']
    """
    if idist.get_world_size() == 1:
        return [value]
    values: list[Any] | None = [None] * idist.get_world_size() if idist.get_rank() == 0 else None
    dist.gather_object(value, values, dst=0)
    return values or []


def deal_images(dataset: Dataset) -> DistributedSampler:
    """Deal the images of a dataset out to the processes in turn, each image once, in their order.

    Args:
        dataset: its items are the images.

    Returns:
        The sampler of this process.

    Raises:
        ValueError: if there are fewer images than processes: one without an image would wait for the others for ever.
    """
    processes = dist.get_world_size()
    if len(dataset) < processes:
        raise ValueError(
            f"dataset must hold at least one image for each of the {processes} processes, got {len(dataset)}: start "
            "fewer (--nproc_per_node), or set --validation if these are the images that validate."
        )
    return DistributedSampler(dataset, even_divisible=False, shuffle=False)


class SilentWriter:
    """A TensorBoard writer that writes nothing, for MONAI's handlers on all ranks but the first."""

    def add_scalar(self, *args: Any, **kwargs: Any) -> None:
        """Write nothing."""

    def flush(self) -> None:
        """Write nothing."""

    def close(self) -> None:
        """Close nothing."""


def open_summary_writer(log_dir: str) -> SummaryWriter | SilentWriter:
    """Open a TensorBoard writer on rank 0; opened elsewhere too, each process would leave a file of its own.

    Args:
        log_dir: folder of the files.

    Returns:
        The writer; a silent one on the other ranks.
    """
    return SummaryWriter(log_dir) if idist.get_rank() == 0 else SilentWriter()
