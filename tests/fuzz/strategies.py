"""What the fuzz tests draw: label maps, scores, networks with images and tiles, grids, command lines."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from unet_monai.data.image_io import IGNORE_LABEL

from tests.bundle.conftest import REPOSITORY
from tests.drawings import random_discs

CONFIG = json.loads((REPOSITORY / "bundle" / "configs" / "train.json").read_text(encoding="utf-8"))
LARGEST_ID = 2**24 - 1  # that RandElasticDeformation takes
SEEDS = st.integers(0, 2**32 - 1)


def sizes(most: int, axes: int | None = None) -> st.SearchStrategy[tuple[int, ...]]:
    """Draw the size of an image with 2 or 3 axes, down to one pixel."""
    return hnp.array_shapes(min_dims=axes or 2, max_dims=axes or 3, min_side=1, max_side=most)


@st.composite
def label_maps(draw: st.DrawFn, most: int = 12, axes: int | None = None) -> np.ndarray:
    """Draw touching discs, a few specks far apart, or pixels one by one; ids may have gaps, and be large."""
    size, kind = draw(sizes(most, axes)), draw(st.sampled_from(["discs", "specks", "pixels"]))
    if kind == "pixels":
        label = draw(hnp.arrays(np.int32, size, elements=st.integers(IGNORE_LABEL, 4)))
    else:
        radius = (1, most / 2) if kind == "discs" else (0.1, 1)
        label = random_discs(draw(SEEDS), size, count=draw(st.integers(1, 8)), radius=radius)
        label[mask_of_seed(draw, size, density=0.05)] = IGNORE_LABEL
    return np.where(label == 2, draw(st.sampled_from([2, 300, LARGEST_ID])), label).astype(np.int32)


def mask_of_seed(draw: st.DrawFn, size: tuple[int, ...], density: float) -> np.ndarray:
    """Draw a mask by its seed: quicker than pixel by pixel, where no single pixel is what a failure is about."""
    return np.random.default_rng(draw(SEEDS)).random(size) < density


@st.composite
def masks(draw: st.DrawFn, most: int = 20) -> np.ndarray:
    """Draw a mask: noise of any density, smoothed or not, or pixel by pixel."""
    size = draw(sizes(most))
    if draw(st.integers(0, 3)) == 0:
        return draw(hnp.arrays(bool, size))
    noise = np.random.default_rng(draw(SEEDS)).random(size)
    smooth = ndimage.gaussian_filter(noise, draw(st.sampled_from([0, 0.7, 1.5])))
    return smooth < np.quantile(smooth, draw(st.floats(0, 1)))


@st.composite
def scores(draw: st.DrawFn, most: int = 16) -> np.ndarray:
    """Draw the scores (2 or 3, *S) of a network: sure of classes drawn pixel by pixel, or smooth noise."""
    classes, size = draw(st.integers(2, 3)), draw(sizes(most))
    if draw(st.booleans()):
        sure = draw(hnp.arrays(np.uint8, size, elements=st.integers(0, classes - 1)))
        return np.moveaxis(6.0 * np.eye(classes, dtype=np.float32)[sure], -1, 0)
    noise = np.random.default_rng(draw(SEEDS)).normal(size=(classes, *size))
    sigma = draw(st.sampled_from([0, 0.7, 1.5]))
    smooth = np.stack([ndimage.gaussian_filter(each, sigma) for each in noise])
    return (smooth / (smooth.std() + 1e-9) * draw(st.sampled_from([0.1, 2, 50]))).astype(np.float32)


@st.composite
def networks(draw: st.DrawFn) -> dict[str, Any]:
    """Draw the settings of a small `ValidUNet`: depth, channels, kernels and poolings of each level and axis."""
    # From four levels on, the poolings have a phase that tiles can be out of.
    dims, levels = draw(st.sampled_from([(2, 4), (2, 3), (3, 2)]))
    per_axis = st.lists(st.sampled_from([1, 3]), min_size=dims, max_size=dims)
    pools = st.lists(st.sampled_from([1, 2]), min_size=dims, max_size=dims)
    return {
        "spatial_dims": dims,
        "in_channels": draw(st.integers(1, 2)),
        "out_channels": draw(st.integers(2, 3)),
        "features": draw(st.lists(st.integers(1, 3), min_size=levels, max_size=levels)),
        "kernel_size": draw(st.lists(per_axis, min_size=levels, max_size=levels)),
        "pool_size": draw(st.lists(pools, min_size=levels - 1, max_size=levels - 1)),
        "norm": draw(st.sampled_from([None, "batch"])),
    }


# Settings of the inference config, some of which it must refuse.
INFERENCE = st.fixed_dictionaries(
    {},
    optional={
        "roi_size": st.one_of(st.none(), st.integers(-1, 48), st.lists(st.integers(16, 48), min_size=1, max_size=3)),
        "sw_batch_size": st.integers(0, 3),
        "threshold": st.sampled_from([0.05, 0.33, 0.5, 0.99, 0, 1]),
        "edge_threshold": st.sampled_from([0.05, 0.3, 0.6, 0.95, -1]),
        "min_size": st.integers(-1, 6),
        "ridge_radius": st.integers(-1, 3),
        "neck_depth": st.sampled_from([-1, 0, 0.5, 2]),
        "cell_diameter": st.sampled_from([None, 20]),
        "views": st.sampled_from(["identity", "mirror"]),
        "rois": st.booleans(),
    },
)

# Words that a shell may hand over: anything but a null byte, and often something like a value.
WORDS = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12),
    st.text("0123456789.-+e,[](){}'\"$@%#: =_ab", max_size=8),
    st.sampled_from(["True", "false", "None", "null", "5", "2.5", "1e-3", "[1,2]", "abc", "", "$None", "--", "-"]),
)
NAMES = st.one_of(
    st.sampled_from([*CONFIG, "network_def#features", "network_def::dropout", "train#trainer#max_epochs"]), WORDS
)
