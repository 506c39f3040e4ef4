from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch.nn.functional import grid_sample
from unet_monai.transforms import RandElasticDeformation, RandElasticDeformationd
from unet_monai.transforms.elastic_deformation import (
    OVERSHOOT,
    Deformation,
    cubic_upsampling,
    sample,
    sampling_grid,
    source_window,
)

from tests.drawings import draw, random_discs
from tests.reference.elastic import coordinates_reference, resample_reference

EVERYTHING = {"magnitude": 2.0, "rotate_range": 3.0, "shift_range": 3.0, "scale_range": 0.3, "flip_prob": 0.5}


def random_image(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def still(tile_size: tuple[int, ...], image_size: tuple[int, ...], linear: np.ndarray | None = None) -> Deformation:
    """A tile around the middle of the image, not displaced."""
    dims = len(tile_size)
    centre = (np.array(image_size) - 1) / 2
    return Deformation(tile_size, centre, np.eye(dims) if linear is None else linear, np.zeros((dims, *[3] * dims)))


def positions_in(image_size: tuple[int, ...], deformation: Deformation) -> np.ndarray:
    """Turn the grid of the tile back to pixels of the image, float64 (D, *tile)."""
    grid = sampling_grid(deformation, [slice(0, n) for n in image_size]).double().numpy()
    from_first_axis = np.moveaxis(grid, -1, 0)[::-1]
    halves = [((n - 1) / 2, max(n - 1, 1) / 2) for n in image_size]
    return np.stack([middle + half * g for g, (middle, half) in zip(from_first_axis, halves, strict=True)])


def transform_with(deformation: Deformation) -> RandElasticDeformation:
    transform = RandElasticDeformation()
    transform.deformation = deformation
    return transform


def apply(deformation: Deformation, image: np.ndarray, mode: str = "bilinear") -> np.ndarray:
    return transform_with(deformation)(image, mode=mode, randomize=False)


def drawn(transform: RandElasticDeformation, image_size: tuple[int, ...], count: int) -> list[Deformation]:
    deformations = []
    for _ in range(count):
        transform.randomize(image_size)
        assert transform.deformation is not None
        deformations.append(transform.deformation)
    return deformations


class TestCubicUpsampling:
    @pytest.mark.parametrize(("points", "size"), [(2, 7), (3, 9), (3, 10), (4, 13), (5, 100), (9, 5)])
    def test_keeps_constant_and_linear_displacements(self, points: int, size: int) -> None:
        matrix = cubic_upsampling(points, size)
        assert matrix.shape == (size, points)
        np.testing.assert_allclose(matrix @ np.ones(points), 1, atol=1e-12)
        np.testing.assert_allclose(matrix @ np.linspace(-3, 8, points), np.linspace(-3, 8, size), atol=1e-12)

    def test_passes_through_the_control_points(self) -> None:
        np.testing.assert_allclose(cubic_upsampling(4, 13)[::4], np.eye(4), atol=1e-12)

    def test_is_smooth(self) -> None:
        bump = cubic_upsampling(3, 401) @ [0, 1, 0]
        # The natural cubic spline through 0, 1, 0 is 1.5 t - 0.5 t^3 on its first half.
        t = np.linspace(0, 1, 201)
        np.testing.assert_allclose(bump[:201], 1.5 * t - 0.5 * t**3, atol=1e-12)
        np.testing.assert_allclose(bump, bump[::-1], atol=1e-12)

    def test_overshoots_less_than_the_source_window_allows_for(self) -> None:
        factors = [np.abs(cubic_upsampling(points, 40 * points)).sum(axis=1).max() for points in range(2, 40)]
        assert 1.5 < max(factors) < OVERSHOOT

    def test_what_is_kept_for_the_next_tile_cannot_be_changed(self) -> None:
        with pytest.raises(ValueError, match="read-only"):
            cubic_upsampling(3, 9)[0, 0] = 5


class TestSpread:
    @pytest.mark.parametrize("magnitude", [10.0, (4.0, 12.0)])
    def test_is_the_magnitude_at_the_control_points(self, magnitude: float | tuple[float, float]) -> None:
        transform = RandElasticDeformation((9, 13), magnitude=magnitude).set_random_state(seed=0)
        fields = []
        for deformation in drawn(transform, (50, 60), 400):
            undisplaced = deformation._replace(displacements=np.zeros((2, 3, 3)))
            field = positions_in((50, 60), deformation) - positions_in((50, 60), undisplaced)
            fields.append(field[:, ::4, ::6])
            np.testing.assert_allclose(fields[-1], deformation.displacements, atol=2e-5)
        along_axes = np.moveaxis(fields, 1, 0).reshape(2, -1)
        np.testing.assert_allclose(along_axes.std(axis=1), magnitude, rtol=0.05)
        np.testing.assert_allclose(along_axes.mean(axis=1), 0, atol=0.6)

    def test_axes_and_control_points_are_drawn_independently(self) -> None:
        transform = RandElasticDeformation(9).set_random_state(seed=0)
        values = np.array([d.displacements.ravel() for d in drawn(transform, (50, 60), 400)])
        correlation = np.corrcoef(values.T) - np.eye(values.shape[1])
        assert np.abs(correlation).max() < 0.25

    def test_finer_grids(self) -> None:
        transform = RandElasticDeformation(9, grid_size=5).set_random_state(seed=0)
        assert drawn(transform, (20, 20), 1)[0].displacements.shape == (2, 5, 5)


class TestResampling:
    @pytest.mark.parametrize("size", [(30, 41), (9, 12, 10), (1, 20), (13, 1, 6)])
    def test_magnitude_zero_is_the_identity(self, size: tuple[int, ...]) -> None:
        image, label = random_image(0, 2, *size), np.random.default_rng(0).integers(-1, 500, (1, *size), dtype=np.int32)
        transform = RandElasticDeformation(magnitude=0)
        np.testing.assert_allclose(transform(image), image, atol=1e-4)
        np.testing.assert_array_equal(transform(label, mode="nearest"), label)
        if len(size) == 2:
            np.testing.assert_allclose(transform(image, mode="bicubic"), image, atol=1e-4)

    @pytest.mark.parametrize("size", [(572, 700), (1500, 40)])
    def test_the_identity_is_as_good_on_large_images(self, size: tuple[int, ...]) -> None:
        image, label = random_image(0, 1, *size), np.random.default_rng(0).integers(0, 9, (1, *size), dtype=np.int32)
        transform = RandElasticDeformation(magnitude=0)
        assert np.abs(transform(image) - image).max() < 2e-4
        np.testing.assert_array_equal(transform(label, mode="nearest"), label)

    def test_a_still_tile_is_a_crop(self) -> None:
        image = random_image(1, 1, 30, 40)
        np.testing.assert_allclose(apply(still((10, 20), (30, 40)), image), image[:, 10:20, 10:30], atol=1e-5)

    @pytest.mark.parametrize("quarters", [1, 2, 3])
    def test_quarter_turns_are_those_of_numpy(self, quarters: int) -> None:
        image, label = random_image(2, 1, 12, 12), random_discs(2, (12, 12), count=3)[None]
        cos, sin = np.cos(quarters * np.pi / 2), np.sin(quarters * np.pi / 2)
        # The matrix leads from the tile back to the image, so it turns the other way.
        turn = still((12, 12), (12, 12), np.array([[cos, sin], [-sin, cos]]))
        np.testing.assert_allclose(apply(turn, image), np.rot90(image, quarters, axes=(1, 2)), atol=1e-5)
        np.testing.assert_array_equal(apply(turn, label, "nearest"), np.rot90(label, quarters, axes=(1, 2)))

    @pytest.mark.parametrize("axes", [(0,), (1,), (0, 1), (2,), (0, 2)])
    def test_flips_are_those_of_numpy(self, axes: tuple[int, ...]) -> None:
        size = (7, 10, 6) if 2 in axes else (7, 10)
        image = random_image(3, 2, *size)
        flip = still(size, size, np.diag([-1.0 if axis in axes else 1.0 for axis in range(len(size))]))
        np.testing.assert_allclose(apply(flip, image), np.flip(image, [a + 1 for a in axes]), atol=1e-5)

    def test_zoom_by_two(self) -> None:
        ramp = np.broadcast_to(np.arange(20, dtype=np.float32), (1, 20, 20))
        zoomed = apply(still((9, 9), (20, 20), np.eye(2) / 2), ramp)
        np.testing.assert_allclose(zoomed[0], np.broadcast_to(9.5 + (np.arange(9) - 4) / 2, (9, 9)), atol=1e-4)

    @pytest.mark.parametrize(
        ("image_size", "tile_size"),
        [
            ((30, 40), (20, 25)),
            ((8, 11), (40, 30)),
            ((1, 9), (12, 12)),
            ((9, 12, 10), (14, 8, 11)),
            ((5, 4, 1), (6, 9, 5)),
        ],
    )
    @pytest.mark.parametrize("seed", range(2))
    def test_agrees_with_scipy(self, image_size: tuple[int, ...], tile_size: tuple[int, ...], seed: int) -> None:
        image = random_image(seed, 2, *image_size)
        label = random_discs(seed, image_size, count=5, radius=(2, 5))[None]
        transform = RandElasticDeformation(tile_size, **EVERYTHING).set_random_state(seed=seed)
        tile = transform(image, mode="bilinear")
        label_tile = transform(label, mode="nearest", randomize=False)
        assert transform.deformation is not None
        positions = coordinates_reference(transform.deformation)
        np.testing.assert_allclose(positions_in(image_size, transform.deformation), positions, atol=1e-5)
        np.testing.assert_allclose(tile, resample_reference(image, positions, order=1), atol=1e-3)

        outside = np.zeros(tile_size, bool)
        for position, n in zip(positions, image_size, strict=True):
            outside |= (position < -0.5) | (position > n - 0.5)
        expected = np.where(outside, -1, resample_reference(label, positions, order=0))
        decided = (np.abs(positions % 1 - 0.5) > 1e-3).all(axis=0)  # not halfway between two pixels
        assert decided.mean() > 0.9, "test invalid"
        np.testing.assert_array_equal(label_tile[:, decided], expected[:, decided])


class TestPositions:
    def test_are_exact_on_large_images(self) -> None:
        image_size, options = (4000, 3000), {**EVERYTHING, "magnitude": 10.0}
        transform = RandElasticDeformation((4000, 6), **options).set_random_state(seed=0)
        for deformation in drawn(transform, image_size, 3):
            error = positions_in(image_size, deformation) - coordinates_reference(deformation)
            assert np.abs(error).max() < 5e-4

    def test_grids_of_unequal_sides(self) -> None:
        displacements = np.random.default_rng(0).normal(0, 3, (3, 2, 5, 4))
        deformation = Deformation((7, 9, 8), np.array([8.0, 9.0, 7.5]), np.eye(3), displacements)
        expected = coordinates_reference(deformation)
        np.testing.assert_allclose(positions_in((17, 19, 16), deformation), expected, atol=1e-5)

    @pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
    @pytest.mark.parametrize("magnitude", [0.0, 1.0])
    def test_the_window_holds_all_that_the_tile_needs(self, mode: str, magnitude: float) -> None:
        image = torch.from_numpy(random_image(12, 2, 90, 100))
        options = {"magnitude": magnitude, "shift_range": 2.0, "rotate_range": 0.5 * magnitude}
        transform = RandElasticDeformation((9, 10), **options).set_random_state(seed=1)
        cropped = 0
        for deformation in drawn(transform, (90, 100), 50):
            whole = sampling_grid(deformation, (slice(0, 90), slice(0, 100)))
            expected = sample(image, whole, mode, "reflection")
            rows, columns = source_window(deformation, (90, 100))
            if rows.start > 0 and columns.start > 0:
                cropped += 1
                tile = transform_with(deformation)(image, mode=mode, randomize=False)
                np.testing.assert_allclose(tile, expected, atol=1e-3)
        assert cropped > 20, "test invalid"

    @pytest.mark.parametrize(("image_size", "tile_size"), [((20, 30), (12, 15)), ((9, 12, 10), (8, 7, 9))])
    @pytest.mark.parametrize("mode", ["bilinear", "nearest"])
    def test_rows_as_a_batch_are_the_one_image(
        self, image_size: tuple[int, ...], tile_size: tuple[int, ...], mode: str
    ) -> None:
        image = torch.from_numpy(random_image(13, 3, *image_size))
        transform = RandElasticDeformation(tile_size, **EVERYTHING).set_random_state(seed=0)
        deformation = drawn(transform, image_size, 1)[0]
        grid = sampling_grid(deformation, [slice(0, n) for n in image_size])
        tile = sample(image, grid, mode, "reflection")
        plain = grid_sample(image[None], grid[None], mode=mode, padding_mode="reflection", align_corners=True)[0]
        np.testing.assert_array_equal(tile, plain)
        assert tile.is_contiguous()
        # Elsewhere than on the CPU there are no rows; "meta" computes shapes only.
        assert sample(image.to("meta"), grid.to("meta"), mode, "reflection").shape == tile.shape


class TestOutside:
    def test_mirrored_area_of_a_label_is_ignored(self) -> None:
        label = np.ones((1, 4, 3), np.int32)
        tile = apply(still((8, 5), (4, 3)), label, "nearest")
        expected = draw("?????\n?????\n?111?\n?111?\n?111?\n?111?\n?????\n?????")
        np.testing.assert_array_equal(tile[0], expected)

    def test_image_is_mirrored_there_without_repeating_the_edge(self) -> None:
        image = np.array([[[1, 2, 3]]], np.float32)
        tile = apply(still((1, 13), (1, 3)), image)
        np.testing.assert_allclose(tile[0, 0], [2, 1, 2, 3, 2, 1, 2, 3, 2, 1, 2, 3, 2], atol=1e-5)

    def test_outermost_half_pixels_belong_to_the_image(self) -> None:
        label = np.array([[[7, 8, 9]]], np.int32)
        for shift, expected in ((-0.6, [-1, 7, 8]), (-0.4, [7, 8, 9]), (0.4, [7, 8, 9]), (0.6, [8, 9, -1])):
            along = still((1, 3), (1, 3))._replace(centre=np.array([0, 1 + shift]))
            np.testing.assert_array_equal(apply(along, label, "nearest"), [[expected]])
            across = still((1, 3), (1, 3))._replace(centre=np.array([shift, 1]))
            inside = abs(shift) < 0.5
            np.testing.assert_array_equal(apply(across, label, "nearest"), label if inside else [[[-1, -1, -1]]])

    @pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.uint8, np.uint16])
    def test_ignored_pixels_are_minus_one_in_any_integer_type(self, dtype: type) -> None:
        tile = apply(still((8, 5), (4, 3)), np.ones((1, 4, 3), dtype), "nearest")
        assert sorted(np.unique(tile).tolist()) == [-1, 1]

    @pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32])
    def test_ids_survive_as_far_as_float32_tells_them_apart(self, dtype: type) -> None:
        label = (2**24 - np.arange(1, 13)).reshape(1, 3, 4).astype(dtype)
        tile = apply(still((3, 6), (3, 4)), label, "nearest")
        np.testing.assert_array_equal(tile[..., 1:-1], label)
        with pytest.raises(ValueError, match=r"label ids must be below 2\*\*24, got 16777216"):
            apply(still((3, 6), (3, 4)), label + 1, "nearest")


