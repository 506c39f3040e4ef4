"""Training tiles as a pure function of the seed and the number of the draw, whatever process draws them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
from monai.data.dataset import CacheDataset
from monai.transforms import Compose
from torch.utils.data import Dataset, DistributedSampler


class TileDataset(CacheDataset):
    """Endless draws of random tiles from a list of images; the images are read once and kept in memory.

    Draw number ``n`` takes one image (in an order shuffled anew for each pass over the list) and seeds the random
    transforms with ``(seed, n)``. So a draw is the same in any worker, on any rank and after a resume.

    A pass draws each image once. With `size_key` it draws an image once for each time that it holds as many pixels as
    the median image (rounded, at least once): else the cells of large images would be seen more rarely than others.

    Args:
        data: items for the transforms, for example ``{"image": path, "label": path}``.
        transform: transforms; those before the first random one are applied once and cached.
        seed: seed of order and transforms.
        cache_rate: share of the images to keep in memory.
        progress: whether to show a progress bar while reading.
        size_key: key of the array (C, *S) whose size is that of the image; None for one draw of each per pass.

    Raises:
        ValueError: when ``data`` is empty.

    Example:
        >>> tiles = TileDataset([{"x": 0.0}, {"x": 10.0}], Compose([]), progress=False)
        >>> sorted(tiles[n]["x"] for n in (6, 7))
        [0.0, 10.0]
    """

    def __init__(
        self,
        data: Sequence[Any],
        transform: Compose | Sequence[Callable],
        seed: int = 0,
        cache_rate: float = 1.0,
        progress: bool = True,
        size_key: str | None = None,
    ) -> None:
        if len(data) == 0:
            raise ValueError("data must hold at least one training image, got none.")
        self.seed = seed
        # The first random transform samples into a new array, so the cached item need not be copied before it.
        super().__init__(data, transform, cache_rate=cache_rate, progress=progress, copy_cache=False)
        self.order = np.repeat(np.arange(len(data)), 1 if size_key is None else self._draws_per_pass(size_key))

    def _draws_per_pass(self, size_key: str) -> np.ndarray:
        uncached = range(self.cache_num, len(self.data))
        items = chain(self._cache, (self._load_cache_item(index) for index in uncached))
        pixels = np.array([np.prod(item[size_key].shape[1:]) for item in items])
        return np.maximum(np.rint(pixels / np.median(pixels)), 1).astype(int)

    def __getitem__(self, index: Any) -> Any:
        """Make draw number ``index``."""
        turn, position = divmod(int(index), len(self.order))
        order = np.random.default_rng([self.seed, turn]).permutation(self.order)
        self.transform.set_random_state(seed=int(np.random.SeedSequence([self.seed, index]).generate_state(1)[0]))
        return self._transform(int(order[position]))


class DrawSampler(DistributedSampler):
    """Number the draws of an epoch for :class:`TileDataset`, so that epochs can have any length.

    It is a ``DistributedSampler`` because MONAI's trainers tell just those which epoch begins; on several ranks each
    takes its share of the draws.

    Args:
        dataset: the dataset to draw from.
        num_samples: draws of an epoch, over all ranks.
        num_replicas: number of ranks.
        rank: this rank.

    Raises:
        ValueError: when ``num_samples`` cannot be shared out evenly.

    Example:
        >>> sampler = DrawSampler(dataset=[], num_samples=3)
        >>> sampler.set_epoch(2)
        >>> list(sampler)
        [6, 7, 8]
    """

    def __init__(self, dataset: Dataset, num_samples: int, num_replicas: int = 1, rank: int = 0) -> None:
        if num_samples < 1 or num_samples % num_replicas:
            raise ValueError(f"num_samples must be a positive multiple of the {num_replicas} ranks, got {num_samples}.")
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=False)
        self.draws = num_samples

    def __len__(self) -> int:
        """Count this rank's draws of an epoch."""
        return self.draws // self.num_replicas

    def __iter__(self) -> Iterator[int]:
        """Number this rank's draws of the current epoch."""
        first = self.epoch * self.draws
        return iter(range(first + self.rank, first + self.draws, self.num_replicas))
