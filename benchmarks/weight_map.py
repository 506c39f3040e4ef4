"""The border weight map against the stack of distance transforms of common copies, and against a single transform."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy import ndimage
from unet_monai.transforms.weight_map import border_weight_map

from benchmarks.harness import Row, alternate, cost, faster


def rows(options: Namespace) -> Iterator[Row]:
    """Time the weight map; all contestants run on one thread, as none of them can use more."""
    yield _against_stack(draw_cells(0, side=1024, count=300), rounds=min(options.rounds, 3))
    yield _against_one_transform("1024^2, 300 cells", _draw_many(5, 1024, 300), options.rounds, target=1.0)
    yield _against_one_transform("444^2, 40 cells (a training tile)", _draw_many(25, 444, 40), options.rounds)
    yield _against_one_transform("1024^2, 2500 small cells", _draw_many(2, 1024, 2500, (4, 7)), options.rounds)
    yield _growth(options.rounds)


def _against_stack(label: np.ndarray, rounds: int) -> Row:
    results: dict[str, np.ndarray] = {}
    ours, theirs = alternate(
        [
            lambda: results.update(ours=border_weight_map(label)),
            lambda: results.update(theirs=stacked_weight_map(label)),
        ],
        rounds=rounds,
        warm_up=0,
    )
    difference = np.abs(results["ours"] - results["theirs"]).max()
    what, against = "border weight map, 1024^2, 300 cells", "a stack of one whole-image distance transform per cell"
    return faster(what, against, ours, theirs, 150, f"largest weight difference {difference:.1e}")


def _against_one_transform(what: str, labels: Sequence[np.ndarray], rounds: int, target: float | None = None) -> Row:
    masks = [label == 0 for label in labels]
    ours, theirs = alternate(
        [lambda: _each(border_weight_map, labels), lambda: _each(ndimage.distance_transform_edt, masks)], rounds
    )
    check = f"no: it gives d1 only; {len(labels)} images a round"
    return cost(f"border weight map, {what}", "one whole-image distance transform", ours, theirs, target, check)


def _growth(rounds: int) -> Row:
    large, small = [draw_cells(0, side=4096, count=4800)], _draw_many(64, 512, 75)
    ours, theirs = alternate([lambda: _each(border_weight_map, large), lambda: _each(border_weight_map, small)], rounds)
    what, against = "border weight map, one image of 4096^2, 4800 cells", "64 images of 512^2, 75 cells each"
    return cost(what, against, ours, theirs, 1.2, "no: as many pixels and cells, other images")


def _each(function: Callable[[np.ndarray], np.ndarray], arrays: Sequence[np.ndarray]) -> None:
    for array in arrays:
        function(array)


def stacked_weight_map(label: np.ndarray, w0: float = 10, sigma: float = 5) -> np.ndarray:
    """Compute the weights as common copies do: a distance transform per cell, stacked, sorted, the two least taken."""
    cells = [i for i in np.unique(label) if i > 0]
    distances = np.zeros((*label.shape, len(cells)))
    for i, cell in enumerate(cells):
        distances[..., i] = ndimage.distance_transform_edt(label != cell)
    distances.sort(axis=-1)
    d1, d2 = distances[..., 0], distances[..., 1]
    return 1 + w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2)) * (label == 0)


def _draw_many(number: int, side: int, count: int, radius: tuple[float, float] = (9, 18)) -> list[np.ndarray]:
    return [draw_cells(seed, side, count, radius) for seed in range(number)]


def draw_cells(seed: int, side: int, count: int, radius: tuple[float, float] = (9, 18)) -> np.ndarray:
    """Draw oval cells with uneven outlines, alone and in clumps.

    Cells that would overlap touch: a pixel goes to the cell whose centre is nearer in units of its own outline.

    Args:
        seed: of the generator.
        side: height and width in pixels.
        count: how many cells.
        radius: least and largest mean radius of a cell in pixels.

    Returns:
        Instances 1 ... count, int32 (side, side).
    """
    random = np.random.default_rng(seed)
    label, depth = np.zeros((side, side), np.int32), np.ones((side, side))
    for i, centre in enumerate(_draw_centres(random, side, count, spacing=radius[0]), start=1):
        mean, longer, angle = random.uniform(*radius), random.uniform(1, 1.35), random.uniform(0, np.pi)
        box = tuple(slice(max(int(c - 2.5 * mean), 0), int(c + 2.5 * mean)) for c in centre)
        y, x = (np.arange(side)[b] - c for b, c in zip(box, centre, strict=True))
        along = np.add.outer(y * np.sin(angle), x * np.cos(angle)) / longer
        across = np.add.outer(y * np.cos(angle), -x * np.sin(angle)) * longer
        direction = np.arctan2(across, along)
        waves = [np.cos(k * direction + random.uniform(0, 2 * np.pi)) for k in (2, 3, 5)]
        outline = mean * (1 + np.tensordot(random.normal(0, 0.07, size=3), waves, axes=1))
        here = np.hypot(along, across) / outline
        label[box] = np.where(here < depth[box], i, label[box])
        depth[box] = np.minimum(here, depth[box])
    return label


def _draw_centres(random: np.random.Generator, side: int, count: int, spacing: float) -> np.ndarray:
    """Draw centres (count, 2), no two closer than `spacing`, so that no cell hides another."""
    centres = np.empty((0, 2))
    while len(centres) < count:
        size = random.choice([1, 1, 1, 1, 1, 2, 3, 5, 8])
        clump = random.uniform(0, side, size=2) + random.normal(0, spacing * np.sqrt(size - 1), size=(size, 2))
        for centre in clump:
            inside = (centre >= 0).all() and (centre < side).all()
            if inside and (np.linalg.norm(centres - centre, axis=1) >= spacing).all():
                centres = np.vstack([centres, centre])
    return centres[:count]
