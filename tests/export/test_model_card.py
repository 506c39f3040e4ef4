from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from unet_monai.bundle.configs import find_configs
from unet_monai.export.model_card import ModelCard, read_model_card

CONFIGS = Path(find_configs())
NOTHING = dict.fromkeys(("name", "authors", "license", "documentation", "cover"))


def test_what_is_not_given_comes_from_the_bundle() -> None:
    metadata = json.loads((CONFIGS / "metadata.json").read_text())
    card = read_model_card(CONFIGS, NOTHING)
    assert (card.name, card.description) == (metadata["name"], metadata["description"])
    assert card.authors == (metadata["authors"],)
    assert card.classes == ("background", "cell", "touching")
    assert card.documentation == CONFIGS.parent / "docs" / "README.md"
    assert card.licence == "Apache-2.0"
    assert card.cover is None


def test_what_is_given_counts(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Nuclei")
    (tmp_path / "a.png").touch()
    given = {"name": "Nuclei", "authors": "Ada L.; Bo", "license": "MIT"}
    files = {"documentation": str(tmp_path / "a.md"), "cover": str(tmp_path / "a.png")}
    card = read_model_card(CONFIGS, {**given, **files})
    assert (card.name, card.authors, card.licence) == ("Nuclei", ("Ada L.", "Bo"), "MIT")
    assert (card.documentation, card.cover) == (tmp_path / "a.md", tmp_path / "a.png")


@pytest.mark.parametrize("key", ["name", "authors", "license"])
@pytest.mark.parametrize("text", ["", "  ", "-"])
def test_empty_texts_are_refused(key: str, text: str) -> None:
    with pytest.raises(ValueError, match=rf"{key} must be filled in, got '"):
        read_model_card(CONFIGS, {**NOTHING, key: text})


def test_empty_author_beside_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"authors must be filled in, got ''\."):
        read_model_card(CONFIGS, {**NOTHING, "authors": "Ada L.;"})


@pytest.fixture
def card() -> ModelCard:
    return read_model_card(CONFIGS, NOTHING)


def test_description_classes_and_references_are_needed(card: ModelCard) -> None:
    with pytest.raises(ValueError, match=r"description must be filled in, got ''\."):
        replace(card, description="")
    with pytest.raises(ValueError, match=r"classes must be filled in, got ''\."):
        replace(card, classes=())
    with pytest.raises(ValueError, match=r"references must be filled in, got ''\."):
        replace(card, references=())
    with pytest.raises(ValueError, match=r"references must each hold an address, got 'a paper'\."):
        replace(card, references=("a paper",))


def test_absent_or_empty_files_are_refused(card: ModelCard, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"documentation must be an existing file, got .*none\.md\."):
        replace(card, documentation=tmp_path / "none.md")
    with pytest.raises(FileNotFoundError, match=r"cover must be an existing file, got .*none\.png\."):
        replace(card, cover=tmp_path / "none.png")
    (tmp_path / "empty.md").write_text("\n")
    with pytest.raises(ValueError, match=r"documentation must be filled in, got an empty file, .*empty\.md\."):
        replace(card, documentation=tmp_path / "empty.md")
