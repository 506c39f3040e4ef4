from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.engines import SupervisedTrainer
from monai.transforms import Compose, Lambdad, RandGaussianNoised, RandLambdad, Transform
from unet_monai.data import DrawSampler, TileDataset
from unet_monai.transforms import RandElasticDeformationd

from tests.drawings import random_discs


class DrawnImage(Transform):
    """Draws the image that an item names, and counts how often it had to."""

    def __init__(self) -> None:
        self.drawn: list[int] = []

    def __call__(self, item: dict[str, int]) -> dict[str, object]:
        self.drawn.append(item["number"])
        label = random_discs(item["number"], (24, 30), count=4)[None]
        return {"image": (label + 0.5).astype(np.float32), "label": label, "number": item["number"]}


def make_tiles(count: int = 5, seed: int = 0, cache_rate: float = 1.0) -> TileDataset:
    random_transforms = [
        RandElasticDeformationd(["image", "label"], label_key="label", spatial_size=12, magnitude=2, rotate_range=3),
        RandGaussianNoised("image", prob=0.5),
    ]
    data = [{"number": i} for i in range(count)]
    return TileDataset(
        data, Compose([DrawnImage(), *random_transforms]), seed=seed, cache_rate=cache_rate, progress=False
    )


def assert_same(one: dict, other: dict) -> None:
    assert int(one["number"]) == int(other["number"])
    for key in ("image", "label"):
        np.testing.assert_array_equal(one[key], other[key])


def numbers(tiles: TileDataset, draws: Iterable[int]) -> list[int]:
    return [tiles[n]["number"] for n in draws]


class TestTileDataset:
    def test_a_draw_does_not_depend_on_those_before_it(self) -> None:
        tiles = make_tiles()
        in_order = {n: tiles[n] for n in range(12)}
        for n in (7, 3, 11, 3, 0):
            assert_same(tiles[n], in_order[n])
        assert_same(make_tiles()[11], in_order[11])

    def test_nor_on_what_is_cached_or_on_the_global_state(self) -> None:
        expected = make_tiles()[8]
        for cache_rate in (0.0, 0.4, 1.0):
            np.random.seed(3)
            torch.manual_seed(4)
            assert_same(make_tiles(cache_rate=cache_rate)[8], expected)

    def test_a_pickled_twin_draws_the_same(self) -> None:
        tiles = make_tiles()
        tiles[4]
        twin = pickle.loads(pickle.dumps(tiles))
        for n in (9, 2):
            assert_same(twin[n], tiles[n])

    def test_every_image_once_per_pass_in_another_order_each_time(self) -> None:
        tiles = make_tiles(count=7)
        passes = [tuple(numbers(tiles, range(7 * i, 7 * i + 7))) for i in range(6)]
        assert all(sorted(order) == list(range(7)) for order in passes)
        assert len(set(passes)) >= 5

    @pytest.mark.parametrize("cache_rate", [0.0, 0.5, 1.0])
    def test_an_image_is_drawn_as_often_as_it_is_larger_than_the_median(self, cache_rate: float) -> None:
        sizes = [(20, 30), (20, 30), (10, 10), (50, 60), (30, 30)]  # 1, 1, 1/6, 5 and 1.5 times 600 pixels
        data = [{"x": np.full((1, *size), number)} for number, size in enumerate(sizes)]
        tiles = TileDataset(data, Compose([]), cache_rate=cache_rate, progress=False, size_key="x")
        for turn in range(3):
            drawn = Counter(int(tiles[n]["x"].flat[0]) for n in range(10 * turn, 10 * turn + 10))
            assert drawn == {0: 1, 1: 1, 2: 1, 3: 5, 4: 2}

    def test_tiles_of_the_same_image_differ(self) -> None:
        tiles = make_tiles(count=1)
        images = [tiles[n]["image"] for n in range(10)]
        assert all(not np.array_equal(images[0], other) for other in images[1:])

    def test_another_seed_draws_other_tiles(self) -> None:
        one, other = make_tiles(seed=0), make_tiles(seed=1)
        assert numbers(one, range(20)) != numbers(other, range(20))
        assert any(not np.array_equal(one[n]["image"], other[n]["image"]) for n in range(3))

    def test_images_are_read_once(self) -> None:
        tiles = make_tiles(count=3)
        for n in range(9):
            tiles[n]
        assert sorted(tiles.transform.transforms[0].drawn) == [0, 1, 2]

    def test_draws_leave_the_cached_images_alone(self) -> None:
        tiles = make_tiles(count=2)
        before = [item["image"].copy() for item in tiles._cache]
        for n in range(6):
            tiles[n]["image"][:] = -1
        for item, image in zip(tiles._cache, before, strict=True):
            np.testing.assert_array_equal(item["image"], image)

    def test_random_numbers_reach_every_transform(self) -> None:
        draws: list[float] = []
        noisy = RandGaussianNoised("x", prob=1.0)
        transforms = [Lambdad("x", np.copy), noisy, RandLambdad("x", lambda x: draws.append(float(x[0])) or x)]
        tiles = TileDataset([{"x": np.zeros(3)}], transforms, progress=False)
        for n in (0, 1, 2, 1):
            tiles[n]
        assert draws[1] == draws[3]
        assert len({*draws}) == 3

    def test_rejects_an_empty_list(self) -> None:
        with pytest.raises(ValueError, match=r"data must hold at least one training image, got none\."):
            TileDataset([], Compose([]))


