"""Time the elastic deformation of an image and its label against two bare samplings, MONAI and AlbumentationsX."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from math import pi
from multiprocessing import get_context

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Rand2DElasticd
from torch.nn.functional import grid_sample
from unet_monai.transforms import RandElasticDeformationd
from unet_monai.transforms.elastic_deformation import sampling_grid

from benchmarks.harness import Row, alternate, cost, faster
from tests.reference.elastic import coordinates_reference, resample_reference

KEYS, MODES = ("image", "label"), ("bilinear", "nearest")
SIDE = 572
WORK = f"rotation + shift + elastic, {SIDE}^2 image and label"
# A call takes milliseconds: so many calls for each round that was asked for.
CALLS = 5
# Where a call goes to a process of its own, this many make one timing.
CALLS_IN_A_ROW = 20
# The paper's setting for ours and, as near to it as their parameters go, for the others.
OURS = {"magnitude": 10, "rotate_range": pi, "shift_range": 10}
TRAINING = {**OURS, "spatial_size": 444, "output_size": 260, "scale_range": 0.15, "flip_prob": 0.5}
MONAI = {"spacing": (SIDE // 2, SIDE // 2), "prob": 1, "mode": MODES, "padding_mode": "reflection"}


def rows(options: Namespace) -> Iterator[Row]:
    """Compare with the bare samplings, at the paper's tile and in training, and with the other libraries."""
    calls = CALLS * options.rounds
    pair = random_pair((SIDE, SIDE))
    ours = RandElasticDeformationd(KEYS, MODES, "label", **OURS).set_random_state(0)
    ours_alike = likeness_to_twin(ours, pair)
    bare = bare_samplings(ours, pair)
    bare_seconds, seconds = alternate((bare, lambda: ours(pair)), calls, warm_up=CALLS)
    yield cost(WORK, "its two bare grid_sample calls", seconds, bare_seconds, 3, ours_alike)

    image = random_pair((520, 696))
    training = RandElasticDeformationd(KEYS, MODES, "label", **TRAINING).set_random_state(0)
    training_alike = likeness_to_twin(training, image)
    bare = bare_samplings(training, image)
    tracked = {key: MetaTensor(value) for key, value in image.items()}
    bare_seconds, seconds = alternate((bare, lambda: training(tracked)), calls, warm_up=CALLS)
    what = "the same with scale and flips, a tile of 444^2 out of 520 x 696, with metadata"
    yield cost(what, "its two bare grid_sample calls", seconds, bare_seconds, None, training_alike)

    moving = {"magnitude_range": (10, 10), "rotate_range": pi, "translate_range": 10}
    monai = Rand2DElasticd(KEYS, **MONAI, **moving).set_random_state(0)
    their_seconds, seconds = alternate((lambda: monai(pair), lambda: ours(pair)), calls, warm_up=CALLS)
    yield faster(WORK, "MONAI Rand2DElasticd", seconds, their_seconds, 8, errors_at_rest())
    yield from against_albumentations(options.threads, options.rounds)


def against_albumentations(threads: int, rounds: int) -> Iterator[Row]:
    """Compare with AlbumentationsX: the same work, for which it takes two transforms, and its deformation alone.

    Each library has a process of its own, and begins after a pause: OpenCV's and torch's threads wait actively for a
    while, and delay each other, as they do for nobody who uses one of them.
    """
    spawn = get_context("spawn")
    with (
        ProcessPoolExecutor(1, spawn, torch.set_num_threads, (threads,)) as torch_process,
        ProcessPoolExecutor(1, spawn, set_opencv_threads, (threads,)) as opencv_process,
    ):
        seconds, both_seconds, alone_seconds = alternate(
            (
                lambda: torch_process.submit(repeat, our_call).result(),
                lambda: opencv_process.submit(repeat, albumentations_turned_and_bent).result(),
                lambda: opencv_process.submit(repeat, albumentations_bent).result(),
            ),
            rounds,
            pause=0.5,
        )
    check = "not the same field: a B-spline of 4 x 4 points, at most 10 px, black outside"
    yield faster(WORK, "AlbumentationsX Affine + ElasticTransform", seconds, both_seconds, 1, f"{check}; sampled twice")
    yield faster(
        WORK,
        "AlbumentationsX ElasticTransform",
        seconds,
        alone_seconds,
        None,
        f"{check}; less work: no rotation, no shift",
    )