class TestDraws:
    def test_same_seed_same_tile(self) -> None:
        image = random_image(4, 1, 40, 50)
        transforms = [RandElasticDeformation(16, **EVERYTHING).set_random_state(seed=s) for s in (7, 7, 8)]
        first, again, other = (transform(image) for transform in transforms)
        np.testing.assert_array_equal(first, again)
        assert np.abs(first - other).max() > 0.1
        assert np.abs(transforms[0](image) - first).max() > 0.1, "the next tile is another one"
        transforms[0].set_random_state(seed=7)
        np.testing.assert_array_equal(transforms[0](image), first)

    def test_draws_do_not_touch_the_global_state(self) -> None:
        np.random.seed(0)
        before = np.random.get_state()[1].tolist()
        RandElasticDeformation(8).set_random_state(seed=1)(random_image(4, 1, 20, 20))
        assert np.random.get_state()[1].tolist() == before

    def test_ranges(self) -> None:
        options = {"rotate_range": 0.3, "scale_range": 0.25, "flip_prob": 0.5, "shift_range": 2.0}
        transform = RandElasticDeformation(magnitude=0, **options).set_random_state(seed=0)
        found = drawn(transform, (21, 31), 300)
        zooms, angles, flips = [], [], []
        for deformation in found:
            linear = deformation.linear
            mirrored = np.sign(np.diag(linear))
            rotation = linear * mirrored
            zooms.append(1 / np.sqrt(np.linalg.det(rotation)))
            angles.append(np.arctan2(rotation[1, 0], rotation[0, 0]))
            flips.append(mirrored < 0)
        assert np.max(zooms) <= 1.25 + 1e-9
        assert np.min(zooms) >= 1 / 1.25 - 1e-9
        assert (np.max(zooms) > 1.2) & (np.min(zooms) < 1 / 1.2)
        assert (0.27 < np.max(angles) <= 0.3) & (-0.3 <= np.min(angles) < -0.27)
        np.testing.assert_allclose(np.mean(flips, axis=0), 0.5, atol=0.1)
        shifts = np.array([d.centre for d in found]) - (10, 15)
        assert (shifts.max(axis=0) > 1.9).all()
        assert (np.abs(shifts) <= 2).all()

    def test_without_ranges_nothing_turns(self) -> None:
        transform = RandElasticDeformation(8).set_random_state(seed=0)
        for deformation in drawn(transform, (20, 20, 20), 5):
            np.testing.assert_array_equal(deformation.linear, np.eye(3))

    @pytest.mark.parametrize(
        ("image_size", "window"),
        [((50, 60), (10, 21)), ((50, 60), (50, 7)), ((12, 9), (30, 9)), ((9, 20, 7), (4, 30, 7))],
    )
    def test_the_output_window_lies_inside_the_image(
        self, image_size: tuple[int, ...], window: tuple[int, ...]
    ) -> None:
        transform = RandElasticDeformation(70, output_size=window, magnitude=0).set_random_state(seed=0)
        size = np.array(image_size)
        firsts = np.array([d.centre for d in drawn(transform, image_size, 200)]) - (np.array(window) - 1) / 2
        np.testing.assert_allclose(firsts, np.round(firsts))
        room = size - window
        for axis, free in enumerate(room):
            # The window in the image, or the image in the window; every place is taken, the first and the last too.
            assert {*firsts[:, axis]} <= set(range(min(free, 0), max(free, 0) + 1))
            if free >= 0:
                assert (firsts[:, axis].min(), firsts[:, axis].max()) == (0, free)

    def test_cells_are_drawn_more_often_than_background_and_ignored_pixels_never(self) -> None:
        label = np.zeros((20, 20), np.int32)
        label[:10, :4], label[10:] = 3, -1
        transform = RandElasticDeformation(1, magnitude=0, background_density=0.1).set_random_state(seed=0)
        values = []
        for _ in range(1500):
            transform.randomize(label.shape, label)
            assert transform.deformation is not None
            values.append(label[tuple(transform.deformation.centre.astype(int))])
        assert set(values) == {0, 3}
        assert np.mean(np.array(values) == 3) == pytest.approx(40 / (40 + 0.1 * 160), abs=0.05)

    @pytest.mark.parametrize(("density", "share"), [(0.0, 1.0), (1.0, 0.25)])
    def test_density_of_the_background(self, density: float, share: float) -> None:
        label = np.repeat([[1], [0], [0], [0]], 5, axis=1)
        transform = RandElasticDeformation(1, magnitude=0, background_density=density).set_random_state(seed=0)
        hits = []
        for _ in range(600):
            transform.randomize(label.shape, label)
            assert transform.deformation is not None
            hits.append(transform.deformation.centre[0] == 0)
        assert np.mean(hits) == pytest.approx(share, abs=0.06)

    def test_an_image_without_cells_still_gives_tiles(self) -> None:
        for value in (0, -1):
            transform = RandElasticDeformation(4, background_density=0).set_random_state(seed=0)
            transform.randomize((9, 9), np.full((9, 9), value))
            assert transform.deformation is not None


