from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import zarr
from monai.bundle import ConfigParser
from monai.transforms import ScaleIntensityRangePercentiles
from PIL import Image
from scipy import ndimage, special
from unet_monai.bundle.errors import first_cause
from unet_monai.bundle.overrides import mistyped_value
from unet_monai.inferers import OverlapTileInferer, RescalingInferer
from unet_monai.large_images import BlockSettings, LargeImageSegmenter, LazyImage, open_image
from unet_monai.large_images.claims import CLAIM_SECONDS
from unet_monai.large_images.segmenter import BYTES_PER_PIXEL
from unet_monai.networks import ValidUNet, load_network
from unet_monai.transforms import LogitsToInstances
from unet_monai.transforms.touching_ridge import touching_ridge

from tests.bundle.conftest import REPOSITORY
from tests.drawings import random_discs
from tests.large_images.images import make_network

CONFIG = REPOSITORY / "bundle" / "configs" / "inference_large.json"
WEIGHTS = REPOSITORY / "bundle" / "weights" / "nuclei.pt"


def draw_nuclei(height: int, width: int, seed: int = 0, size: float = 1) -> np.ndarray:
    """Draw bright discs, some touching, `size` times those that the shipped weights know: uint8 (rows, columns)."""
    radius = (round(7 * size), round(11 * size))
    label = random_discs(seed, (height, width), count=round(height * width / (900 * size**2)), radius=radius)
    light = ndimage.gaussian_filter((120.0 * (label > 0) - 60 * touching_ridge(label)), size) + 20
    return np.random.default_rng(seed).normal(light, 4).clip(0, 255).astype(np.uint8)


