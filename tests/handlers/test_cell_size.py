from __future__ import annotations

import logging
from math import nan, pi

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from unet_monai import segment
from unet_monai.handlers import CellSizeHandler
from unet_monai.inferers import OverlapTileInferer, RescalingInferer
from unet_monai.networks import ValidUNet

from tests.drawings import draw

# Areas 9, 1, 25 and 9, and none: the median is 9, the diameter 3.4.
CELLS = [
    draw("""
        111......
        111.33333
        111.33333
        ....33333
        ..2.33333
        ....33333
    """),
    draw("""
        777
        777
        777
    """),
    np.zeros((4, 5), int),
]
MEDIAN = 2 * (9 / pi) ** 0.5


def make(cell_diameter: float, image_scale: float = 1.0) -> ValidUNet:
    torch.manual_seed(0)
    return ValidUNet(features=(2, 4), cell_diameter=cell_diameter, image_scale=image_scale)


def inferer_of(network: ValidUNet, cell_diameter: float | None = None) -> RescalingInferer:
    return RescalingInferer(OverlapTileInferer(border=network.border, poolings=network.poolings), cell_diameter)


def run(handler: CellSizeHandler, labels: list[np.ndarray]) -> None:
    engine = Engine(lambda engine, batch: [{"pred": MetaTensor(torch.as_tensor(label)).int()} for label in batch])
    handler.attach(engine)
    engine.run([labels[:1], labels[1:]])


@pytest.mark.parametrize(
    ("learnt", "given", "looked_for"),
    [
        (MEDIAN, None, None),
        (1.01 * MEDIAN / 2, None, None),
        (1.99 * MEDIAN, None, None),
        (1.0, None, "1.0"),
        (8.0, None, "8.0"),
        (nan, None, None),
        # With the user's own diameter, that one is looked for.
        (8.0, 3.0, None),
        (3.0, 8.0, "8.0"),
        (3.0, 1.0, "1.0"),
    ],
)
@pytest.mark.parametrize("image_scale", [1.0, 0.25])
def test_warns_once_of_cells_of_another_size(
    caplog: pytest.LogCaptureFixture, learnt: float, given: float | None, looked_for: str | None, image_scale: float
) -> None:
    network = make(learnt, image_scale)
    run(CellSizeHandler(network, inferer_of(network, given)), CELLS)
    text = (
        "the cells found have a median diameter of 3.4 px, the network looked for {} px: "
        "give the true one, --cell_diameter 3.4 if these cells are right"
    )
    assert caplog.messages == ([] if looked_for is None else [text.format(looked_for)])
    assert {record.levelno for record in caplog.records} <= {logging.WARNING}


def test_the_remedy_ends_the_warning(caplog: pytest.LogCaptureFixture) -> None:
    network = make(20)
    run(CellSizeHandler(network, inferer_of(network, 3.4)), CELLS)
    assert not caplog.records


def test_no_cell_is_no_size(caplog: pytest.LogCaptureFixture) -> None:
    network = make(20)
    run(CellSizeHandler(network, inferer_of(network)), [CELLS[2], CELLS[2]])
    assert not caplog.records


def test_each_run_counts_anew(caplog: pytest.LogCaptureFixture) -> None:
    network = make(20)
    handler = CellSizeHandler(network, inferer_of(network))
    run(handler, CELLS)
    run(handler, [np.ones((18, 18), int)] * 2)
    assert [message.partition(",")[0] for message in caplog.messages] == [
        "the cells found have a median diameter of 3.4 px"
    ]


def test_of_a_volume_it_is_the_balls_diameter(caplog: pytest.LogCaptureFixture) -> None:
    network = ValidUNet(3, features=(2, 4), cell_diameter=20)
    run(CellSizeHandler(network, inferer_of(network)), [np.ones((4, 5, 6), int)] * 2)
    assert f"of {(6 * 120 / pi) ** (1 / 3):.1f} px" in caplog.text


def test_segment_warns_too(caplog: pytest.LogCaptureFixture) -> None:
    image = np.random.default_rng(0).random((40, 60))
    assert segment(image, make(500), threshold=0.5, min_size=1).max() > 0, "test invalid: nothing was found"
    assert "the network looked for 500.0 px" in caplog.messages[0]
    assert "cell_diameter=" in caplog.messages[0]
    caplog.clear()
    segment(image, make(nan), threshold=0.5, min_size=1)
    assert not caplog.records


def test_a_scale_that_cannot_be_told_stops_before_the_first_image() -> None:
    network = make(nan)
    handler = CellSizeHandler(network, inferer_of(network, 30.0))
    with pytest.raises(ValueError, match=r"^cell_diameter must be None for a network that knows none, got 30\.0\.$"):
        run(handler, [])
    assert handler.sizes == []