class TestTypes:
    def test_keeps_kind_and_metadata(self) -> None:
        image, label = random_image(5, 1, 20, 24), random_discs(5, (20, 24))[None]
        transform = RandElasticDeformation(8).set_random_state(seed=0)
        tile = transform(image)
        assert type(tile) is np.ndarray
        assert (tile.shape, tile.dtype) == ((1, 8, 8), np.float32)
        assert transform((255 * image).astype(np.uint8), randomize=False).dtype == np.float32
        tensor = transform(torch.from_numpy(image), randomize=False)
        assert type(tensor) is torch.Tensor
        np.testing.assert_array_equal(tensor, tile)
        meta_tensor = transform(MetaTensor(torch.from_numpy(image), meta={"filename_or_obj": "a.tif"}), randomize=False)
        assert isinstance(meta_tensor, MetaTensor)
        assert meta_tensor.meta["filename_or_obj"] == "a.tif"
        np.testing.assert_array_equal(meta_tensor.numpy(), tile)
        assert transform(label, mode="nearest", randomize=False).dtype == label.dtype
        assert transform(torch.from_numpy(label), mode="nearest", randomize=False).dtype == torch.int32

    def test_leaves_the_input_alone(self) -> None:
        for size in (None, 8):
            image, label = random_image(6, 1, 20, 24), random_discs(6, (20, 24))[None]
            for array, mode in ((image, "bilinear"), (label, "nearest")):
                before = array.copy()
                for kind in (array, torch.from_numpy(array)):
                    RandElasticDeformation(size, magnitude=0)(kind, mode=mode)[:] = 9
                np.testing.assert_array_equal(array, before)

    def test_travels_through_pickle(self) -> None:
        image = random_image(7, 1, 20, 24)
        transform = RandElasticDeformation(8, **EVERYTHING).set_random_state(seed=3)
        twin = pickle.loads(pickle.dumps(transform))
        np.testing.assert_array_equal(twin(image), transform(image))


