"""A small set of touching cells, drawn by the package itself, so that training runs with no data at hand."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.measure import label as label_components

logger = logging.getLogger(__name__)

RECORD_NAME = "demo.json"
MIN_SIDE = 48
MIN_CELL_PIXELS = 30
RADIUS_RANGE = (9.0, 20.0)
CELLS_PER_PIXEL = 1 / 1900

Floats = NDArray[np.float64]
Labels = NDArray[np.uint16]


@dataclass(frozen=True)
class _Scene:
    """What lies in front of the camera; every map is (H, W), `labels` counts the cells from 1."""

    labels: Labels
    height: Floats
    nucleus: Floats
    nucleolus: Floats


def draw_cells(seed: int, size: tuple[int, int] = (256, 320)) -> tuple[NDArray[np.uint8], Labels]:
    """Draw one picture of touching cells, in the manner of phase contrast, and its instance labels.

    Cells lie in clumps and alone. Where two overlap, the pixel goes to the one whose centre is nearer in units of its
    own radius in that direction, so that touching cells share a border without a background pixel between them; all
    that shows there is a thin seam, of uneven strength. Cells have a nucleus, granules, a rim and a halo; the light is
    uneven, the camera blurs and adds shot and read noise, and the background holds debris that is no cell.

    Args:
        seed: Everything drawn follows from it and from `size`; not negative.
        size: (H, W) of the picture, at least 48 pixels each.

    Returns:
        Picture (H, W) uint8, and labels (H, W) uint16: 0 = background, 1 ... n = cells. Each cell is one 4-connected
        component of at least 30 pixels; its diameter is about 18 to 40 pixels unless the picture's edge cuts it.

    Raises:
        ValueError: If a side of `size` is too short.

    Example:
        >>> image, labels = draw_cells(seed=7, size=(96, 128))
        >>> image.shape, image.dtype, labels.dtype
        ((96, 128), dtype('uint8'), dtype('uint16'))
        >>> int(labels.max()) >= 5
        True
    """
    if min(size) < MIN_SIDE:
        raise ValueError(f"size must be at least {MIN_SIDE} pixels along each axis, got {size}.")
    rng = np.random.default_rng(seed)
    scene = _grow_cells(rng, _place_cells(rng, size), size)
    light = _background(rng, size) + _cell_light(rng, scene)
    return _photograph(rng, light), scene.labels


def demo_dataset(folder: str, *, num_images: int = 24, seed: int = 2015) -> str:
    """Draw the demo set into `folder` unless it is there already, and return `folder`.

    The set is `images/cells_00.png ...` (uint8), `labels/cells_00.png ...` (uint16 instances) and a record of the
    arguments, `demo.json`. Picture i is `draw_cells(seed + i)`. The set is drawn beside `folder` under a temporary name
    and renamed: a run that is killed leaves nothing under the final name, and of two runs at once the first one's set
    stays. A set that is there is returned untouched.

    Args:
        folder: Where the set is or will be; missing parents are made.
        num_images: Number of pictures, at least 1.
        seed: Seed of the first picture; not negative.

    Returns:
        `folder`, as given.

    Raises:
        ValueError: If `num_images` is less than 1.
        FileExistsError: If `folder` is a file, or holds anything but this demo set.

    Example:
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     folder = demo_dataset(f"{parent}/demo", num_images=2)
        ...     sorted(path.name for path in Path(folder, "labels").iterdir())
        ['cells_00.png', 'cells_01.png']
    """
    if num_images < 1:
        raise ValueError(f"num_images must be at least 1, got {num_images}.")
    target = Path(folder).resolve()
    if _is_demo_set(target, num_images, seed):
        return folder
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise FileExistsError(
            f"folder must be missing, empty, or hold the whole demo set of num_images={num_images}, seed={seed}, "
            f"got {folder}."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as temporary:
        draft = Path(temporary, target.name)
        _write_demo_set(draft, num_images, seed)
        with contextlib.suppress(OSError):
            target.rmdir()  # Windows does not rename over a folder, not even an empty one
        try:
            os.rename(draft, target)
        except OSError:
            # another run was first, which is fine as long as its set is the same
            if not _is_demo_set(target, num_images, seed):
                raise
            return folder
    logger.info("Drew the demo set: %d pictures of touching cells (seed %d) in %s", num_images, seed, folder)
    return folder


def _picture_names(num_images: int) -> list[str]:
    return [f"cells_{index:02d}.png" for index in range(num_images)]


def _is_demo_set(target: Path, num_images: int, seed: int) -> bool:
    """Whether `target` is the whole set of these arguments: its record agrees and every file is there."""
    record = target / RECORD_NAME
    if not record.is_file() or record.read_text(encoding="utf-8") != _record(num_images, seed):
        return False
    return all((target / kind / name).is_file() for kind in ("images", "labels") for name in _picture_names(num_images))


def _record(num_images: int, seed: int) -> str:
    return json.dumps({"num_images": num_images, "seed": seed}) + "\n"


def _write_demo_set(target: Path, num_images: int, seed: int) -> None:
    (target / "images").mkdir(parents=True)
    (target / "labels").mkdir()
    for index, name in enumerate(_picture_names(num_images)):
        image, labels = draw_cells(seed + index)
        Image.fromarray(image).save(target / "images" / name)
        Image.fromarray(labels).save(target / "labels" / name)
    (target / RECORD_NAME).write_text(_record(num_images, seed), encoding="utf-8")


def _place_cells(rng: np.random.Generator, size: tuple[int, int]) -> Floats:
    """Centres and radii, (n, 3) as row, column, radius: mostly next to another cell, some alone, some over the edge."""
    wanted = max(4, round(size[0] * size[1] * CELLS_PER_PIXEL * rng.uniform(0.75, 1.15)))
    cells = np.zeros((0, 3))
    for _ in range(20 * wanted):
        radius = rng.uniform(*RADIUS_RANGE)
        centre = rng.uniform(-0.3 * radius, np.add(size, 0.3 * radius))
        if len(cells) and rng.random() < 0.45:
            row, column, neighbour_radius = cells[rng.integers(len(cells))]
            angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.78, 0.92) * (radius + neighbour_radius)
            centre = np.array([row + reach * np.sin(angle), column + reach * np.cos(angle)])
        inside = np.all(centre > -0.3 * radius) and np.all(centre < np.add(size, 0.3 * radius))
        distance = np.hypot(*(cells[:, :2] - centre).T)
        if inside and np.all(distance > 0.76 * (cells[:, 2] + radius)):
            cells = np.vstack([cells, [*centre, radius]])
        if len(cells) == wanted:
            break
    return cells


def _smooth_noise(rng: np.random.Generator, size: tuple[int, int], sigma: float) -> Floats:
    """Gaussian noise (H, W) with a grain of `sigma` pixels, mean about 0, standard deviation 1."""
    # coarse grains are filtered on a coarse grid and enlarged: the same look for a fraction of the time
    step = max(1, int(sigma / 3))
    coarse = [-(-length // step) + 2 for length in size]
    noise = ndimage.gaussian_filter(rng.standard_normal(coarse), sigma / step, mode="wrap")
    if step > 1:
        rows, columns = (np.arange(length) / step for length in size)
        noise = ndimage.map_coordinates(noise, np.meshgrid(rows, columns, indexing="ij"), order=1)
    return noise[: size[0], : size[1]] / noise.std()


def _window(centre: Floats, reach: float, size: tuple[int, int]) -> tuple[slice, slice]:
    """The part of a (H, W) map within `reach` pixels of `centre` along each axis."""
    first = np.clip(np.floor(centre - reach), 0, size).astype(int)
    last = np.clip(np.ceil(centre + reach) + 1, 0, size).astype(int)
    return slice(first[0], last[0]), slice(first[1], last[1])


def _grow_cells(rng: np.random.Generator, cells: Floats, size: tuple[int, int]) -> _Scene:
    """Give every cell an outline, a nucleus and a nucleolus, and every pixel to at most one cell."""
    level = np.ones(size)  # distance from the owner's centre in units of its outline, 1 = outline
    labels = np.zeros(size, np.uint16)
    height, nucleus, nucleolus = np.zeros(size), np.zeros(size), np.zeros(size)
    warp = np.stack([_smooth_noise(rng, size, 4), _smooth_noise(rng, size, 4)])
    for index, (row, column, radius) in enumerate(cells, start=1):
        window = _window(np.array([row, column]), 1.8 * radius, size)
        rows, columns = np.ogrid[window]
        y, x = rows - row + warp[0][window], columns - column + warp[1][window]
        own_level = _level(rng, y, x, radius, roughness=0.07)
        y, x = y - rng.uniform(-0.2, 0.2) * radius, x - rng.uniform(-0.2, 0.2) * radius
        own_nucleus = _level(rng, y, x, radius * rng.uniform(0.38, 0.5), roughness=0.04)
        y, x = y - rng.uniform(-0.15, 0.15) * radius, x - rng.uniform(-0.15, 0.15) * radius
        own_nucleolus = np.hypot(y, x) / (0.08 * radius + 0.5)
        mine = own_level < level[window]
        level[window][mine] = own_level[mine]
        labels[window][mine] = index
        height[window][mine] = rng.uniform(0.5, 1.3) * np.sqrt(1 - own_level[mine] ** 2)
        nucleus[window][mine] = 1 / (1 + np.exp(9 * (np.minimum(own_nucleus[mine], 5) - 1)))
        nucleolus[window][mine] = np.exp(-(own_nucleolus[mine] ** 2))
    labels = _keep_whole_cells(labels)
    return _Scene(labels, *(np.where(labels, canvas, 0.0) for canvas in (height, nucleus, nucleolus)))


def _level(rng: np.random.Generator, y: Floats, x: Floats, radius: float, *, roughness: float) -> Floats:
    """Distance from (0, 0) in units of a smooth, irregular, elongated outline of about `radius` pixels."""
    stretch, tilt = np.sqrt(rng.uniform(1.0, 1.5)), rng.uniform(0, np.pi)
    along, across = y * np.sin(tilt) + x * np.cos(tilt), y * np.cos(tilt) - x * np.sin(tilt)
    # the k-th power of the unit vector turns k times on the way round: its real part is cos(k angle)
    turn = (x + 1j * y) / np.maximum(np.hypot(x, y), 1e-9)
    outline, power = np.full(y.shape, radius), turn
    for _ in range(2, 6):
        power = power * turn
        outline *= 1 + rng.uniform(-roughness, roughness) * (power * np.exp(1j * rng.uniform(0, 2 * np.pi))).real
    return np.hypot(along / stretch, across * stretch) / outline


def _keep_whole_cells(labels: Labels) -> Labels:
    """Keep the largest 4-connected component of each cell unless it is tiny, and count the cells from 1 again."""
    components = label_components(labels, connectivity=1)
    owner = np.zeros(components.max() + 1, int)
    owner[components] = labels
    area = np.bincount(components.ravel())
    largest = np.zeros(owner.max() + 1, int)
    np.maximum.at(largest, owner, area)
    kept = (owner > 0) & (area == largest[owner]) & (area >= MIN_CELL_PIXELS)
    # two components of one cell with equal area: the first one stays
    kept &= np.isin(np.arange(len(owner)), np.unique(np.where(kept, owner, 0), return_index=True)[1])
    return np.where(kept, np.cumsum(kept), 0).astype(np.uint16)[components]


def _background(rng: np.random.Generator, size: tuple[int, int]) -> Floats:
    """The medium, about 0.4 grey, with faint structure and with debris."""
    medium = 0.4 + 0.012 * _smooth_noise(rng, size, 12) + 0.006 * _smooth_noise(rng, size, 1.5)
    for debris, reach, pixels_per_piece in ((_speck, 12, 5500), (_ring, 25, 40000), (_thread, 40, 50000)):
        for _ in range(rng.poisson(size[0] * size[1] / pixels_per_piece)):
            row, column = rng.uniform(0, size)
            window = _window(np.array([row, column]), reach, size)
            rows, columns = np.ogrid[window]
            medium[window] += debris(rng, rows - row, columns - column)
    return medium


def _speck(rng: np.random.Generator, y: Floats, x: Floats) -> Floats:
    """A bright grain with a dark ring, about 4 to 10 pixels wide."""
    distance = np.hypot(y, x) / rng.uniform(1.0, 2.4)
    return rng.uniform(0.1, 0.35) * (np.exp(-(distance**2)) - 0.6 * np.exp(-2 * (distance - 2) ** 2))


def _ring(rng: np.random.Generator, y: Floats, x: Floats) -> Floats:
    """Something far out of focus: faint rings."""
    distance = np.hypot(y, x)
    return rng.uniform(0.04, 0.09) * np.cos(distance / 2) * np.exp(-((distance / rng.uniform(6, 10)) ** 2))


def _thread(rng: np.random.Generator, y: Floats, x: Floats) -> Floats:
    """A dark, slightly bent fibre, 20 to 44 pixels long."""
    angle, bend, half_length = rng.uniform(0, np.pi), rng.uniform(-0.02, 0.02), rng.uniform(10, 22)
    along, across = y * np.sin(angle) + x * np.cos(angle), y * np.cos(angle) - x * np.sin(angle)
    return -0.15 * np.exp(-((across - bend * along**2) ** 2) / 2) / (1 + (along / half_length) ** 8)


def _cell_light(rng: np.random.Generator, scene: _Scene) -> Floats:
    """What the cells add to the medium: body, texture, granules, nucleus, rim and seam inside; the halo outside."""
    size = scene.labels.shape
    inside = scene.labels > 0
    edge = _edge_distance(scene.labels)
    granules = np.where(rng.random(size) < 0.02, rng.choice([-1.0, 1.0, 1.0], size), 0.0)
    granules = ndimage.gaussian_filter(granules, 0.9) * 6
    texture = _smooth_noise(rng, size, 1.2) + 0.7 * _smooth_noise(rng, size, 3)
    body = rng.uniform(0.09, 0.14) * scene.height
    body += (0.03 * texture + 0.14 * granules) * (1 - 0.8 * scene.nucleus)
    body -= 0.1 * scene.nucleus * (1 - 2.2 * scene.nucleolus)
    patchy = np.clip(1 + 0.3 * _smooth_noise(rng, size, 6), 0.5, 1.6)
    rim = -rng.uniform(0.15, 0.2) * patchy * np.exp(-((edge / 1.3) ** 2))
    halo = rng.uniform(0.1, 0.16) * patchy * np.exp(-edge / 2.5)
    return np.where(inside, body + rim, halo)


def _edge_distance(labels: Labels) -> Floats:
    """Distance of each pixel to the nearest pixel at a border between two labels (background is one), in pixels."""
    at_border = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        first = np.moveaxis(labels, axis, 0)
        differs = first[1:] != first[:-1]
        np.moveaxis(at_border, axis, 0)[1:] |= differs
        np.moveaxis(at_border, axis, 0)[:-1] |= differs
    return ndimage.distance_transform_edt(~at_border)


def _photograph(rng: np.random.Generator, light: Floats) -> NDArray[np.uint8]:
    """Uneven illumination, blur, shot noise, read noise and 8 bits."""
    size = light.shape
    rows, columns = np.linspace(-1, 1, size[0])[:, None], np.linspace(-1, 1, size[1])
    angle, slope, vignette = rng.uniform(0, 2 * np.pi), rng.uniform(0.08, 0.2), rng.uniform(0.04, 0.14)
    lamp = 1 + slope * (np.sin(angle) * rows + np.cos(angle) * columns) - vignette * (rows**2 + columns**2)
    exposure = np.clip(ndimage.gaussian_filter(light * lamp, rng.uniform(0.6, 0.9)), 0.02, None)
    electrons = rng.uniform(1000, 1600)
    grey = rng.poisson(exposure * electrons) / electrons + rng.normal(0, 0.008, size)
    return np.clip(np.round(grey * 255), 0, 255).astype(np.uint8)
