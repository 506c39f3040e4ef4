"""What people are told about a shared model: who made it, what it may be used for, how it looks."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ModelCard:
    """The texts and pictures that go with a model.

    Args:
        name: letters, digits, spaces, and ``_+-()``; 5 characters or more.
        description: one or two sentences.
        authors: their names.
        licence: SPDX identifier, such as ``"Apache-2.0"``.
        documentation: Markdown file.
        classes: names of the network's outputs.
        references: what to cite, each with an address in it.
        cover: picture, or None to have one drawn of the test image and its result.

    Raises:
        ValueError: when a text is empty.
        FileNotFoundError: when the documentation or the cover is not there.
    """

    name: str
    description: str
    authors: tuple[str, ...]
    licence: str
    documentation: Path
    classes: tuple[str, ...]
    references: tuple[str, ...]
    cover: Path | None = None

    def __post_init__(self) -> None:
        texts = {"name": self.name, "description": self.description, "license": self.licence}
        for field, names in (("authors", self.authors), ("classes", self.classes), ("references", self.references)):
            texts[field] = min(names, key=len, default="")
        for field, text in texts.items():
            if not re.search(r"\w", text):
                raise ValueError(f"{field} must be filled in, got {text!r}.")
        for reference in self.references:
            if not re.search(r"https?://\S+", reference):
                raise ValueError(f"references must each hold an address, got {reference!r}.")
        for field, path in (("documentation", self.documentation), ("cover", self.cover)):
            if path is not None and not path.is_file():
                raise FileNotFoundError(f"{field} must be an existing file, got {path}.")
        if not self.documentation.read_text(encoding="utf-8").strip():
            raise ValueError(f"documentation must be filled in, got an empty file, {self.documentation}.")


def read_model_card(configs: Path, given: Mapping[str, str | None]) -> ModelCard:
    """Take what is given, and the rest from the bundle: its ``metadata.json`` and ``docs/README.md``.

    Args:
        configs: the bundle's folder of configs.
        given: ``name``, ``authors`` (several with a semicolon between), ``license``, ``documentation`` and ``cover``,
            those of them that are not None.

    Returns:
        The card.

    Raises:
        ValueError: when a text is empty.
        FileNotFoundError: when a file is not there.
    """
    metadata: dict[str, Any] = json.loads((configs / "metadata.json").read_text(encoding="utf-8"))
    own = {"documentation": str(configs.parent / "docs" / "README.md"), "license": "Apache-2.0"}
    own |= {key: str(metadata.get(key, "")) for key in ("name", "authors", "description")}
    chosen = {**own, **{key: value for key, value in given.items() if value is not None}}
    channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    return ModelCard(
        name=chosen["name"],
        description=chosen["description"],
        authors=tuple(author.strip() for author in chosen["authors"].split(";")),
        licence=chosen["license"],
        documentation=Path(chosen["documentation"]),
        classes=tuple(channels[key] for key in sorted(channels, key=int)),
        references=tuple(metadata.get("references", [])),
        cover=Path(chosen["cover"]) if "cover" in chosen else None,
    )