class TestDictionary:
    def test_image_and_label_move_together(self) -> None:
        label = (random_discs(8, (60, 70)) > 0).astype(np.int32)[None]
        data = {"image": label.astype(np.float32), "label": label, "name": "a"}
        transform = RandElasticDeformationd(["image", "label"], label_key="label", spatial_size=40, **EVERYTHING)
        transform.set_random_state(seed=1)
        for _ in range(4):
            tile = transform(data)
            # Where the image is (nearly) that of one kind of pixel, the label has to be of that kind.
            certain = ((tile["image"] < 0.01) | (tile["image"] > 0.99)) & (tile["label"] >= 0)
            assert certain.mean() > 0.3, "test invalid"
            assert len(np.unique(tile["label"][certain])) == 2, "test invalid"
            np.testing.assert_array_equal(tile["label"][certain], tile["image"][certain].round())
            assert tile["name"] == "a"

    def test_is_the_array_transform(self) -> None:
        image, label = random_image(9, 1, 30, 31), random_discs(9, (30, 31))[None]
        options = {"spatial_size": (12, 14), "grid_size": 4, "output_size": 6, "background_density": 0.2, **EVERYTHING}
        transform = RandElasticDeformation(**options).set_random_state(seed=2)
        transform.randomize((30, 31), label[0])
        expected = transform(image, randomize=False), transform(label, mode="nearest", randomize=False)
        twin = RandElasticDeformationd(["image", "label"], label_key="label", **options).set_random_state(seed=2)
        tile = twin({"image": image, "label": label})
        np.testing.assert_array_equal(tile["image"], expected[0])
        np.testing.assert_array_equal(tile["label"], expected[1])

    def test_leaves_the_data_alone_and_keys_may_be_missing(self) -> None:
        image = random_image(10, 1, 30, 31)
        data = {"image": image}
        transform = RandElasticDeformationd(["image", "label"], spatial_size=8, allow_missing_keys=True)
        assert transform.set_random_state(seed=0)(data)["image"].shape == (1, 8, 8)
        assert data["image"] is image
        assert transform({"other": 1}) == {"other": 1}
        with pytest.raises(KeyError, match="label"):
            RandElasticDeformationd(["image", "label"], spatial_size=8)(data)

    def test_travels_through_pickle(self) -> None:
        data = {"image": random_image(11, 1, 20, 24)}
        transform = RandElasticDeformationd("image", "bilinear", spatial_size=8).set_random_state(seed=3)
        twin = pickle.loads(pickle.dumps(transform))
        np.testing.assert_array_equal(twin(data)["image"], transform(data)["image"])


