from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import zarr
from monai.transforms import Compose, ScaleIntensityRangePercentiles
from unet_monai.data import TileDataset
from unet_monai.large_images import (
    FindLabelsd,
    LazyImage,
    PairReader,
    RandLabelledDeformation,
    RandLazyTiled,
    ReadLabelledBlockd,
)
from unet_monai.large_images.block_grid import Block
from unet_monai.large_images.lazy_image import PixelGrid
from unet_monai.large_images.lazy_tiles import axis_window, mirrored_window
from unet_monai.transforms import IgnoreMargin, RandElasticDeformation
from unet_monai.transforms.elastic_deformation import Deformation, source_window
from unet_monai.transforms.rescale import Rescale

from tests.large_images.pairs import random_pair, write_tiff, write_zarr

SIZE = (420, 300)
EVERYTHING: dict[str, Any] = {"rotate_range": 3.0, "shift_range": 10, "scale_range": 0.15, "flip_prob": 0.5}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("pair")
    image, label = random_pair(0, *SIZE)
    paths = {"image": str(write_tiff(folder / "a.tif", image)), "label": str(write_zarr(folder / "a.zarr", label))}
    return paths | {"arrays": (image, label)}


def tile_in_memory(
    image: np.ndarray, label: np.ndarray, deformation: Deformation | None, scale: float, smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The tile that the transforms of bundle/configs/train.json cut, image and label (X, Y[, Z]), -1 ignored."""
    normalise = ScaleIntensityRangePercentiles(lower=1, upper=99.8, b_min=0, b_max=1, channel_wise=True)
    whole = Rescale(scale, smoothing=smoothing)(torch.as_tensor(normalise(image.astype(np.float32)[None])))
    ids = Rescale(scale, mode="nearest")(torch.as_tensor(label.astype(np.int32))[None])
    transform = RandElasticDeformation()
    transform.deformation = deformation
    tile, label_tile = transform.deform([whole, ids], ["sharp", "nearest"])
    return torch.as_tensor(tile), torch.as_tensor(label_tile)


class TestTilesEqualThoseInMemory:
    """Of the same deformation: on the window that is read, and on the whole image."""

    @pytest.mark.parametrize(("scale", "smoothing"), [(1.0, 0.0), (1.0, 0.7), (0.61, 0.7), (1.3, 0.0)])
    def test_wherever_the_tile_lies(self, pair: dict[str, Any], scale: float, smoothing: float) -> None:
        reader = PairReader()
        tiles = RandLazyTiled(
            reader, RandLabelledDeformation((60, 40), magnitude=3, **EVERYTHING), scale=scale, smoothing=smoothing
        ).set_random_state(seed=1)
        item = FindLabelsd(reader)(pair)
        inside = 0
        for _ in range(20):
            found = tiles(item)
            deformation = tiles.deformation.deformation
            assert deformation is not None
            image, label = tile_in_memory(*pair["arrays"], deformation, scale, smoothing)
            new_size = [round(n * scale) for n in SIZE]
            same_window = source_window(deformation, new_size) == mirrored_window(deformation, new_size).slices
            inside += same_window
            # Where the tile may leave the image, positions in memory are float32 of the whole axis, 2e-5 px off: a
            # position halfway between two pixels of the label may be nearer to the other.
            torch.testing.assert_close(found["image"], image, rtol=0, atol=2e-6 if same_window else 1e-4)
            assert (found["label"] != label).sum() <= (0 if same_window else 1)
        assert 3 < inside < 17, "test invalid: tiles must lie at edges and inside"

    @pytest.mark.parametrize("centre", [(5.0, 150.0), (415.5, 150.0), (210.0, 2.0), (210.0, 299.0), (0.0, 299.0)])
    def test_at_each_edge(self, pair: dict[str, Any], centre: tuple[float, float]) -> None:
        reader = PairReader()
        tiles = RandLazyTiled(reader, RandLabelledDeformation(64), smoothing=0.7)
        turn = np.array([[0.8, -0.6], [0.6, 0.8]])
        bent = 3 * np.random.default_rng(0).standard_normal((2, 3, 3))
        tiles.deformation.deformation = Deformation((64, 64), np.array(centre), turn, bent)
        found = tiles.cut(FindLabelsd(reader)(pair))
        image, label = tile_in_memory(*pair["arrays"], tiles.deformation.deformation, 1.0, 0.7)
        assert (label < 0).any(), "test invalid: the tile must leave the image"
        torch.testing.assert_close(found["label"], label, rtol=0, atol=0)
        torch.testing.assert_close(found["image"], image, rtol=0, atol=1e-4)

    def test_a_window_is_smoothed_as_part_of_the_image(self, pair: dict[str, Any]) -> None:
        """A tile without displacements shows all of its window but two pixels."""
        tiles = RandLazyTiled(PairReader(), RandLabelledDeformation(64), smoothing=1.5)
        still = Deformation((64, 64), np.array([200.3, 150.7]), np.eye(2), np.zeros((2, 3, 3)))
        tiles.deformation.deformation = still
        image, _ = tile_in_memory(*pair["arrays"], still, 1.0, 1.5)
        torch.testing.assert_close(tiles.cut(pair)["image"], image, rtol=0, atol=2e-6)

    def test_larger_than_the_image(self, tmp_path: Path) -> None:
        image, label = random_pair(1, 70, 90)
        paths = {
            "image": str(write_tiff(tmp_path / "a.tif", image)),
            "label": str(write_tiff(tmp_path / "b.tif", label)),
        }
        reader = PairReader()
        tiles = RandLazyTiled(reader, RandLabelledDeformation((80, 200), **EVERYTHING)).set_random_state(seed=0)
        found = tiles(FindLabelsd(reader)(paths))
        expected = tile_in_memory(image, label, tiles.deformation.deformation, 1.0, 0.0)
        torch.testing.assert_close((found["image"], found["label"]), expected, rtol=0, atol=1e-4)

    def test_volume(self, tmp_path: Path) -> None:
        image, label = random_pair(2, 90, 70, 40)
        paths = {
            "image": str(write_tiff(tmp_path / "a.tif", image)),
            "label": str(write_zarr(tmp_path / "a.zarr", label)),
        }
        reader = PairReader(spatial_dims=3)
        deformation = RandLabelledDeformation((24, 20, 16), magnitude=(2, 2, 1), **EVERYTHING)
        tiles = RandLazyTiled(reader, deformation, scale=0.8, smoothing=0.7).set_random_state(seed=0)
        for _ in range(4):
            found = tiles(FindLabelsd(reader)(paths))
            expected = tile_in_memory(image, label, deformation.deformation, 0.8, 0.7)
            torch.testing.assert_close((found["image"], found["label"]), expected, rtol=0, atol=1e-4)

    def test_a_part_with_ignored_pixels_and_a_margin(self, tmp_path: Path) -> None:
        """Beyond the label's own extent, and where it says so, pixels are ignored."""
        image, label = random_pair(3, *SIZE)
        part = label[40:300, 25:210].copy()
        part[100:140] = 999
        in_memory = np.full(SIZE, -1)
        in_memory[40:300, 25:210] = np.where(part == 999, -1, part.astype(int))
        in_memory = IgnoreMargin(60)(in_memory[None])[0]
        grid = PixelGrid((0.5, 0.5), (3 + 20.0, 5 + 12.5), "micrometer")
        paths = {
            "image": str(write_zarr(tmp_path / "a.zarr", image, PixelGrid((0.5, 0.5), (3.0, 5.0), "micrometer"))),
            "label": str(write_zarr(tmp_path / "b.zarr", part, grid)),
        }
        reader = PairReader(ignore_label=999, margin=60)
        tiles = RandLazyTiled(reader, RandLabelledDeformation(64, **EVERYTHING)).set_random_state(seed=0)
        for _ in range(10):
            found = tiles(FindLabelsd(reader)(paths))
            expected = tile_in_memory(image, in_memory, tiles.deformation.deformation, 1.0, 0.0)
            torch.testing.assert_close((found["image"], found["label"]), expected, rtol=0, atol=1e-4)


class TestPlaces:
    def test_tiles_lie_on_labels_with_the_density_of_the_file(self, tmp_path: Path) -> None:
        """Annotated: 1000 pixels of cells and 2000 of background, in two blocks far apart."""
        label = np.full((2000, 1500), 9, np.uint16)
        label[20:40, 30:70] = 1
        label[1900:1920, 1450:1460], label[1900:1920, 1350:1450] = 2, 0
        files = [str(write_tiff(tmp_path / name, label, tile=512)) for name in ("a.tif", "b.tif")]
        item: dict[str, Any] = dict(zip(("image", "label"), files, strict=True))
        reader = PairReader(ignore_label=9)
        item = FindLabelsd(reader)(item)
        np.testing.assert_array_equal(item["places"], [[0, 11], [800, 200], [0, 2000]])
        deformation = RandLabelledDeformation(8, magnitude=0).set_random_state(seed=0)
        tiles = RandLazyTiled(reader, deformation)
        drawn = []
        for _ in range(250):
            tiles.randomize(item)
            assert deformation.deformation is not None
            drawn.append(label[tuple(np.rint(deformation.deformation.centre).astype(int))])
        shares = np.bincount(drawn, minlength=10) / 250
        np.testing.assert_allclose(shares[[1, 2, 0, 9]], [4 / 6, 1 / 6, 1 / 6, 0], atol=0.08)

    def test_blocks_that_are_held_out_are_ignored_and_not_drawn_from(self, tmp_path: Path) -> None:
        _, label = random_pair(4, 600, 200)
        item = {
            "image": str(write_tiff(tmp_path / "a.tif", label)),
            "label": str(write_tiff(tmp_path / "b.tif", label)),
        }
        reader = PairReader()
        assert reader.places(item)[0].tolist() == [0, 1]
        held_out = {**item, "held_out": [1]}
        assert reader.places(held_out)[0].tolist() == [0]
        everything = Block((0, 0), (600, 200))
        whole, training = (reader.read_label(one, everything)[0] for one in (item, held_out))
        np.testing.assert_array_equal(training[:512], whole[:512])
        assert (training[512:] == -1).all()

    def test_draws_are_a_pure_function_of_their_number(self, pair: dict[str, Any]) -> None:
        reader = PairReader()
        transforms = [FindLabelsd(reader), RandLazyTiled(reader, RandLabelledDeformation(32, **EVERYTHING))]
        items = [{key: pair[key] for key in ("image", "label")}]
        tiles = TileDataset(items, Compose(transforms), seed=3, progress=False, size_key="places")
        fifth, again = tiles[5], [tiles[n] for n in (4, 5)]
        torch.testing.assert_close(fifth["image"], again[1]["image"], rtol=0, atol=0)
        assert not torch.equal(fifth["image"], again[0]["image"])
        loader = torch.utils.data.DataLoader(tiles, batch_size=1, sampler=[5, 4, 5], num_workers=2)
        in_workers = [batch["image"][0] for batch in loader]
        torch.testing.assert_close(in_workers, [fifth["image"], again[0]["image"], fifth["image"]], rtol=0, atol=0)


def test_blocks_to_validate_on_carry_a_name_of_their_own(pair: dict[str, Any]) -> None:
    block = ReadLabelledBlockd(PairReader())({**pair, "block": 0})
    assert block["image"].shape == block["label"].shape == (1, *SIZE)
    assert Path(block["image"].meta["filename_or_obj"]).name == "a_0-0.tif"
    np.testing.assert_array_equal(block["label"][0], pair["arrays"][1])


@pytest.mark.parametrize("size", [1, 7, 60])
def test_a_window_holds_all_pixels_that_a_mirrored_span_shows(size: int) -> None:
    """Against the pixels that numpy's own mirroring brings in."""
    mirrored = np.pad(np.arange(size), 200, mode="reflect") if size > 1 else np.zeros(401, int)
    for first in range(-40, size + 30):
        for stop in range(first + 1, size + 40):
            low, high = axis_window(first, stop, size)
            shown = mirrored[200 + first : 200 + stop]
            assert 0 <= low <= shown.min()
            assert shown.max() < high <= size


def test_a_window_stays_small_at_the_edge_of_a_large_image() -> None:
    still = Deformation((444, 444), np.array([3.0, 50_000.0]), np.eye(2), np.zeros((2, 3, 3)))
    assert mirrored_window(still, (100_000, 100_000)) == Block((0, 49776), (228, 50225))


def test_wrong_arguments(pair: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"deformation must have a spatial_size, .* got None\."):
        RandLazyTiled(PairReader(), RandLabelledDeformation())
    with pytest.raises(RuntimeError, match=r"call randomize\(\) before cut\(\)\."):
        RandLazyTiled(PairReader(), RandLabelledDeformation(8)).cut(pair)


DRAW = """
import resource, sys
from unet_monai.large_images import FindLabelsd, PairReader, RandLabelledDeformation, RandLazyTiled
reader = PairReader()
item = FindLabelsd(reader)({"image": sys.argv[1], "label": sys.argv[2]})
tiles = RandLazyTiled(reader, RandLabelledDeformation(444, rotate_range=3), smoothing=0.7).set_random_state(seed=0)
for _ in range(20):
    tiles(item)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def peak_memory(folder: Path, side: int) -> float:
    """Measure in MiB what drawing 20 tiles takes, in a process of its own."""
    random = np.random.default_rng(0)
    tile = random.integers(0, 255, (512, 512), dtype=np.uint8)
    count = (side // 512) ** 2
    tifffile.imwrite(
        folder / "a.tif", (tile for _ in range(count)), shape=(side, side), dtype=np.uint8, tile=(512, 512)
    )
    label = zarr.create_array(folder / "a.zarr", shape=(side, side), chunks=(512, 512), dtype="uint32", overwrite=True)
    label[:512, :512] = random.integers(0, 5, (512, 512), dtype=np.uint32)
    label[-512:, -512:] = random.integers(0, 5, (512, 512), dtype=np.uint32)
    command = [sys.executable, "-W", "ignore", "-c", DRAW, str(folder / "a.tif"), str(folder / "a.zarr")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(result.stdout)


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_image(tmp_path: Path) -> None:
    """16384 x 16384 px, 1.3 GB of image and label, against 2048 x 2048."""
    small, large = (peak_memory(tmp_path, side) for side in (2048, 16384))
    assert large < small + 64


def test_no_read_is_larger_than_a_block_or_a_window(
    pair: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The short form of the test of memory: what is read at once, of a file of 3000 x 2000 px."""
    sizes: list[int] = []
    read = LazyImage.read

    def note(self: LazyImage, window: Any) -> np.ndarray:
        pixels = read(self, window)
        sizes.append(pixels.size)
        return pixels

    monkeypatch.setattr(LazyImage, "read", note)
    label = np.zeros((3000, 2000), np.uint8)
    label[5:30, 10:40] = 1
    label[2950:2990, 1950:1960] = 2
    item = {
        "image": str(write_tiff(tmp_path / "a.tif", label, tile=256)),
        "label": str(write_tiff(tmp_path / "b.tif", label, tile=256)),
    }
    reader = PairReader()
    tiles = RandLazyTiled(reader, RandLabelledDeformation(64, magnitude=2, rotate_range=3), smoothing=0.7)
    item = FindLabelsd(reader)(item)
    assert max(sizes) == 512**2
    scanned = len(sizes)
    for seed in range(10):
        tiles.set_random_state(seed=seed)(item)
    of_tiles = sizes[scanned:]
    assert len(of_tiles) == 30  # a block of labels to draw from, a window of image and of label
    assert max(size for i, size in enumerate(of_tiles) if i % 3) < 160**2
