"""What the panel segments is what inference would make of the image's file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from unet_monai import segment
from unet_monai.data import CellImageReader, draw_cells
from unet_monai.napari_plugin.planes import load_plane_network, picture_of, plane_indices, segment_planes
from unet_monai.networks import ValidUNet

from tests.napari_plugin.networks import SMALL, write_weights


def test_each_plane_is_segmented_as_an_image_of_its_own(tmp_path: Path) -> None:
    network = load_plane_network(write_weights(tmp_path / "own.pt"))
    stack = np.stack([draw_cells(seed, (60, 84))[0] for seed in (1, 2)])[:, None]
    found = dict(segment_planes(stack, network))
    assert list(found) == [(0, 0), (1, 0)]
    for index, cells in found.items():
        expected = segment(stack[index], network)
        assert expected.max() > 0, "test invalid"
        np.testing.assert_array_equal(cells, expected)


def test_a_colour_image_is_read_as_its_file_is(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (48, 64, 4), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.png")
    reader = CellImageReader(2, 1)
    array, _ = reader.get_data(reader.read(str(tmp_path / "a.png")))
    network = load_plane_network(write_weights(tmp_path / "own.pt"))
    ((index, cells),) = segment_planes(colours, network, rgb=True)
    assert index == ()
    np.testing.assert_array_equal(cells, segment(array[0].T, network))


def test_a_grey_image_suits_a_network_of_three_channels(tmp_path: Path) -> None:
    network = load_plane_network(write_weights(tmp_path / "own.pt", in_channels=3))
    grey = draw_cells(1, (60, 84))[0]
    ((_, cells),) = segment_planes(grey, network)
    np.testing.assert_array_equal(cells, segment(np.stack([grey] * 3, axis=-1), network))


def test_cell_diameter_is_used(tmp_path: Path) -> None:
    network = load_plane_network(write_weights(tmp_path / "own.pt"))
    network.cell_diameter.fill_(20)
    image = draw_cells(1, (60, 84))[0]
    ((_, cells),) = segment_planes(image, network, cell_diameter=40)
    np.testing.assert_array_equal(cells, segment(image, network, cell_diameter=40))
    assert (cells != segment(image, network)).any(), "test invalid"


@pytest.mark.parametrize(("shape", "rgb", "needed"), [((5,), False, 2), ((5, 3), True, 3)])
def test_too_few_axes(shape: tuple[int, ...], rgb: bool, needed: int) -> None:
    with pytest.raises(ValueError, match=rf"^image must have at least {needed} axes, got shape \({shape[0]},"):
        plane_indices(shape, rgb=rgb)


def test_infinite_values_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^cells must hold finite numbers, got NaN"):
        picture_of(np.full((4, 4), np.nan), "cells")


def test_wrong_weights(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^weights must be an existing file, got .*none\.pt\.$"):
        load_plane_network(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(ValueError, match=r"^weights must be a file of weights such as model\.pt, got .*text\.pt \("):
        load_plane_network(tmp_path / "text.pt")
    torch.save(ValidUNet(3, features=SMALL).state_dict(), tmp_path / "3d.pt")
    with pytest.raises(ValueError, match=r"^weights must be of a 2-D network, got 3-D in .*3d\.pt\.$"):
        load_plane_network(tmp_path / "3d.pt")
