from __future__ import annotations

import numpy as np
import pytest
from unet_monai.pictures import contact_sheet, draw_overlay
from unet_monai.pictures.overlays import BOTH, GAP, LEGEND, PREDICTION, TITLE_HEIGHT, TRUTH

from tests.drawings import draw, random_discs

LABEL = draw("""
    ..............
    .1111..222....
    .1111..222....
    .1111..222....
    .1111.........
    ............??
""")
PRED = draw("""
    ..............
    .1111.........
    .1111.....333.
    .1111.....333.
    .1111.....333.
    ..............
""")
# `t` truth, `p` prediction, `b` both; the inside of a cell keeps the image.
CONTOURS = """
    ..............
    .bbbb..ttt....
    .b..b..t.tppp.
    .b..b..tttp.p.
    .bbbb.....ppp.
    ............dd
"""


def enlarge(array: np.ndarray, zoom: int) -> np.ndarray:
    return np.kron(array, np.ones((zoom, zoom), array.dtype))


class TestDrawOverlay:
    def test_contours_have_their_colours_where_they_belong(self) -> None:
        # Already large, so that pixels stay pixels.
        canvas = np.zeros((600, 700), int)
        pred, label, image = canvas.copy(), canvas.copy(), np.full(canvas.shape, 0.5)
        image[0, :8], image[1, :8] = 0, 1
        pred[100:106, 50:64], label[100:106, 50:64] = PRED, LABEL
        image[590:] = np.linspace(0, 1, 700)
        picture = draw_overlay(image, pred, label)
        assert (picture.shape, picture.dtype) == ((600, 700, 3), np.uint8)
        colours = {"t": TRUTH, "p": PREDICTION, "b": BOTH, ".": picture[300, 300], "d": picture[300, 300] // 2}
        rows = [[colours[c] for c in line.strip()] for line in CONTOURS.strip().split("\n")]
        np.testing.assert_array_equal(picture[100:106, 50:64], rows)
        outside = np.ones(canvas.shape, bool)
        outside[100:106, 50:64] = False
        red, green, blue = picture[outside].T
        np.testing.assert_array_equal(red, green)
        np.testing.assert_array_equal(red, blue)

    def test_without_truth_there_are_only_predictions(self) -> None:
        picture = draw_overlay(np.zeros((500, 500)), np.pad(np.ones((8, 9), int), ((20, 472), (30, 461))))
        coloured = picture.any(axis=2)
        assert (picture[coloured] == PREDICTION).all()
        expected = np.zeros((500, 500), bool)
        expected[20:28, 30:39] = True
        expected[21:27, 31:38] = False
        np.testing.assert_array_equal(coloured, expected)

    @pytest.mark.parametrize(("size", "zoom"), [((6, 14), 34), ((100, 240), 2), ((300, 241), 1), ((700, 30), 1)])
    def test_small_images_are_enlarged_by_a_whole_number(self, size: tuple[int, int], zoom: int) -> None:
        image = np.random.default_rng(0).random(size)
        picture = draw_overlay(image, np.zeros(size, int), np.zeros(size, int))
        assert picture.shape == (size[0] * zoom, size[1] * zoom, 3)
        np.testing.assert_array_equal(picture[..., 0], enlarge(picture[::zoom, ::zoom, 0], zoom))

    def test_contours_stay_thin_in_an_enlarged_picture(self) -> None:
        picture = draw_overlay(np.zeros(PRED.shape), PRED)
        zoom = picture.shape[0] // PRED.shape[0]
        cell = (picture == PREDICTION).all(axis=2)[zoom : 5 * zoom, zoom : 5 * zoom]
        assert cell[[0, -1]].all()
        assert cell[:, [0, -1]].all()
        assert not cell[1:-1, 1:-1].any()

    def test_touching_cells_are_told_apart(self) -> None:
        picture = draw_overlay(np.zeros((500, 500)), np.repeat([[1] * 250 + [2] * 250], 500, axis=0))
        coloured = (picture == PREDICTION).all(axis=2)
        np.testing.assert_array_equal(coloured.all(axis=0).nonzero()[0], [249, 250])

    def test_the_range_of_the_image_does_not_count(self) -> None:
        image = np.random.default_rng(1).random((20, 30))
        none = np.zeros((20, 30), int)
        np.testing.assert_allclose(draw_overlay(image, none), draw_overlay(1000 * image - 40, none), atol=1)
        assert draw_overlay(image, none).min() == 0
        assert draw_overlay(image, none).max() == 200, "contours stay brighter than the image"
        assert not draw_overlay(np.full((20, 30), 7.0), none).any(), "a flat image is no error"

    def test_colour_images(self) -> None:
        image = np.zeros((500, 600, 3))
        image[:, :200, 0], image[:, 200:400, 1], image[:, 400:, 2] = 1, 1, 1
        picture = draw_overlay(image, np.zeros((500, 600), int))
        assert picture[0, [0, 300, 599]].tolist() == [[200, 0, 0], [0, 200, 0], [0, 0, 200]]

    def test_leaves_its_arguments_alone(self) -> None:
        for size in ((20, 30), (500, 20)):
            arrays = [np.random.default_rng(2).random(size), random_discs(0, size), random_discs(1, size) - 1]
            before = [array.copy() for array in arrays]
            draw_overlay(*arrays)
            for array, original in zip(arrays, before, strict=True):
                np.testing.assert_array_equal(array, original)


class TestContactSheet:
    def pictures(self, *sizes: tuple[int, int]) -> list[np.ndarray]:
        return [np.random.default_rng(i).integers(0, 255, (*size, 3), dtype=np.uint8) for i, size in enumerate(sizes)]

    @pytest.mark.parametrize(
        ("columns", "widths", "heights"),
        [
            (1, [60], [40, 50, 10, 50]),
            (2, [60, 60], [50, 50]),
            (3, [60, 30, 10], [50, 50]),
            (9, [60, 30, 10, 60], [50]),
        ],
    )
    def test_every_picture_stands_in_its_place(self, columns: int, widths: list[int], heights: list[int]) -> None:
        pictures = self.pictures((40, 60), (50, 30), (10, 10), (50, 60))
        sheet = contact_sheet(pictures, ["a", "b", "c", "d"], columns)
        assert sheet.dtype == np.uint8
        size = [sum(heights) + len(heights) * (GAP + TITLE_HEIGHT), sum(widths) + len(widths) * GAP]
        assert sheet.shape == (size[0] + GAP + TITLE_HEIGHT, size[1] + GAP, 3)
        for i, picture in enumerate(pictures):
            row, column = divmod(i, len(widths))
            y = GAP + sum(heights[:row]) + row * (GAP + TITLE_HEIGHT) + TITLE_HEIGHT
            x = GAP + sum(widths[:column]) + column * GAP
            np.testing.assert_array_equal(sheet[y : y + picture.shape[0], x : x + picture.shape[1]], picture)
            assert sheet[y - TITLE_HEIGHT : y, x : x + 60].any(), "its title stands above it"

    def test_a_large_picture_is_reduced(self) -> None:
        sheet = contact_sheet(self.pictures((1000, 1440)), ["a"])
        assert sheet.shape == (500 + 2 * (GAP + TITLE_HEIGHT), 720 + 2 * GAP, 3)

    def test_the_foot_explains_the_colours(self) -> None:
        foot = contact_sheet(self.pictures((40, 400)), ["a"])[-TITLE_HEIGHT:]
        places = [(foot == colour).all(axis=2).any(axis=0).nonzero()[0] for colour in LEGEND.values()]
        assert all(len(place) for place in places)
        assert places[0].max() < places[1].min()
        assert places[1].max() < places[2].min()

    def test_another_legend(self) -> None:
        foot = contact_sheet(self.pictures((40, 400)), ["a"], legend={"lost": (1, 2, 3)})[-TITLE_HEIGHT:]
        assert (foot == (1, 2, 3)).all(axis=2).any()
        assert not (foot == TRUTH).all(axis=2).any()

    @pytest.mark.parametrize(("count", "titles"), [(0, []), (2, ["a"]), (1, ["a", "b"])])
    def test_rejects(self, count: int, titles: list[str]) -> None:
        message = rf"pictures must hold at least one, each with a title, got {count} and {len(titles)} titles\."
        with pytest.raises(ValueError, match=message):
            contact_sheet(self.pictures(*[(9, 9)] * count), titles)
