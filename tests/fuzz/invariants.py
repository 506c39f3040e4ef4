"""What must hold whatever the input: each a function of drawn values that fails where it does not."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from monai.data import MetaTensor
from monai.transforms import ScaleIntensityRangePercentiles
from scipy import ndimage, special
from unet_monai import transforms
from unet_monai.bundle.errors import first_cause, says_all
from unet_monai.bundle.overrides import command_line_settings, mistyped_value, unknown_override
from unet_monai.data import CellImageReader
from unet_monai.data.image_io import PERCENTILES
from unet_monai.inferers import OverlapTileInferer
from unet_monai.large_images.block_grid import block_grid
from unet_monai.large_images.components import (
    contacts,
    instance_numbers,
    label_gaps,
    merge_pieces,
    painted,
    piece_table,
)
from unet_monai.networks import ValidUNet
from unet_monai.transforms.instances import (
    fill_component_holes,
    logits_to_instances,
    regrow_ridges,
    remove_small_components,
)

from tests.bundle.test_faults import infer
from tests.fuzz.strategies import CONFIG
from tests.reference.overlap_tile import whole_image_scores
from tests.reference.weight_map import weight_map_reference


@torch.no_grad()
def stitched_scores_are_those_of_the_whole_image(
    network: Mapping[str, Any], size: tuple[int, ...], extra: list[int], sw_batch_size: int, seed: int, automatic: bool
) -> None:
    """The tile's output is the least that the poolings fit and that keeps the phase, and `extra` steps more."""
    torch.manual_seed(seed)
    net = ValidUNet(**network).double().eval()
    dims, steps = network["spatial_dims"], [2**p for p in net.poolings]
    size = size[:dims]
    image = torch.rand(2, network["in_channels"], *size, dtype=torch.float64)
    tile = tuple(
        step + (-step - b) % step + step * more + 2 * b
        for b, step, more in zip(net.border, steps, extra[:dims], strict=True)
    )
    inferer = OverlapTileInferer(
        None if automatic else tile,
        sw_batch_size,
        border=net.border,
        poolings=net.poolings,
        memory_budget=int(np.prod(tile)) * net.bytes_per_pixel,
        bytes_per_pixel=net.bytes_per_pixel,
    )
    whole = whole_image_scores(image, net, net.border, net.poolings)
    torch.testing.assert_close(inferer(image, net), whole, rtol=0, atol=1e-9 * max(1.0, whole.abs().max().item()))


def weights_are_those_of_the_formula(label: np.ndarray, w0: float, sigma: float, class_weights: list[float]) -> None:
    """The border term may be left out where it is below 1e-5."""
    found = transforms.BorderWeightMap(w0, sigma, class_weights)(label[None])[0]
    expected = weight_map_reference(label, w0=w0, sigma=sigma, class_weights=class_weights)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)


def instances_partition_the_foreground(scores: np.ndarray, knobs: Mapping[str, Any]) -> None:
    """Every pixel that a core reaches has one id, no other pixel has, and the ids are 1, 2, ... in raster order."""
    found = logits_to_instances(scores, **knobs, fill_holes=False, ridge_radius=0)
    probability = special.softmax(scores, axis=0)
    along_x, count = ndimage.label((probability[1] > knobs["threshold"]).T)
    components = along_x.T
    sizes = np.bincount(components.ravel(), minlength=count + 1)
    survivors = [i for i in range(1, count + 1) if sizes[i] >= knobs["min_size"]]
    cores = np.isin(components, survivors)
    places, _ = ndimage.label(cores | (probability[0] < 1 - knobs["edge_threshold"]))
    np.testing.assert_array_equal(found > 0, np.isin(places, np.unique(places[cores])))
    for number, i in enumerate(survivors, start=1):
        assert np.unique(found[components == i]).tolist() == [number]
        assert ndimage.label(found == number)[1] == 1, "an instance is in one piece"
    assert found.max() == len(survivors)


def filling_and_regrowing_only_add(scores: np.ndarray, knobs: Mapping[str, Any], radius: int) -> None:
    """Holes and ridges go to instances that are there; no pixel changes its owner, none that has one loses it."""
    cells = logits_to_instances(scores, **knobs, ridge_radius=0)
    regrown = regrow_ridges(cells, radius)
    filled = fill_component_holes(cells)
    for more in (regrown, filled):
        np.testing.assert_array_equal(more[cells > 0], cells[cells > 0])
        assert set(np.unique(more)) <= {0, *np.unique(cells)}
    np.testing.assert_array_equal(filled, cells)
    assert np.unique(cells[cells > 0]).tolist() == list(range(1, cells.max() + 1))


