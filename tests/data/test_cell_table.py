import numpy as np
import pytest
from unet_monai.data.cell_table import cell_table

from tests.drawings import draw, random_discs

CELLS = draw("""
    .33..
    .33.7
    ....7
""")


def rows(table):
    return [dict(zip(table, values, strict=True)) for values in zip(*(c.tolist() for c in table.values()), strict=True)]


def test_a_drawn_table():
    image = np.arange(15).reshape(3, 5)
    table = cell_table(CELLS, image, np.where(CELLS == 7, 0.5, 1))
    first, second = rows(table)
    assert list(first) == [
        *("label", "area", "centroid_row", "centroid_column", "first_row", "first_column", "end_row", "end_column"),
        *("mean_intensity", "equivalent_diameter", "major_axis", "minor_axis", "eccentricity", "confidence"),
    ]
    assert [first[name] for name in list(first)[:9]] == [3, 4, 0.5, 1.5, 0, 1, 2, 3, 4.0]
    assert [second[name] for name in list(second)[:9]] == [7, 2, 1.5, 4.0, 1, 4, 3, 5, 11.5]
    assert (first["confidence"], second["confidence"]) == (1, 0.5)
    assert first["equivalent_diameter"] == pytest.approx(np.sqrt(4 * 4 / np.pi))
    assert (first["eccentricity"], second["eccentricity"]) == (0, 1)


@pytest.mark.parametrize("shape", [(40, 55), (9, 20, 23)])
def test_each_row_describes_the_pixels_of_its_label(shape):
    random = np.random.default_rng(0)
    instances = random_discs(1, shape, count=6, radius=(3, 6)) * 5
    image, probability = random.integers(0, 4000, shape), random.random(shape)
    measured = rows(cell_table(instances, image, probability))
    assert [row["label"] for row in measured] == np.unique(instances)[1:].tolist()
    axes = ("slice", "row", "column")[-len(shape) :]
    for row in measured:
        cell = instances == row["label"]
        places = np.argwhere(cell)
        assert row["area"] == cell.sum()
        assert [row[f"centroid_{axis}"] for axis in axes] == pytest.approx(places.mean(axis=0).tolist())
        assert [row[f"first_{axis}"] for axis in axes] == places.min(axis=0).tolist()
        assert [row[f"end_{axis}"] for axis in axes] == (places.max(axis=0) + 1).tolist()
        assert row["mean_intensity"] == pytest.approx(image[cell].mean())
        assert row["confidence"] == pytest.approx(probability[cell].mean())
    assert ("eccentricity" in measured[0]) == (len(shape) == 2)


def test_rgb_has_a_mean_of_each_channel():
    image = np.stack([CELLS * 0 + 1, CELLS, CELLS * 2], axis=-1)
    table = cell_table(CELLS, image, CELLS * 0.0)
    assert [table[f"mean_{colour}"].tolist() for colour in ("red", "green", "blue")] == [[1, 1], [3, 7], [6, 14]]
    assert "mean_intensity" not in table


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5)])
def test_no_cell_no_row(shape):
    empty = np.zeros(shape, dtype=np.int32)
    assert {len(column) for column in cell_table(empty, empty, empty * 0.0).values()} == {0}


def test_shapes_must_fit():
    with pytest.raises(ValueError, match=r"instances must have the shape \(H, W\) or \(D, H, W\), got \(3,\)"):
        cell_table(np.ones(3, int), np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match=r"image must have the shape of instances, \(3, 5\), or RGB, got \(3, 5, 4\)"):
        cell_table(CELLS, np.ones((3, 5, 4)), np.ones((3, 5)))
    with pytest.raises(ValueError, match=r"probability must have the shape of instances, \(3, 5\), got \(5, 3\)"):
        cell_table(CELLS, CELLS, np.ones((5, 3)))
