from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, set_track_meta
from monai.inferers import Inferer
from unet_monai.inferers import OverlapTileInferer
from unet_monai.networks import ValidUNet

from tests.reference.overlap_tile import whole_image_scores

SHALLOW = {"features": (2, 4, 8)}
THICK_SLICES = {
    "spatial_dims": 3,
    "features": (2, 4, 8),
    "kernel_size": [[3, 3, 1], [3, 3, 1], [3, 3, 3]],
    "pool_size": [[2, 2, 1], [2, 2, 1]],
}
DEEP_3D = {"spatial_dims": 3, "features": (2, 4, 8, 16)}
PAPER_LIKE = {"features": (2, 4, 8, 16, 32)}


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def make_network(options: dict, seed: int = 0) -> ValidUNet:
    torch.manual_seed(seed)
    return ValidUNet(**options).double().eval()


def inferer_for(network: ValidUNet, roi_size: tuple[int, ...] | int | None, **options: object) -> OverlapTileInferer:
    return OverlapTileInferer(roi_size, border=network.border, poolings=network.poolings, **options)


def random_image(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random(shape))


def random_sizes(seed: int, network: ValidUNet, most: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Draw an image size of 1 ... `most` px and a tile, its output 20 px or more where the pooling step is 16."""
    random = np.random.default_rng(seed)
    image, tile = [], []
    for border, poolings in zip(network.border, network.poolings, strict=True):
        step = 2**poolings
        first = next(n for n in range(step, 2 * step) if (n + border) % step == 0)
        image.append(int(random.integers(1, most)))
        tile.append(first + step * int(random.integers(0, 3)) + 2 * border)
    return tuple(image), tuple(tile)


def check_stitched_is_whole(options: dict, seed: int, most: int) -> tuple[float, float]:
    """Return the largest |stitched - whole| in float64, and in float32 for scores scaled to at most 1."""
    network = make_network(options, seed)
    size, tile = random_sizes(seed, network, most)
    inferer = inferer_for(network, tile, sw_batch_size=1 + seed % 3)
    image = random_image(seed, 1, 1, *size)
    differences = []
    for dtype in (torch.float64, torch.float32):
        network, image = network.to(dtype), image.to(dtype)
        whole = whole_image_scores(image, network, network.border, network.poolings)
        assert whole.shape == (1, 2, *size)
        differences.append((inferer(image, network) - whole).abs().max().item())
    exact, rounded = differences[0], differences[1] / max(1, whole.abs().max().item())
    assert exact <= 1e-9
    assert rounded <= 1e-5
    return exact, rounded


class TestStitchedIsWhole:
    @pytest.mark.parametrize("seed", range(4))
    def test_two_dimensions(self, seed: int) -> None:
        check_stitched_is_whole(SHALLOW, seed, most=90)

    @pytest.mark.parametrize("seed", range(2))
    def test_the_depth_of_the_paper(self, seed: int) -> None:
        check_stitched_is_whole(PAPER_LIKE, seed, most=130)

    @pytest.mark.parametrize("seed", range(3))
    def test_three_dimensions(self, seed: int) -> None:
        check_stitched_is_whole({**SHALLOW, "spatial_dims": 3}, seed, most=14)

    @pytest.mark.parametrize("seed", range(3))
    def test_thick_slices(self, seed: int) -> None:
        check_stitched_is_whole(THICK_SLICES, seed, most=20)

    @pytest.mark.slow
    def test_fifty_random_sizes(self, capsys: pytest.CaptureFixture[str]) -> None:
        cases = [
            (PAPER_LIKE, 200),
            (SHALLOW, 150),
            ({**SHALLOW, "spatial_dims": 3}, 30),
            (THICK_SLICES, 40),
            (DEEP_3D, 20),
        ]
        found: dict[str, list[tuple[float, float]]] = {"2-D": [], "3-D": []}
        for seed in range(50):
            options, most = cases[seed % len(cases)]
            name = f"{options.get('spatial_dims', 2)}-D"
            found[name].append(check_stitched_is_whole(options, seed, most))
        with capsys.disabled():
            for name, pairs in found.items():
                exact, rounded = (max(p) for p in zip(*pairs, strict=True))
                print(f"\n{name}, {len(pairs)} cases: |stitched - whole| <= {exact:.1e}, in float32 {rounded:.1e}")

    def test_the_random_cases_cross_many_seams(self) -> None:
        counts = []
        for seed in range(4):
            network = make_network(SHALLOW, seed)
            size, tile = random_sizes(seed, network, 90)
            counts.append(count_calls(inferer_for(network, tile), torch.zeros(1, 1, *size), network.float()))
        assert max(counts) > 20

    def test_strides_out_of_phase_would_differ(self) -> None:
        network = make_network(PAPER_LIKE)
        image = random_image(0, 1, 1, 40, 20)
        whole = whole_image_scores(image, network, network.border, network.poolings)
        shifted = whole_image_scores(image[:, :, 20:], network, network.border, network.poolings)
        assert (shifted[:, :, 8:] - whole[:, :, 28:]).abs().max() > 1e-3


def count_calls(inferer: Callable, image: torch.Tensor, network: Callable) -> int:
    calls: list[int] = []

    def counted(tiles: torch.Tensor) -> torch.Tensor:
        calls.append(len(tiles))
        return network(tiles)

    inferer(image, counted)
    return len(calls)


@pytest.mark.parametrize("size", [(1, 1), (1, 57), (3, 2), (91, 92), (33, 1)])
def test_images_smaller_than_the_border(size: tuple[int, ...]) -> None:
    network = make_network(PAPER_LIKE)
    image = random_image(1, 1, 1, *size)
    whole = whole_image_scores(image, network, network.border, network.poolings)
    for roi_size in (204, (220, 252), None):
        stitched = inferer_for(network, roi_size)(image, network)
        assert stitched.shape == (1, 2, *size)
        torch.testing.assert_close(stitched, whole, rtol=0, atol=1e-9)


def test_a_batch_is_its_images_one_by_one() -> None:
    network = make_network({**SHALLOW, "in_channels": 3, "out_channels": 4})
    images = random_image(2, 3, 3, 30, 21)
    single = torch.cat([inferer_for(network, 52)(image[None], network) for image in images])
    assert single.shape == (3, 4, 30, 21)
    for sw_batch_size in (1, 2, 5, 100):
        batched = inferer_for(network, 52, sw_batch_size=sw_batch_size)(images, network)
        torch.testing.assert_close(batched, single, rtol=0, atol=1e-12)


def test_calls_hold_at_most_sw_batch_size_tiles() -> None:
    seen: list[tuple[int, ...]] = []

    def network(tiles: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(tiles.shape))
        return tiles[:, :, 20:-20, 20:-20]

    OverlapTileInferer(52, sw_batch_size=4, border=20, poolings=2)(torch.zeros(1, 1, 30, 25), network)
    assert seen == [(4, 1, 52, 52)] * 2 + [(1, 1, 52, 52)]


@pytest.mark.parametrize(("shape", "roi_size"), [((9,), 8), ((7, 5), (8, 6)), ((4, 3, 5), 8), ((3, 2, 4, 3), 6)])
def test_any_number_of_axes_with_a_plain_function(shape: tuple[int, ...], roi_size: tuple[int, ...] | int) -> None:
    def centre(tiles: torch.Tensor) -> torch.Tensor:
        return tiles[(..., *[slice(2, -2)] * len(shape))]

    image = random_image(3, 2, 1, *shape)
    stitched = OverlapTileInferer(roi_size, sw_batch_size=2, border=2, poolings=1)(image, centre)
    torch.testing.assert_close(stitched, image, rtol=0, atol=0)


def test_border_and_poolings_per_axis() -> None:
    def network(tiles: torch.Tensor) -> torch.Tensor:
        return tiles[:, :, 4:-4, 1:-1]

    image = random_image(4, 1, 1, 20, 7)
    stitched = OverlapTileInferer((20, 5), border=(4, 1), poolings=(2, 0))(image, network)
    torch.testing.assert_close(stitched, image, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"such as 16 or 20, got 18\."):
        OverlapTileInferer((18, 5), border=(4, 1), poolings=(2, 0))(image, network)


def test_the_mirror_does_not_repeat_the_edge() -> None:
    tiles: list[torch.Tensor] = []

    def network(batch: torch.Tensor) -> torch.Tensor:
        tiles.append(batch)
        return batch[:, :, 3:-3]

    OverlapTileInferer(9, border=3, poolings=0)(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), network)
    assert [tile.flatten().tolist() for tile in tiles] == [[4, 3, 2, 1, 2, 3, 4, 3, 2], [1, 2, 3, 4, 3, 2, 1, 2, 3]]


class TestChosenTiles:
    @pytest.mark.parametrize(("budget", "per_pixel"), [(768 * 2**20, 352), (768 * 2**20, 1408), (50_000_000, 300)])
    @pytest.mark.parametrize("size", [(1, 20), (388, 388), (580, 3000), (3000, 580), (2048, 2048), (200, 40, 999)])
    def test_they_fit_the_budget_and_the_network(self, budget: int, per_pixel: int, size: tuple[int, ...]) -> None:
        inferer = OverlapTileInferer(memory_budget=budget, bytes_per_pixel=per_pixel)
        output = inferer.tile_output_size(size)
        assert all((n + 92) % 16 == 0 for n in output)
        assert all(n >= min(side, 16) for n, side in zip(output, size, strict=True))
        smallest = [20 + 184] * len(size)
        assert np.prod([n + 184 for n in output]) * per_pixel <= max(budget, np.prod(smallest) * per_pixel)

    def test_large_where_the_budget_allows(self) -> None:
        assert OverlapTileInferer().tile_output_size((512, 512)) == (516, 516)
        assert OverlapTileInferer(bytes_per_pixel=1408).tile_output_size((512, 512)) == (516, 516)
        assert OverlapTileInferer(bytes_per_pixel=1408).tile_output_size((2048, 2048)) == (516, 516)
        assert OverlapTileInferer().tile_output_size((2048, 2048)) == (1028, 1028)

    def test_a_short_axis_leaves_its_share_to_the_long_one(self) -> None:
        assert OverlapTileInferer().tile_output_size((100, 5000)) == (100, 5012)
        assert OverlapTileInferer().tile_output_size((5000, 100)) == (5012, 100)

    def test_a_batch_of_tiles_shares_the_budget(self) -> None:
        assert OverlapTileInferer(sw_batch_size=4).tile_output_size((2048, 2048)) == (516, 516)

    def test_axes_without_pooling(self) -> None:
        thick = OverlapTileInferer(border=(20, 20, 2), poolings=(2, 2, 0), memory_budget=5_000_000, bytes_per_pixel=10)
        assert thick.tile_output_size((300, 40, 9)) == (300, 40, 9)


def test_metadata_travels() -> None:
    affine = torch.diag(torch.tensor([0.5, 2.0, 1.0, 1.0]))
    image = MetaTensor(torch.rand(1, 1, 30, 25), affine=affine[None], meta={"filename_or_obj": ["a.tif"]})
    network = make_network(SHALLOW).float()
    scores = inferer_for(network, 52)(image, network)
    assert isinstance(scores, MetaTensor)
    assert scores.meta["filename_or_obj"] == ["a.tif"]
    torch.testing.assert_close(scores.affine, image.affine)
    assert scores.dtype == torch.float32
    plain = inferer_for(network, 52)(image.as_tensor(), network)
    assert type(plain) is torch.Tensor
    torch.testing.assert_close(scores.as_tensor(), plain)
    set_track_meta(False)
    try:
        assert type(inferer_for(network, 52)(image, network)) is torch.Tensor
    finally:
        set_track_meta(True)


def test_scores_have_the_type_of_the_network_and_the_asked_device() -> None:
    def network(tiles: torch.Tensor) -> torch.Tensor:
        return tiles[:, :, 2:-2].to(torch.bfloat16)

    inferer = OverlapTileInferer(10, border=2, poolings=1, sw_device="cpu", device=torch.device("cpu"))
    assert inferer(torch.rand(1, 1, 9), network).dtype == torch.bfloat16


def test_further_arguments_reach_the_network() -> None:
    def network(tiles: torch.Tensor, offset: float, *, scale: float) -> torch.Tensor:
        return scale * tiles[:, :, 2:-2] + offset

    image = random_image(5, 1, 1, 9)
    scores = OverlapTileInferer(10, border=2, poolings=1)(image, network, 3, scale=2)
    torch.testing.assert_close(scores, 2 * image + 3)


def test_leaves_the_image_alone_and_travels() -> None:
    network = make_network(SHALLOW)
    image = random_image(6, 1, 1, 30, 25)
    before = image.clone()
    inferer = inferer_for(network, 52)
    assert isinstance(inferer, Inferer)
    scores = inferer(image, network)
    assert torch.equal(image, before)
    torch.testing.assert_close(pickle.loads(pickle.dumps(inferer))(image, network), scores, rtol=0, atol=0)


def test_progress_is_shown_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    for progress in (False, True):
        OverlapTileInferer(10, border=2, poolings=1, progress=progress)(torch.rand(1, 1, 9), lambda x: x[:, :, 2:-2])
        assert ("tile" in capsys.readouterr().err) == progress


class TestRejects:
    def test_a_tile_that_the_poolings_do_not_fit(self) -> None:
        with pytest.raises(ValueError, match=r"^input size must be .*, such as 508 or 524, got 512\.$"):
            OverlapTileInferer(512)
        with pytest.raises(ValueError, match=r", such as 16 or 20, got 18\.$"):
            OverlapTileInferer((16, 18), border=4, poolings=(2, 2))

    def test_a_tile_whose_output_is_below_the_pooling_step(self) -> None:
        with pytest.raises(ValueError, match=r"^tile output must be at least 16 px, .* got 4\.$"):
            OverlapTileInferer(188)(torch.zeros(1, 1, 5, 5), lambda tiles: tiles)

    def test_a_network_with_another_border(self) -> None:
        message = r"^network must return the tile less a border of \(20, 20\) px, \(12, 12\), got \(52, 52\)\.$"
        with pytest.raises(ValueError, match=message):
            OverlapTileInferer(52, border=20, poolings=2)(torch.zeros(1, 1, 30, 30), lambda tiles: tiles)

    def test_no_tile_per_call(self) -> None:
        with pytest.raises(ValueError, match=r"^sw_batch_size must be at least 1, got 0\.$"):
            OverlapTileInferer(sw_batch_size=0)

    def test_no_memory(self) -> None:
        with pytest.raises(ValueError, match=r"memory_budget and bytes_per_pixel must be positive, got 0 and 352\."):
            OverlapTileInferer(memory_budget=0)

    def test_an_empty_batch(self) -> None:
        with pytest.raises(ValueError, match=r"^inputs must hold at least one image, got \(0, 1, 30, 30\)\.$"):
            OverlapTileInferer(52, border=20, poolings=2)(torch.zeros(0, 1, 30, 30), lambda tiles: tiles)