def ids_of_blocks_are_those_of_the_whole_image(mask: np.ndarray, block: tuple[int, ...], min_size: int) -> None:
    """Labelled block by block and merged: the same cells, each with one id of its own, holes filled."""
    size = mask.shape
    expected = remove_small_components(fill_component_holes(ndimage.label(mask)[0]), min_size)
    grid, pieces, tables = block_grid(size, block[: mask.ndim]), {}, {}
    for position, own in grid.items():
        window = own.widened(0, 1, size)
        cores = ndimage.label(mask[window.slices])[0]
        gaps = label_gaps(cores)
        pieces[position] = cores, gaps
        tables[position] = {
            **piece_table("core", cores, own, window, size),
            **piece_table("gap", gaps, own, window, size),
            "contacts": contacts(gaps, cores),
        }
    whole_cores, whole_gaps = merge_pieces("core", tables), merge_pieces("gap", tables)
    numbers = instance_numbers(whole_cores, whole_gaps, tables, min_size)
    of_core, of_gap = whole_cores.by_block(numbers[0]), whole_gaps.by_block(numbers[1])
    found = np.zeros(size, np.uint32)
    for position, own in grid.items():
        cores, gaps = pieces[position]
        numbered = painted(cores, of_core[position]) + painted(gaps, of_gap[position])
        found[own.slices] = numbered[own.within(own.widened(0, 1, size))]
    np.testing.assert_array_equal(found, expected)


def _elastic(keys: Any = None) -> Any:
    knobs = {"spatial_size": 12, "magnitude": 2.0, "rotate_range": 3.0, "scale_range": 0.1, "flip_prob": 0.5}
    if keys is None:
        return transforms.RandElasticDeformation(**knobs).set_random_state(0)
    return transforms.RandElasticDeformationd(keys, label_key="label", **knobs).set_random_state(0)


# Every transform of the package that computes, with the key of its input; the dictionary ones take the whole item.
ARRAY_TRANSFORMS: dict[str, tuple[Callable[[], Callable], str]] = {
    "BorderWeightMap": (transforms.BorderWeightMap, "label"),
    "CellClasses": (transforms.CellClasses, "label"),
    "IgnoreMargin": (lambda: transforms.IgnoreMargin(2), "label"),
    "LogitsToInstances": (lambda: transforms.LogitsToInstances(min_size=1), "pred"),
    "LogitsToProbability": (transforms.LogitsToProbability, "pred"),
    "LogitsToRegions": (transforms.LogitsToRegions, "pred"),
    "RandElasticDeformation": (_elastic, "image"),
    "Rescale": (lambda: transforms.Rescale(0.7, smoothing=0.5), "image"),
    "TouchingRidge": (transforms.TouchingRidge, "label"),
}
DICTIONARY_TRANSFORMS: dict[str, Callable[[], Callable]] = {
    "BorderWeightMapd": lambda: transforms.BorderWeightMapd("label"),
    "CellClassesd": lambda: transforms.CellClassesd("label"),
    "IgnoreMargind": lambda: transforms.IgnoreMargind("label", margin=2),
    "LogitsToInstancesd": lambda: transforms.LogitsToInstancesd("pred", min_size=1),
    "LogitsToProbabilityd": lambda: transforms.LogitsToProbabilityd("pred", name="probability"),
    "LogitsToRegionsd": lambda: transforms.LogitsToRegionsd("pred"),
    "RandElasticDeformationd": lambda: _elastic(["image", "label"]),
    "Rescaled": lambda: transforms.Rescaled(["image", "label"], 1.5, ["linear", "nearest"]),
    "TouchingRidged": lambda: transforms.TouchingRidged("label"),
}
KNOBS = ("threshold", "edge_threshold", "min_size", "ridge_radius", "neck_depth")
FILE_TRANSFORMS = {"LoadCellImaged", "SaveCellTabled", "SaveInstancesd", "SaveOverlayd", "SaveRoisd"}
KINDS: dict[str, Callable[[np.ndarray], Any]] = {
    "array": np.copy,
    "view": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],  # not contiguous
    "tensor": torch.tensor,
    "MetaTensor": lambda array: MetaTensor(torch.tensor(array), meta={"filename_or_obj": "a.tif"}),
}


