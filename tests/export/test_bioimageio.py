"""The package for bioimage.io, read by its own libraries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from unet_monai.bundle.configs import find_configs
from unet_monai.export.bioimageio import save_bioimageio
from unet_monai.export.model_card import ModelCard, read_model_card

from tests.export.conftest import draw_network


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The libraries' own cache is not for tests."""
    from bioimageio.spec import settings

    settings.cache_path = tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def card() -> ModelCard:
    return read_model_card(Path(find_configs()), {"authors": "Ada L.; Bo"})


@pytest.fixture(scope="module")
def package(card: ModelCard, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "cells.zip"
    save_bioimageio(draw_network(image_smoothing=0.7, cell_diameter=20, image_scale=0.5), path, card)
    return path


def test_spec_finds_it_valid(package: Path) -> None:
    from bioimageio.spec import load_model_description

    summary = load_model_description(package, format_version="latest", perform_io_checks=True).validation_summary
    assert summary.status == "valid-format", summary.format()


def test_description_says_what_programs_need(package: Path) -> None:
    from bioimageio.spec import load_model_description

    model = load_model_description(package, format_version="latest")
    assert [author.name for author in model.authors] == ["Ada L.", "Bo"]
    assert str(model.license) == "Apache-2.0"
    # The network's own axes are columns and rows, with borders of 8 and 16 px; programs have rows first.
    assert [(a.id, a.size.min, a.size.step) for a in model.inputs[0].axes[2:]] == [("y", 34, 2), ("x", 18, 2)]
    assert [(a.id, a.halo, a.size.offset) for a in model.outputs[0].axes[2:]] == [("y", 16, 0), ("x", 8, 0)]
    assert model.outputs[0].axes[1].channel_names == ["background", "cell", "touching"]
    (percentiles,) = [step.kwargs for step in model.inputs[0].preprocessing if step.id == "scale_range"]
    assert (percentiles.axes, percentiles.min_percentile, percentiles.max_percentile) == (["y", "x"], 1, 99.8)
    assert model.weights.onnx.comment.startswith("Rescale images so that the typical cell is 10 pixels across")
    assert len(model.covers) > 0


def test_core_reproduces_its_result_also_of_other_sizes(package: Path) -> None:
    core = pytest.importorskip("bioimageio.core")
    summary = core.test_model(package)
    assert summary.status == "passed", summary.format()
    reproduced = [detail.name for detail in summary.details if detail.status == "passed"]
    assert any("Reproduce test outputs" in name for name in reproduced)
    assert any("batch_size: 2 and size parameter n: 2" in name for name in reproduced)


def test_core_gives_the_probabilities_of_an_image(package: Path) -> None:
    core = pytest.importorskip("bioimageio.core")
    model = core.load_model_description(package, format_version="latest")
    image = np.random.default_rng(0).integers(0, 4000, (1, 1, 60, 80)).astype(np.float32)
    found = core.predict(model=model, inputs={"image": image}).members["probabilities"].data.to_numpy()
    assert found.shape == (1, 3, 60, 80)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_classes_must_be_those_of_the_network(card: ModelCard, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"classes must be 3, as many as the network's, got \('cell',\)\."):
        save_bioimageio(draw_network(), tmp_path / "cells.zip", replace(card, classes=("cell",)))


def test_no_file_is_overwritten(card: ModelCard, package: Path) -> None:
    with pytest.raises(FileExistsError, match=r"output must not exist yet, got .*cells\.zip\."):
        save_bioimageio(draw_network(), package, card)
