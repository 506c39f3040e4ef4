"""Catch mistyped command-line overrides, which MONAI accepts without a word."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import fire.parser
from monai.bundle import ConfigParser

# The options of `python -m monai.bundle run` itself, which are no keys of a config.
RUN_OPTIONS = ("run_id", "init_id", "final_id", "config_file", "meta_file", "logging_file", "args_file", "tracking")


def override_names(argv: Sequence[str]) -> list[str]:
    """List the names that a command line sets: ``--epochs 5``, ``--val-interval 2`` and ``--loss#w=1`` alike.

    Example:
        >>> override_names(["run", "training", "--config_file", "train.json", "--epochs=5", "--roi_size", "-1"])
        ['config_file', 'epochs', 'roi_size']
    """
    return [word[2:].split("=", 1)[0].replace("-", "_") for word in argv if word.startswith("--") and len(word) > 2]


def unknown_override(names: Iterable[str], config: Mapping[str, Any]) -> str | None:
    """Find the first name that is neither a key of the config nor an option of the command.

    A nested name (``network_def#dropout`` or ``network_def::dropout``) may add an argument to a component, which must
    exist.

    Args:
        names: names set on the command line.
        config: content of the config files.

    Returns:
        One line that names the mistake and the nearest real key, or None when there is no mistake.

    Example:
        >>> unknown_override(["epocs"], {"epochs": 5, "seed": 0})
        "unknown setting '--epocs': did you mean '--epochs'?"
    """
    known = [*config, *RUN_OPTIONS]
    for name in names:
        top, *nested = name.replace("::", "#").split("#")
        node: Any = config
        for key in [top, *nested][:-1]:
            node = node.get(key) if isinstance(node, Mapping) else _item(node, key)
        if (name in known) or (nested and isinstance(node, Mapping | list)):
            continue
        nearest = difflib.get_close_matches(top, known, n=1, cutoff=0.5)
        hint = f"did you mean '--{nearest[0]}'?" if nearest else f"the settings are {', '.join(config)}."
        return f"unknown setting '--{name}': {hint}"
    return None


def check_overrides(argv: Sequence[str]) -> None:
    """Stop a ``monai.bundle run`` whose command line sets a key that its config files do not have.

    Args:
        argv: the command line, ``sys.argv``. Started in any other way (from Python, or by a server), there is no
            ``--config_file`` in it, and nothing to check.

    Raises:
        ValueError: for an unknown key; names the nearest real one.
    """
    names = override_names(argv)
    if "config_file" not in names:
        return
    files = _option(argv, "config_file")
    mistake = unknown_override(names, ConfigParser.load_config_files(files))
    if mistake is not None:
        raise ValueError(mistake)


def _option(argv: Sequence[str], name: str) -> Any:
    """Read the value of ``--name value`` or ``--name=value`` as the command line's own parser does."""
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        if word == f"--{name}":
            return fire.parser.DefaultParseValue(following)
        if word.startswith(f"--{name}="):
            return fire.parser.DefaultParseValue(word.split("=", 1)[1])
    return None


def _item(node: Any, key: str) -> Any:
    """Look up one entry of a list by its position, None where there is none."""
    return node[int(key)] if isinstance(node, list) and key.isdigit() and int(key) < len(node) else None