def repeat(contestant: Callable[[], Callable[[], object]]) -> None:
    """Call what a contestant makes, made once a process, some times in a row."""
    call = contestant()
    for _ in range(CALLS_IN_A_ROW):
        call()


@cache
def our_call() -> Callable[[], object]:
    """Make a call of our deformation."""
    ours = RandElasticDeformationd(KEYS, MODES, "label", **OURS).set_random_state(0)
    return partial(ours, random_pair((SIDE, SIDE)))


@cache
def albumentations_bent() -> Callable[[], object]:
    """Make a call of AlbumentationsX's deformation alone."""
    return albumentations_call("ElasticTransform")


@cache
def albumentations_turned_and_bent() -> Callable[[], object]:
    """Make a call of AlbumentationsX's rotation and shift, and then its deformation."""
    return albumentations_call("Affine", "ElasticTransform")


def albumentations_call(*names: str) -> Callable[[], object]:
    """Make a call of these transforms of AlbumentationsX, one after the other."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would ask the network for its newest version
    import albumentations

    # Its coarsest grid, its own border (zeros) and a type of labels that OpenCV samples as it is: its fastest setting.
    reach = 10 / (SIDE - 1)
    settings = {
        "Affine": {"rotate": (-180, 180), "translate_px": (-10, 10)},
        "ElasticTransform": {"displacement_range": (reach, reach), "control_grid_shape": (4, 4)},
    }
    transforms = albumentations.Compose(
        [getattr(albumentations, name)(**settings[name], p=1) for name in names], seed=0
    )
    pair = random_pair((SIDE, SIDE))
    return partial(transforms, image=pair["image"][0].numpy(), mask=pair["label"][0].numpy().astype(np.int16))


def set_opencv_threads(threads: int) -> None:
    """Set the threads of OpenCV, which AlbumentationsX computes with."""
    import cv2

    cv2.setNumThreads(threads)


def random_pair(size: tuple[int, int]) -> dict[str, torch.Tensor]:
    """Make an image of noise and a label of 50 ids."""
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 50, (1, *size), generator=generator, dtype=torch.int32)
    return {"image": torch.rand(1, *size, generator=generator), "label": label}


def bare_samplings(ours: RandElasticDeformationd, pair: Mapping[str, torch.Tensor]) -> Callable[[], object]:
    """Return the two calls of grid_sample that take our last tile, with the grid ready and the label in float32."""
    deformation = ours.transform.deformation
    grid = sampling_grid(deformation, [slice(0, n) for n in pair["image"].shape[1:]])[None]
    image, label = pair["image"][None], pair["label"][None].float()
    return lambda: (
        grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=True),
        grid_sample(label, grid, mode="nearest", padding_mode="zeros", align_corners=True),
    )


def likeness_to_twin(ours: RandElasticDeformationd, pair: Mapping[str, torch.Tensor]) -> str:
    """Tell how far our next tile is from that of the slow twin in float64."""
    tile = ours(pair)
    positions = coordinates_reference(ours.transform.deformation)
    difference = np.abs(tile["image"].numpy() - resample_reference(pair["image"].numpy(), positions, order=1)).max()
    sizes = np.reshape(pair["label"].shape[1:], (-1, 1, 1))
    outside = ((positions < -0.5) | (positions > sizes - 0.5)).any(axis=0)
    label = np.where(outside, -1, resample_reference(pair["label"].numpy(), positions, order=0))
    others = (tile["label"].numpy() != label).mean()
    return (
        f"float64 twin: grey values of 0 ... 1 differ by at most {difference:.1g}, {others:.1g} of the label's pixels"
    )


def errors_at_rest() -> str:
    """Tell how far MONAI and we move pixels at magnitude 0, from a ramp that holds each pixel's own row."""
    ramp = {"image": torch.arange(SIDE, dtype=torch.float32).reshape(1, -1, 1).repeat(1, 1, SIDE)}
    monai = Rand2DElasticd("image", **{**MONAI, "mode": "bilinear"}, magnitude_range=(0, 0))
    ours = RandElasticDeformationd("image", "bilinear", magnitude=0)
    theirs, own = ((transform(ramp)["image"] - ramp["image"]).abs().max().item() for transform in (monai, ours))
    return (
        f"at magnitude 0 MONAI moves pixels by up to {theirs:.3g} px (absolute coordinates, bicubic), we by {own:.1g}"
    )
