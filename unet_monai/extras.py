"""Import what only an optional extra of the package installs."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def import_extra(module: str, extra: str) -> Any:
    """Import a module, or say how to install it.

    Args:
        module: full name of the module.
        extra: the extra of this package that installs it.

    Returns:
        The module.

    Raises:
        ModuleNotFoundError: when the module is not installed; one line that names the command.

    Example:
        >>> import_extra("json", "export").dumps([1])
        '[1]'
    """
    try:
        return import_module(module)
    except ModuleNotFoundError:
        line = f'{module} must be installed, by: pip install "unet-monai[{extra}]"'
        raise ModuleNotFoundError(line, name=module) from None
