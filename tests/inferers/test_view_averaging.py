from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from unet_monai.inferers import OverlapTileInferer, ViewAveragingInferer
from unet_monai.inferers.view_averaging import VIEW_SETS, view_set
from unet_monai.networks import ValidUNet

from tests.reference.overlap_tile import whole_image_scores

NUMBERED = torch.arange(6.0).reshape(1, 1, 2, 3)


@pytest.mark.parametrize(
    ("name", "dims", "count"),
    [("identity", 2, 1), ("mirrors", 2, 4), ("rotations", 2, 4), ("all", 2, 8), ("mirrors", 3, 8), ("all", 3, 16)],
)
def test_each_view_of_a_set_is_there_once_and_can_be_undone(name: str, dims: int, count: int) -> None:
    image = torch.from_numpy(np.random.default_rng(0).random((1, 2, 3, 4, 5)[: dims + 2]))
    views = view_set(name, dims)
    copies = [view.apply(image) for view in views]
    assert len({tuple(copy.flatten().tolist()) + tuple(copy.shape) for copy in copies}) == count == len(views)
    for view, copy in zip(views, copies, strict=True):
        torch.testing.assert_close(view.undo(copy), image, rtol=0, atol=0)
    torch.testing.assert_close(copies[0], image, rtol=0, atol=0)


def test_views_by_hand() -> None:
    mirrors = [view.apply(NUMBERED)[0, 0].tolist() for view in view_set("mirrors", 2)]
    assert mirrors == [[[0, 1, 2], [3, 4, 5]], [[3, 4, 5], [0, 1, 2]], [[2, 1, 0], [5, 4, 3]], [[5, 4, 3], [2, 1, 0]]]
    turns = [view.apply(NUMBERED)[0, 0].tolist() for view in view_set("rotations", 2)]
    assert turns[1] == [[2, 5], [1, 4], [0, 3]]
    assert turns[2] == [[5, 4, 3], [2, 1, 0]]


# Every symmetry of the square as (transpose?, mirrored axes), by the set it belongs to.
MIRRORS = [(False, ()), (False, (2,)), (False, (3,)), (False, (2, 3))]
TURNS = [(False, ()), (False, (2, 3)), (True, (2,)), (True, (3,))]
SYMMETRIES = {
    "identity": MIRRORS[:1],
    "mirrors": MIRRORS,
    "rotations": TURNS,
    "all": [*MIRRORS, *((True, axes) for _, axes in MIRRORS)],
}


@pytest.mark.parametrize("views", VIEW_SETS)
def test_the_average_over_tiles_is_that_over_whole_images(views: str) -> None:
    """Stitched = whole holds for each copy, so also for their mean; the image is not square and needs many tiles."""
    torch.manual_seed(0)
    network = ValidUNet(features=(2, 4, 8)).double().eval()
    image = torch.from_numpy(np.random.default_rng(1).random((1, 1, 70, 45)))

    def whole_scores(transpose: bool, axes: tuple[int, ...]) -> torch.Tensor:
        copy = image.transpose(2, 3).flip(axes) if transpose else image.flip(axes)
        scores = whole_image_scores(copy, network, network.border, network.poolings).flip(axes)
        return scores.transpose(2, 3) if transpose else scores

    tiled = OverlapTileInferer(52, border=network.border, poolings=network.poolings)
    with torch.no_grad():
        average = ViewAveragingInferer(tiled, views)(image, network)
        expected = torch.stack([whole_scores(*symmetry) for symmetry in SYMMETRIES[views]]).mean(dim=0)
    torch.testing.assert_close(average, expected, rtol=0, atol=1e-9)


def test_a_network_that_sees_directions_becomes_symmetric() -> None:
    def gradient(tile: torch.Tensor) -> torch.Tensor:
        return tile[:, :, 2:, 1:-1] - tile[:, :, 1:-1, 1:-1]

    inner = OverlapTileInferer(border=1, poolings=0)
    image = torch.rand(1, 1, 5, 7)
    plain = inner(image, gradient)
    assert not torch.allclose(inner(image.flip(2), gradient).flip(2), plain), "test invalid"
    averaged = ViewAveragingInferer(inner, "mirrors")
    torch.testing.assert_close(averaged(image.flip(2), gradient).flip(2), averaged(image, gradient))


def test_metadata_travels_and_the_image_stays() -> None:
    image = MetaTensor(torch.rand(1, 1, 5, 7), meta={"filename_or_obj": ["a.tif"]})
    before = image.clone()
    inferer = pickle.loads(pickle.dumps(ViewAveragingInferer(OverlapTileInferer(border=0, poolings=0))))
    scores = inferer(image, lambda tile: tile)
    assert scores.meta["filename_or_obj"] == ["a.tif"]
    torch.testing.assert_close(image, before)
    torch.testing.assert_close(scores.as_tensor(), image.as_tensor())


def test_rejects() -> None:
    with pytest.raises(ValueError, match=r"views must be one of identity, mirrors, rotations, all, got 'flips'\."):
        ViewAveragingInferer(OverlapTileInferer(), "flips")
    with pytest.raises(ValueError, match=r"spatial_dims must be at least 2, got 1\."):
        view_set("mirrors", 1)