class TestRejects:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"grid_size": 1}, r"grid_size must be at least 2, got 1\."),
            ({"background_density": 1.5}, r"background_density must be within 0 \.\.\. 1, got 1\.5\."),
            ({"background_density": -0.1}, r"background_density must be within 0 \.\.\. 1, got -0\.1\."),
            ({"magnitude": -1.0}, r"magnitude and scale_range must not be negative, got -1\.0 and 0\.0\."),
            (
                {"magnitude": (1.0, -2.0)},
                r"magnitude and scale_range must not be negative, got \(1\.0, -2\.0\) and 0\.0",
            ),
            ({"scale_range": -0.5}, r"magnitude and scale_range must not be negative, got 10\.0 and -0\.5\."),
        ],
    )
    def test_settings(self, options: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            RandElasticDeformation(8, **options)
        with pytest.raises(ValueError, match=message):
            RandElasticDeformationd("image", "bilinear", spatial_size=8, **options)

    def test_unknown_mode(self) -> None:
        with pytest.raises(ValueError, match="trilinear"):
            RandElasticDeformation(8)(random_image(0, 1, 9, 9), mode="trilinear")
        with pytest.raises(ValueError, match="trilinear"):
            RandElasticDeformationd("image", "trilinear", spatial_size=8)({"image": random_image(0, 1, 9, 9)})

    def test_repeating_what_was_never_drawn(self) -> None:
        with pytest.raises(RuntimeError, match=r"call randomize\(\) or pass randomize=True before randomize=False\."):
            RandElasticDeformation(8)(random_image(0, 1, 9, 9), randomize=False)
