from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab
from unet_monai.metrics.error_classes import ErrorClass
from unet_monai.pictures import draw_errors
from unet_monai.pictures.errors import ERROR_COLOURS, ERROR_LEGEND, TINT

from tests.drawings import draw, random_discs

LABEL = draw("""
    ....................................
    .11111..22222..........44444.5555...
    .11111..22222..........44444.5555...
    .11111..22222..........44444.5555...
    .11111..22222..........44444.5555.??
    .11111..22222..........44444.5555.??
    ..................................??
""")
PRED = draw("""
    ....................................
    .11111..........33333..44777.888888.
    .11111..........33333..44777.888888.
    .11111..........33333..44777.888888.
    .11111..........33333..44777.888888.
    .11111..........33333..44777.888888.
    ...................................9
""")
# Numbers of the prediction 8 cover two cells when the second one touches the first.
MERGED_LABEL = np.where((LABEL == 5) & (np.arange(LABEL.shape[1]) > 30), 6, LABEL)


def large(pattern: np.ndarray) -> np.ndarray:
    """Put the drawing into a picture so large that pixels stay pixels."""
    return np.pad(pattern, ((20, 600 - 20 - pattern.shape[0]), (30, 600 - 30 - pattern.shape[1])))


def colour_at(picture: np.ndarray, row: int, column: int) -> tuple[int, ...]:
    return tuple(int(value) for value in picture[20 + row, 30 + column])


def half(colour: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(value // 2 for value in colour)


class TestDrawErrors:
    def test_each_class_has_its_colour(self) -> None:
        picture = draw_errors(np.zeros((600, 600)), large(PRED), large(MERGED_LABEL))
        assert (picture.shape, picture.dtype) == ((600, 600, 3), np.uint8)
        corners = {"RIGHT": (1, 1), "MISSED": (1, 8), "FALSE": (1, 16), "SPLIT": (1, 23), "MERGED": (1, 34)}
        for name, place in corners.items():
            assert colour_at(picture, *place) == ERROR_COLOURS[ErrorClass[name]], name
        assert colour_at(picture, 1, 27) == ERROR_COLOURS[ErrorClass.SPLIT], "the other piece"
        assert colour_at(picture, 6, 35) == (0, 0, 0), "an excused prediction is not drawn"

    def test_only_the_missed_cell_is_filled(self) -> None:
        picture = draw_errors(np.zeros((600, 600)), large(PRED), large(LABEL))
        assert colour_at(picture, 3, 10) == tuple(int(TINT * c) for c in ERROR_COLOURS[ErrorClass.MISSED])
        for place in ((3, 3), (3, 18)):
            assert colour_at(picture, *place) == (0, 0, 0)

    def test_true_contours_are_darker_and_lie_under_the_predicted_ones(self) -> None:
        label, pred = np.zeros((600, 600), int), np.zeros((600, 600), int)
        label[100:120, 100:120], pred[100:120, 100:115] = 1, 1
        picture = draw_errors(np.zeros(label.shape), pred, label)
        right = ERROR_COLOURS[ErrorClass.RIGHT]
        assert tuple(picture[100, 105]) == right
        assert tuple(picture[110, 119]) == half(right)
        assert tuple(picture[110, 114]) == right

    def test_ignored_pixels_are_darker(self) -> None:
        label = np.zeros((600, 600), int)
        label[:, 300:] = -1
        image = np.full(label.shape, 1.0)
        image[0] = 0
        image[:, ::2] = 0.5
        picture = draw_errors(image, np.zeros_like(label), label)
        np.testing.assert_array_equal(picture[1:, 300:], picture[1:, :300] // 2)
        assert picture[1:].any()

    @pytest.mark.parametrize(
        ("size", "shape"), [((6, 14), (204, 476)), ((600, 300), (600, 300)), ((970, 400), (485, 200))]
    )
    def test_size(self, size: tuple[int, int], shape: tuple[int, int]) -> None:
        none = np.zeros(size, int)
        assert draw_errors(np.zeros(size), none, none).shape == (*shape, 3)

    def test_classes_are_those_of_the_whole_image_when_it_is_reduced(self) -> None:
        # Every second column: on these alone the prediction would cover the cell.
        label, pred = np.zeros((970, 900), int), np.zeros((970, 900), int)
        label[100:110, 100:121] = 1
        pred[100:110, 100:120:2] = 1
        assert (draw_errors(np.zeros(label.shape), pred, label) == ERROR_COLOURS[ErrorClass.MISSED]).all(axis=2).any()

    def test_colour_images_and_no_cells(self) -> None:
        image = np.zeros((500, 600, 3))
        image[:, :200, 0], image[:, 200:400, 1], image[:, 400:, 2] = 1, 1, 1
        none = np.zeros((500, 600), int)
        assert draw_errors(image, none, none)[0, [0, 300, 599]].tolist() == [[200, 0, 0], [0, 200, 0], [0, 0, 200]]

    def test_leaves_its_arguments_alone(self) -> None:
        for size in ((20, 30), (600, 20), (1000, 20)):
            arrays = [np.random.default_rng(2).random(size), random_discs(0, size), random_discs(1, size) - 1]
            before = [array.copy() for array in arrays]
            draw_errors(*arrays)
            for array, original in zip(arrays, before, strict=True):
                np.testing.assert_array_equal(array, original)

    def test_rejects(self) -> None:
        image = np.zeros((4, 5))
        with pytest.raises(ValueError, match=r"y_pred must have the shape of y, \(4, 5\), got \(5, 4\)\."):
            draw_errors(image, np.zeros((5, 4), int), np.zeros((4, 5), int))
        with pytest.raises(TypeError, match="y must be an integer label map, got float64"):
            draw_errors(image, np.zeros((4, 5), int), image)


# Machado, Oliveira and Fernandes 2009 (https://doi.org/10.1109/TVCG.2009.113), full severity, on linear RGB.
COLOUR_VISION = {
    "all colours": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


class TestColours:
    def test_every_error_has_one_and_a_name(self) -> None:
        assert set(ERROR_COLOURS) == set(ErrorClass) - {ErrorClass.EXCUSED}
        assert list(ERROR_LEGEND) == ["right", "missed", "false", "split", "merged"]

    @pytest.mark.parametrize("vision", COLOUR_VISION)
    def test_are_told_apart_by_all_eyes(self, vision: str) -> None:
        srgb = np.array(list(ERROR_COLOURS.values())) / 255
        linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
        seen = np.clip(linear @ np.array(COLOUR_VISION[vision]).T, 0, 1)
        lab = rgb2lab(np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055))
        differences = {
            (a.name, b.name): float(deltaE_ciede2000(lab[i], lab[j]))
            for (i, a), (j, b) in combinations(enumerate(ERROR_COLOURS), 2)
        }
        # A difference of 2 can just be seen. Missed and false must be told apart at a glance.
        assert min(differences.values()) > 10, differences
        assert differences["MISSED", "FALSE"] > 20
