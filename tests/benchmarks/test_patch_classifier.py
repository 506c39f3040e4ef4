"""Patches against a slow twin, and the classifier's shape."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from unet_monai.networks import ValidUNet

from benchmarks.patch_classifier import patch_classifier, pixel_patches


def patch_by_hand(image: torch.Tensor, row: int, column: int, side: int) -> torch.Tensor:
    """Walk from the pixel to each pixel of its patch, turning round at the first and the last of the image."""

    def walk(position: int, steps: int, last: int) -> int:
        direction = 1 if steps > 0 else -1
        for _ in range(abs(steps)):
            if not 0 <= position + direction <= last:
                direction = -direction
            position += direction
        return position

    reach = range(-(side // 2), side // 2 + 1)
    rows = [walk(row, step, image.shape[1] - 1) for step in reach]
    columns = [walk(column, step, image.shape[2] - 1) for step in reach]
    return torch.stack([torch.stack([image[:, r, c] for c in columns], dim=1) for r in rows], dim=1)


def test_patch_is_mirrored_at_the_edge() -> None:
    image = torch.tensor([[[1, 2, 3], [4, 5, 6]]])
    assert pixel_patches(image, 3)[0, 2].tolist() == [[[5, 6, 5], [2, 3, 2], [5, 6, 5]]]


@pytest.mark.parametrize(("size", "side"), [((6, 9), 1), ((6, 9), 5), ((4, 7), 11)])
def test_patches_are_those_of_the_slow_twin(size: tuple[int, int], side: int) -> None:
    image = torch.rand(2, *size, generator=torch.Generator().manual_seed(0))
    patches = pixel_patches(image, side)
    assert patches.shape == (*size, 2, side, side)
    assert torch.equal(patches[..., side // 2, side // 2], image.movedim(0, -1)), "a pixel lies in the middle"
    for row in range(size[0]):
        for column in range(size[1]):
            assert torch.equal(patches[row, column], patch_by_hand(image, row, column, side))


def test_patches_of_one_pixel_each_share_the_images_memory() -> None:
    image = torch.rand(1, 40, 50)
    assert pixel_patches(image, 21).untyped_storage().nbytes() == 4 * 60 * 70


def test_even_side_is_refused() -> None:
    with pytest.raises(ValueError, match="side must be odd, got 4"):
        pixel_patches(torch.rand(1, 8, 8), 4)


def test_classifier_has_the_networks_widths_and_context() -> None:
    network = ValidUNet(features=(2, 3, 4, 5, 6))
    side = 2 * network.border[0] + 1
    classifier = patch_classifier((2, 3, 4, 5, 6), side)
    assert classifier(torch.rand(4, 1, side, side)).shape == (4, 2)
    widths = [layer.out_channels for layer in classifier if isinstance(layer, nn.Conv2d)]
    assert widths == [2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    assert not classifier.training
