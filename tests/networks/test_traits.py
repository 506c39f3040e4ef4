from __future__ import annotations

from math import isnan

import pytest
from torch import nn
from unet_monai.networks import NetworkTraits, ValidUNet


def test_texts_come_back_as_numbers() -> None:
    traits = NetworkTraits.of(
        ValidUNet(3, 2, features=(2, 4), pool_size=[[2, 1, 2]], image_scale=0.3, cell_diameter=31)
    )
    texts = traits.to_texts()
    assert texts["border"] == "[8, 6, 8]"
    assert texts["poolings"] == "[1, 0, 1]"
    assert NetworkTraits.from_texts({**texts, "of another program": "{"}) == traits


def test_unknown_diameter_stays_unknown() -> None:
    texts = NetworkTraits.of(ValidUNet(features=(2, 4))).to_texts()
    assert isnan(NetworkTraits.from_texts(texts).cell_diameter)


def test_texts_of_another_program_are_refused() -> None:
    with pytest.raises(ValueError, match=r"metadata must be those that unet_monai.export writes, got none for border,"):
        NetworkTraits.from_texts({"poolings": "[1]"})


def test_network_without_a_last_convolution_is_refused() -> None:
    network = ValidUNet(features=(2, 4))
    network.output_conv = nn.Identity()
    with pytest.raises(TypeError, match=r"network must end with a convolution, got Identity\."):
        NetworkTraits.of(network)
