"""A disk that is full while a network is exported: the file is named, and the one before stays whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from unet_monai.bundle.configs import find_configs
from unet_monai.export import save_onnx, save_torch_program
from unet_monai.export.bioimageio import save_bioimageio
from unet_monai.export.model_card import read_model_card
from unet_monai.networks import ValidUNet

from tests.bundle.test_small_disk import PAGE
from tests.bundle.test_small_disk import small_disk as small_disk  # a fixture


def save_package(network: ValidUNet, path: Path) -> None:
    save_bioimageio(network, path, read_model_card(Path(find_configs()), {"authors": "Ada L."}))


@pytest.mark.parametrize(
    ("save", "name"), [(save_onnx, "model.onnx"), (save_torch_program, "model.pt2"), (save_package, "model.zip")]
)
def test_the_file_before_stays(
    network: ValidUNet, small_disk: Callable[[int], Path], save: Callable[[ValidUNet, Path], None], name: str
) -> None:
    disk = small_disk(2 * PAGE)
    before = disk / name
    if name != "model.zip":  # packages are never overwritten
        before.write_bytes(b"before")
    with pytest.raises(OSError, match=rf"^{before} must be writable, got OSError: .*No space left on device"):
        save(network, before)
    assert [path.read_bytes() for path in disk.iterdir()] == ([] if name == "model.zip" else [b"before"])