def write_image(folder: Path, height: int, width: int, size: float = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(folder / "cells.tif", draw_nuclei(height, width, size=size), tile=(32, 32))
    return folder / "cells.tif"


def in_memory_scores(
    path: Path, network: ValidUNet, region: tuple[slice, slice] | None = None, cell_diameter: float | None = None
) -> torch.Tensor:
    """The scores as bundle/configs/inference.json computes them; statistics of a region only, if there is one."""
    pixels = tifffile.imread(path).T[None].astype(np.float32)
    counted = pixels if region is None else pixels[(slice(None), *region)]
    low, high = np.percentile(counted.astype(float), (1, 99.8))
    normalised = torch.as_tensor(ScaleIntensityRangePercentiles(1, 99.8, 0, 1, channel_wise=True)(pixels))
    if region is not None:
        normalised = torch.as_tensor((pixels - np.float32(low)) / np.float32(high - low))
    inferer = OverlapTileInferer(border=network.border, poolings=network.poolings)
    with torch.inference_mode():
        return RescalingInferer(inferer, cell_diameter)(normalised[None], network)[0]


def settings(side: int = 64, **options: Any) -> BlockSettings:
    """Settings whose blocks have about the given side."""
    reach = options.pop("reach", 100)
    budget = BYTES_PER_PIXEL * (side + 2 * reach) ** 2
    return BlockSettings(**{"reach": reach, "chunk": 32, "memory_budget": budget, **options})


def read(path: Path) -> np.ndarray:
    return zarr.open(path)["0"][:].T


@pytest.fixture(scope="module")
def nuclei() -> ValidUNet:
    return load_network(str(WEIGHTS))


def test_cells_and_scores_are_those_in_memory(tmp_path: Path, nuclei: ValidUNet) -> None:
    path, knobs = write_image(tmp_path, 150, 200), LogitsToInstances()
    logits = in_memory_scores(path, nuclei)
    expected = knobs(logits)[0].numpy()
    assert expected.max() > 10, "test invalid"
    segmenter = LargeImageSegmenter(open_image(path), nuclei, knobs, tmp_path / "out", settings(), save_scores=True)
    assert len(segmenter.blocks) == 4 * 3
    result = segmenter.run()
    assert result == tmp_path / "out" / "cells_cells.zarr"
    np.testing.assert_array_equal(read(result), expected)
    assert zarr.open(result)["0"].dtype == np.uint32
    probability = 1 - special.softmax(logits.numpy(), axis=0)[0]
    difference = np.abs(read(tmp_path / "out" / "cells_scores.zarr") - 255 * probability)
    assert difference.max() < 0.51
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["cells_cells.zarr", "cells_scores.zarr"]


@pytest.mark.parametrize(("size", "cell_diameter"), [(2, None), (0.7, None), (2, 40.0)])
def test_cells_of_another_size_are_those_in_memory(tmp_path: Path, size: float, cell_diameter: float | None) -> None:
    network = load_network(str(WEIGHTS))
    network.image_scale.fill_(1 / size if cell_diameter is None else 1)
    network.cell_diameter.fill_(20)
    path, knobs = write_image(tmp_path, 210, 190, size), LogitsToInstances()
    logits = in_memory_scores(path, network, cell_diameter=cell_diameter)
    expected = knobs(logits)[0].numpy()
    assert expected.max() > 5, "test invalid"
    halo = max(100, 92 * size)
    budget = int(BYTES_PER_PIXEL * (max(1, 1 / size) * (65 + 2 * halo)) ** 2)
    options = settings(memory_budget=budget, cell_diameter=cell_diameter)
    segmenter = LargeImageSegmenter(open_image(path), network, knobs, tmp_path / "out", options, save_scores=True)
    assert len(segmenter.blocks) > 6, "test invalid"
    result = segmenter.run()
    np.testing.assert_array_equal(read(result), expected)
    probability = 1 - special.softmax(logits.numpy(), axis=0)[0]
    assert np.abs(read(tmp_path / "out" / "cells_scores.zarr") - 255 * probability).max() < 0.51


def test_blocks_of_a_network_of_another_scale_keep_to_the_budget(tmp_path: Path) -> None:
    """Shrinking asks for more of the image around a block, enlarging for more pixels in place of each."""
    image, border = open_image(write_image(tmp_path, 900, 80)), make_network().border[0]

    def side(scale: float) -> int:
        options = BlockSettings(reach=4, chunk=16, memory_budget=BYTES_PER_PIXEL * 400**2)
        made = LargeImageSegmenter(image, make_network(image_scale=scale), LogitsToInstances(), tmp_path, options)
        return made.blocks[0, 0].shape[1]

    assert border == 20
    assert [side(scale) for scale in (1, 0.25, 2)] == [360 - 8, 240, 180 - 4]  # 400 px less two borders, whole chunks


def test_two_classes_grow_their_ridges_back(tmp_path: Path) -> None:
    path, network = write_image(tmp_path, 90, 110), make_network(1, out_channels=2)
    logits = in_memory_scores(path, network)
    # An untrained network: thresholds around its median split the image into many pieces.
    middle = float(torch.softmax(logits, 0)[1].median())
    knobs = LogitsToInstances(threshold=middle + 0.004, edge_threshold=middle, min_size=4)
    expected = knobs(logits)[0].numpy()
    assert expected.max() > 5, "test invalid"
    result = LargeImageSegmenter(open_image(path), network, knobs, tmp_path, settings(32)).run()
    differs = np.mean(read(result) != expected)
    assert differs < 1e-3, "a pixel at the threshold may fall to the other side by float rounding"


class Watching(LazyImage):
    """An image that remembers which pixels were read."""

    def __init__(self, image: LazyImage) -> None:
        self.__dict__.update(image.__dict__)
        self.seen = np.zeros(image.shape, bool)

    def read(self, window: tuple[slice, ...]) -> np.ndarray:
        self.seen[window] = True
        return super().read(window)


@pytest.mark.parametrize("by_mask", [False, True])
def test_what_lies_outside_the_region_is_background_and_not_read(tmp_path: Path, by_mask: bool) -> None:
    path, knobs = write_image(tmp_path, 256, 300), LogitsToInstances(threshold=0.5, min_size=3)
    network, region = make_network(3), (slice(30, 75), slice(128, 192))
    chosen: dict[str, Any] = {"roi": [[30, 75], [128, 192]]}
    if by_mask:
        region = (slice(75, 150), slice(128, 192))
        mask = np.zeros((4, 4), np.uint8)
        mask[2, 1] = 255
        Image.fromarray(mask).save(tmp_path / "mask.png")
        chosen = {"mask": str(tmp_path / "mask.png")}
    logits = in_memory_scores(path, network, region)
    outside = torch.ones(logits.shape[1:], dtype=torch.bool)
    outside[region] = False
    middle = float(torch.softmax(logits, 0)[1].median())
    knobs = LogitsToInstances(threshold=middle, edge_threshold=0.5, min_size=3)
    expected = knobs(torch.where(outside, torch.tensor([99.0, 0, 0])[:, None, None], logits))[0].numpy()
    assert expected.max() > 2, "test invalid"
    image = Watching(open_image(path))
    result = LargeImageSegmenter(image, network, knobs, tmp_path / "out", settings(32, reach=20, **chosen)).run()
    assert np.mean(read(result) != expected) < 1e-3
    context = 32 + network.border[0] + 4
    assert not image.seen[region[0].stop + context :].any()
    assert not image.seen[:, : region[1].start - context].any()
    assert image.seen[region].all()


def test_the_size_of_pixels_is_kept(tmp_path: Path) -> None:
    image = draw_nuclei(64, 80)
    metadata = {"axes": "YX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}
    tifffile.imwrite(tmp_path / "a.ome.tif", image, tile=(32, 32), metadata=metadata)
    opened = open_image(tmp_path / "a.ome.tif")
    result = LargeImageSegmenter(opened, make_network(), LogitsToInstances(), tmp_path, settings()).run()
    assert result.name == "a_cells.zarr"
    level = zarr.open(result).attrs["ome"]["multiscales"][0]
    assert level["datasets"][0]["coordinateTransformations"][0] == {"type": "scale", "scale": [0.5, 0.25]}
    assert level["axes"][0] == {"name": "y", "type": "space", "unit": "micrometer"}
    assert open_image(result).grid == opened.grid


class TestErrors:
    def make(self, folder: Path, *, network: ValidUNet | None = None, **options: Any) -> LargeImageSegmenter:
        image = open_image(write_image(folder, 70, 80))
        return LargeImageSegmenter(image, network or make_network(), LogitsToInstances(), folder, settings(**options))

    def test_another_number_of_axes(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"image must have the network's 3 axes, got shape \(80, 70\)"):
            self.make(tmp_path, network=make_network(spatial_dims=3))

    @pytest.mark.parametrize("classes", [1, 5])
    def test_another_number_of_classes(self, tmp_path: Path, classes: int) -> None:
        with pytest.raises(ValueError, match=rf"network must have 2 or 3 classes, got {classes}\."):
            self.make(tmp_path, network=make_network(out_channels=classes))

    def test_an_empty_mask(self, tmp_path: Path) -> None:
        Image.new("L", (8, 7)).save(tmp_path / "empty.png")
        with pytest.raises(
            ValueError, match=r"mask and roi must leave a pixel to segment, got none: .*empty\.png, None"
        ):
            self.make(tmp_path, mask=str(tmp_path / "empty.png"))

    def test_a_diameter_that_no_cell_has(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="cell_diameter must be positive, got -3"):
            self.make(tmp_path, cell_diameter=-3)

    def test_claims_that_die_at_once(self, tmp_path: Path) -> None:
        image = open_image(write_image(tmp_path, 70, 80))
        with pytest.raises(ValueError, match="claim_seconds must be positive, got 0"):
            LargeImageSegmenter(image, make_network(), LogitsToInstances(), tmp_path, claim_seconds=0)

    def test_a_result_that_is_there(self, tmp_path: Path) -> None:
        (tmp_path / "cells_cells.zarr").mkdir()
        with pytest.raises(FileExistsError, match=r"output_dir must not hold cells_cells\.zarr yet"):
            self.make(tmp_path).run()

    def test_a_result_of_other_settings(self, tmp_path: Path) -> None:
        self.make(tmp_path).run()
        with pytest.raises(FileExistsError, match=r"output_dir must not hold cells_cells\.zarr yet"):
            self.make(tmp_path, reach=50).run()

    @pytest.mark.parametrize("kind", ["tif", "zarr"])
    def test_a_result_of_an_image_that_was_changed_in_place(self, tmp_path: Path, kind: str) -> None:
        path, image = tmp_path / f"cells.{kind}", draw_nuclei(70, 80)

        def run(pixels: np.ndarray) -> Path:
            if kind == "tif":
                tifffile.imwrite(path, pixels)
            elif path.exists():
                zarr.open_array(path)[:] = pixels
            else:
                zarr.create_array(path, data=pixels, chunks=(32, 32))
            return LargeImageSegmenter(
                open_image(path), make_network(), LogitsToInstances(), tmp_path, settings()
            ).run()

        result = run(image)
        with pytest.raises(FileExistsError, match=r"output_dir must not hold cells_cells\.zarr yet"):
            run(image.T.copy().reshape(image.shape))
        assert result.is_dir()

    def test_what_a_killed_removal_left_is_in_nobodys_way(self, tmp_path: Path) -> None:
        (tmp_path / ".finished-cells" / "scores").mkdir(parents=True)
        self.make(tmp_path).run()
        assert not list(tmp_path.glob(".*"))

    def test_a_run_with_other_settings_is_not_continued(self, tmp_path: Path) -> None:
        segmenter = self.make(tmp_path)
        segmenter.part.mkdir()
        (segmenter.part / "run.json").write_text(json.dumps({"weights": "others"}))
        with pytest.raises(ValueError, match=r"settings must be those of the run that was begun, .* delete .*\.part-"):
            segmenter.run()


def command(image: Path, output: Path) -> list[str]:
    words = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", "evaluating", "--config_file", str(CONFIG)]
    knobs = {"input": image, "output_dir": output, "checkpoint": WEIGHTS, "chunk": 32, "memory_budget": 10**7}
    knobs |= {"save_tiff": "true", "save_scores": "true", "claim_seconds": 60}  # as docs/large_images.md writes them
    return words + [str(word) for name, value in knobs.items() for word in (f"--{name}", value)]


def run(words: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240)


def test_the_config_runs_and_agrees_with_the_one_for_memory(tmp_path: Path) -> None:
    large, memory = json.loads(CONFIG.read_text()), json.loads((CONFIG.parent / "inference.json").read_text())
    shared = ("spatial_dims", "in_channels", "cell_diameter", "threshold", "edge_threshold", "min_size", "device")
    for knob in (*shared, "neck_depth", "ridge_radius"):
        assert large[knob] == memory[knob]
    assert large["claim_seconds"] == CLAIM_SECONDS
    scaled = next(t for t in memory["preprocessing"]["transforms"] if t["_target_"].startswith("ScaleIntensity"))
    assert (scaled["lower"], scaled["upper"]) == (1, 99.8)
    assert ConfigParser.load_config_files([str(CONFIG)])["evaluating"] == "%run"
    result = run(command(write_image(tmp_path, 100, 90), tmp_path / "out"), tmp_path)
    assert result.returncode == 0, result.stderr
    cells = read(tmp_path / "out" / "cells_cells.zarr")
    assert cells.max() > 5
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / "cells_cells.tif"), cells.T)
    assert read(tmp_path / "out" / "cells_scores.zarr").max() > 127