def transforms_leave_their_input_alone(name: str, kind: str, label: np.ndarray, seed: int) -> None:
    """Neither what an array holds, nor its kind, nor the entries of a dictionary change; nor the label's metadata."""
    random = np.random.default_rng(seed)
    arrays = {
        "image": random.random((1, *label.shape), np.float32),
        "label": label[None],
        "pred": random.normal(0, 3, (2, *label.shape)).astype(np.float32),
    }
    item = {key: KINDS[kind](array) for key, array in arrays.items()}
    before = copy.deepcopy(item)
    entries = dict(item)
    if name in ARRAY_TRANSFORMS:
        make, key = ARRAY_TRANSFORMS[name]
        make()(item[key])
    else:
        DICTIONARY_TRANSFORMS[name]()(item)
    assert list(item) == list(entries)
    for key, value in item.items():
        assert value is entries[key]
        _check_same(value, before[key])


def _check_same(value: Any, before: Any) -> None:
    np.testing.assert_array_equal(np.asarray(value), np.asarray(before))
    assert (type(value), value.dtype) == (type(before), before.dtype)
    if isinstance(value, MetaTensor):
        assert value.meta.keys() == before.meta.keys()
        assert torch.equal(value.affine, before.affine)


def readers_and_writers_leave_their_input_alone(label: np.ndarray, seed: int) -> None:
    """They read the image's file, so it is written first; ids are 0, 1, ... as `LogitsToInstances` numbers them."""
    cells = np.unique(np.maximum(label, 0), return_inverse=True)[1].reshape(label.shape).astype(np.int32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        grey = np.random.default_rng(seed).integers(0, 255, label.shape, dtype=np.uint8)
        tifffile.imwrite(folder / "a.tif", grey, photometric="minisblack")
        item: dict[str, Any] = {"image": str(folder / "a.tif")}
        loaded = transforms.LoadCellImaged("image", CellImageReader())(item)
        assert item == {"image": str(folder / "a.tif")}
        pred = torch.from_numpy(np.ascontiguousarray(cells.T))[None]
        item = {**loaded, "pred": MetaTensor(pred, meta=loaded["image"].meta), "scores": torch.rand(2, *cells.T.shape)}
        before = copy.deepcopy(item)
        for writer in sorted(FILE_TRANSFORMS - {"LoadCellImaged"}):
            getattr(transforms, writer)("pred", folder / "out")(item)
            assert list(item) == list(before)
            for key, value in item.items():
                _check_same(value, before[key])


@torch.no_grad()
def configs_do_what_they_set_or_refuse_in_one_line(
    network: Mapping[str, Any], size: tuple[int, ...], settings: Mapping[str, Any], seed: int
) -> None:
    """What the inference config writes is what the functions make of the whole image; or it says why it does not."""
    torch.manual_seed(seed)
    net = ValidUNet(**network).eval()
    grey = np.random.default_rng(seed).integers(0, 255, size, dtype=np.uint8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        tifffile.imwrite(folder / "in" / "a.tif", grey, photometric="minisblack")
        torch.save(net.state_dict(), folder / "model.pt")
        config = {"_target_": "unet_monai.networks.ValidUNet", **network}
        try:
            infer(folder, network_def=config, checkpoint=str(folder / "model.pt"), **settings)
        except (RuntimeError, ValueError) as error:
            cause = first_cause(error)
            assert says_all(cause), repr(cause)
            assert len(str(cause).splitlines()) == 1
            assert any(name in str(cause) for name in settings) or "input size" in str(cause)
            assert not list((folder / "out").glob("*"))
            return
        written = tifffile.imread(folder / "out" / "a.tif").T
    normalise = ScaleIntensityRangePercentiles(*PERCENTILES, 0, 1)
    image = torch.from_numpy(np.asarray(normalise(grey.T.astype(np.float32))))[None, None]
    logits = whole_image_scores(image, net, net.border, net.poolings)[0].numpy()
    knobs = {name: settings[name] for name in KNOBS if name in settings}
    probability = special.softmax(logits, axis=0)
    margins = probability[1] - settings.get("threshold", 0.7), 1 - probability[0] - settings.get("edge_threshold", 0.3)
    if min(np.abs(margin).min() for margin in margins) > 1e-4:  # or rounding decides
        np.testing.assert_array_equal(written, logits_to_instances(logits, **knobs))


def command_lines_are_understood_or_refused_in_one_line(settings: list[tuple[str, str]]) -> None:
    """Whatever is typed: no traceback, and a mistake names the setting."""
    given = command_line_settings([word for name, value in settings for word in (f"--{name}", value)])
    for message in (unknown_override(given, CONFIG), mistyped_value(given)):
        if message is not None:
            assert any(repr(f"--{name}")[1:-1] in message for name in given)
            assert len(message.splitlines()) == 1