class TestLoaders:
    def loaded(self, epoch: int, **options: object) -> list[dict]:
        tiles = make_tiles(count=3)
        sampler = DrawSampler(tiles, num_samples=4)
        sampler.set_epoch(epoch)
        return list(DataLoader(tiles, batch_size=2, sampler=sampler, **options))

    def check(self, **options: object) -> None:
        for batch, expected in zip(self.loaded(3, **options), self.loaded(3, num_workers=0), strict=True):
            assert batch["number"].tolist() == expected["number"].tolist()
            torch.testing.assert_close(batch["image"], expected["image"], rtol=0, atol=0)
            torch.testing.assert_close(batch["label"], expected["label"], rtol=0, atol=0)

    def test_two_workers_draw_what_one_process_does(self) -> None:
        self.check(num_workers=2, multiprocessing_context=torch.multiprocessing.get_all_start_methods()[0])

    @pytest.mark.slow
    def test_spawned_workers_too(self) -> None:
        self.check(num_workers=2, multiprocessing_context="spawn")

    def test_epochs_differ(self) -> None:
        assert not torch.equal(self.loaded(1)[0]["image"], self.loaded(2)[0]["image"])


class TestDrawSampler:
    def test_epochs_follow_each_other_without_gap(self) -> None:
        sampler = DrawSampler([], num_samples=5)
        draws = []
        for epoch in range(4):
            sampler.set_epoch(epoch)
            assert len(sampler) == 5
            draws += list(sampler)
        assert draws == list(range(20))

    def test_the_length_of_an_epoch_is_not_that_of_the_data(self) -> None:
        sampler = DrawSampler(make_tiles(count=2), num_samples=7)
        assert len(list(sampler)) == len(sampler) == 7

    @pytest.mark.parametrize("ranks", [2, 3, 6])
    def test_ranks_share_out_the_draws(self, ranks: int) -> None:
        samplers = [DrawSampler([], num_samples=12, num_replicas=ranks, rank=rank) for rank in range(ranks)]
        draws: Counter[int] = Counter()
        for sampler in samplers:
            sampler.set_epoch(3)
            share = list(sampler)
            assert len(share) == len(sampler) == 12 // ranks
            draws.update(share)
        assert draws == Counter(range(36, 48))

    def test_a_trainer_of_monai_tells_it_the_epoch(self) -> None:
        seen: list[list[int]] = []

        def prepare(batch: torch.Tensor, device: object, non_blocking: bool) -> tuple[torch.Tensor, torch.Tensor]:
            seen.append(batch.tolist())
            return batch.float(), batch.float()

        run_trainer(DataLoader(range(20), batch_size=2, sampler=DrawSampler([], num_samples=4)), prepare)
        assert seen == [[4, 5], [6, 7], [8, 9], [10, 11], [12, 13], [14, 15]]

    @pytest.mark.parametrize(("num_samples", "ranks"), [(0, 1), (-2, 1), (5, 2)])
    def test_rejects_what_cannot_be_shared_out(self, num_samples: int, ranks: int) -> None:
        message = rf"num_samples must be a positive multiple of the {ranks} ranks, got {num_samples}\."
        with pytest.raises(ValueError, match=message):
            DrawSampler([], num_samples=num_samples, num_replicas=ranks)


def run_trainer(loader: DataLoader, prepare: Callable) -> None:
    """Train for three epochs."""
    network = torch.nn.Linear(2, 2)
    SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=3,
        train_data_loader=loader,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.0),
        loss_function=torch.nn.MSELoss(),
        prepare_batch=prepare,
    ).run()