def test_switches_are_not_taken_for_on_when_they_say_false() -> None:
    for name in ("save_scores", "save_tiff"):
        assert mistyped_value({name: "true"}) is None
        assert mistyped_value({name: "false"}) == f"--{name} must be True or False, with a capital letter, got 'false'."


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("neck_depth", 0.2, "neck_depth must be 0 for images larger than memory, got 0.2"),
        ("reach", 0, "reach must be at least 1 px, got 0"),
        ("claim_seconds", -1, "claim_seconds must be positive, got -1"),
        ("cell_diameter", -1, "cell_diameter must be positive, got -1"),
        ("roi_size", 500, "input size must be one that the poolings fit, such as 492 or 508, got 500."),
        ("roi", "abc", "roi must be start < stop for each axis of (50, 40), got abc."),
        ("roi", 5, "roi must be start < stop for each axis of (50, 40), got 5."),
        ("in_channels", 3, "in_channels must be the network's 1, got 3."),
        ("spatial_dims", 3, "must be one image of 3 spatial axes"),
        ("chunk", 0, "chunk must be at least 1 px, got 0."),
        ("input", "missing.tif", "image file must exist, got missing.tif."),
        ("checkpoint", "missing.pt", "missing.pt"),
        ("cell_diameter", 30, None),
    ],
)
def test_what_cannot_be_done_is_said_before_the_first_block(
    tmp_path: Path, name: str, value: Any, message: str | None
) -> None:
    parser = ConfigParser(ConfigParser.load_config_files([str(CONFIG)]))
    image = write_image(tmp_path, 40, 50)
    parser.update({"input": str(image), "checkpoint": str(WEIGHTS), "output_dir": str(tmp_path / "out"), name: value})
    if message is None:
        assert getattr(parser.get_parsed_content("segmenter").settings, name) == value
    else:
        with pytest.raises(RuntimeError) as error:
            parser.get_parsed_content("segmenter")
        assert message in str(first_cause(error.value))
    assert not (tmp_path / "out").exists()
