"""The two functions of torchvision that MONAI Label imports: in interactive models for radiology, not served here."""

from __future__ import annotations

from typing import Any, NoReturn


def make_grid(*args: Any, **kwargs: Any) -> NoReturn:
    """Refuse to make a picture."""
    raise NotImplementedError("make_grid must come from torchvision itself, which is not installed here.")


def save_image(*args: Any, **kwargs: Any) -> NoReturn:
    """Refuse to save a picture."""
    raise NotImplementedError("save_image must come from torchvision itself, which is not installed here.")
