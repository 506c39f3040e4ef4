from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from unet_monai.transforms.cell_classes import CellClasses, CellClassesd, cell_classes
from unet_monai.transforms.touching_ridge import touching_ridge

from tests.drawings import draw, random_discs

LABEL = draw("""
    1112222
    1112222
    .......
    33.44..
""")


def test_drawn() -> None:
    expected = draw("""
        1122111
        1122111
        .......
        11.11..
    """)
    np.testing.assert_array_equal(cell_classes(LABEL, radius=1), expected)


def test_two_classes_leave_the_touching_pixels_to_the_background() -> None:
    expected = draw("""
        11..111
        11..111
        .......
        11.11..
    """)
    np.testing.assert_array_equal(cell_classes(LABEL, radius=1, num_classes=2), expected)


@pytest.mark.parametrize("radius", [0, 1, 3])
def test_random_cells(radius: int) -> None:
    label = random_discs(radius, (60, 70), count=20)
    label[:5, :5] = -1
    classes = cell_classes(label, radius)
    np.testing.assert_array_equal(classes > 0, label > 0)
    np.testing.assert_array_equal(classes == 2, touching_ridge(label, radius))


def test_keeps_kind_metadata_and_label() -> None:
    label = MetaTensor(torch.from_numpy(LABEL)[None], meta={"filename_or_obj": "a.png"})
    out = CellClassesd("label", classes_key="classes", radius=1, num_classes=2)({"label": label, "other": 1})
    assert isinstance(out["classes"], MetaTensor)
    assert out["classes"].meta["filename_or_obj"] == "a.png"
    assert out["classes"].dtype == torch.uint8
    np.testing.assert_array_equal(out["classes"][0], cell_classes(LABEL, 1, 2))
    np.testing.assert_array_equal(out["label"][0], LABEL)
    assert CellClassesd("absent", allow_missing_keys=True)({"other": 1}) == {"other": 1}


def test_rejects() -> None:
    with pytest.raises(ValueError, match=r"num_classes must be 2 or 3, got 4\."):
        CellClasses(num_classes=4)
    with pytest.raises(ValueError, match=r"num_classes must be 2 or 3, got 1\."):
        cell_classes(LABEL, num_classes=1)
    with pytest.raises(ValueError, match=r"radius must be at least 0, got -1\."):
        CellClasses(radius=-1)
    with pytest.raises(ValueError, match=r"label must have one channel, \(1, \*S\), got shape \(2, 3, 3\)\."):
        CellClasses()(np.zeros((2, 3, 3), int))
    with pytest.raises(TypeError, match="label must be an integer label map, got float64"):
        CellClasses()(np.zeros((1, 3, 3)))
    with pytest.raises(ValueError, match=r"keys must name one label map, got \('a', 'b'\)\."):
        CellClassesd(["a", "b"])
