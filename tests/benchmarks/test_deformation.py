"""The bare samplings give our tile, and what stands in the column of likeness is measured."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from unet_monai.transforms import RandElasticDeformationd

from benchmarks.deformation import (
    KEYS,
    MODES,
    OURS,
    bare_samplings,
    errors_at_rest,
    likeness_to_twin,
    random_pair,
    repeat,
)


@pytest.fixture
def ours() -> RandElasticDeformationd:
    return RandElasticDeformationd(KEYS, MODES, "label", **OURS).set_random_state(0)


def test_bare_samplings_take_the_same_tile(ours: RandElasticDeformationd) -> None:
    pair = random_pair((90, 70))
    tile = ours(pair)
    image, label = bare_samplings(ours, pair)()
    torch.testing.assert_close(image[0], tile["image"], atol=1e-4, rtol=0)
    inside = tile["label"] >= 0  # beyond the image ours are ignored, the bare ones 0
    assert inside.float().mean() > 0.5
    assert (label[0] == tile["label"])[inside].float().mean() > 0.999


def test_likeness_is_measured_on_the_next_tile(ours: RandElasticDeformationd) -> None:
    found = re.search(r"at most (.+), (.+) of the label", likeness_to_twin(ours, random_pair((90, 70))))
    assert found is not None
    assert 0 < float(found[1]) < 1e-3
    assert float(found[2]) < 1e-3


def test_monai_moves_pixels_at_magnitude_0_and_we_do_not() -> None:
    found = re.search(r"up to (.+) px .*, we by (.+)", errors_at_rest())
    assert found is not None
    assert float(found[1]) > 1
    assert float(found[2]) < 1e-3


def test_repeat_makes_a_contestant_once_and_calls_it_often() -> None:
    made: list[int] = []
    called: list[int] = []

    def contestant() -> Callable[[], None]:
        made.append(1)
        return lambda: called.append(1)

    repeat(contestant)
    assert (len(made), len(called)) == (1, 20)
