"""Catch mistyped command-line overrides, which MONAI accepts without a word."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import fire.parser
from monai.bundle import ConfigParser

# The options of `python -m monai.bundle run` itself, which are no keys of a config.
RUN_OPTIONS = ("run_id", "init_id", "final_id", "config_file", "meta_file", "logging_file", "args_file", "tracking")


def command_line_settings(argv: Sequence[str]) -> dict[str, str]:
    """Read what a command line sets: ``--epochs 5``, ``-epochs=5`` and ``--val-interval 2`` alike.

    Example:
        >>> command_line_settings(["run", "training", "--config_file", "train.json", "--epochs=5", "--roi_size", "-1"])
        {'config_file': 'train.json', 'epochs': '5', 'roi_size': '-1'}
    """
    settings = {}
    for word, following in zip_longest(argv, argv[1:], fillvalue=""):
        option = re.fullmatch(r"--?([A-Za-z_][^=]*)(=.*)?", word, flags=re.DOTALL)
        if option:
            settings[option[1].replace("-", "_")] = following if option[2] is None else option[2][1:]
    return settings


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
    for name in names:
        if name in config or name in RUN_OPTIONS:
            continue
        path = name.replace("::", "#").split("#")
        node: Any = config
        for depth, key in enumerate(path):
            children = dict(_children(node))
            if key in children:
                node = children[key]
            elif 0 < depth == len(path) - 1 and isinstance(node, Mapping):
                break  # a further argument of a component
            else:
                known = [*children, *RUN_OPTIONS] if depth == 0 else list(children)
                return f"unknown setting '--{name}': {_hint(path[:depth], key, known)}"
    return None


def check_overrides(argv: Sequence[str]) -> None:
    """Stop a ``monai.bundle run`` whose command line sets a key that its config files do not have.

    Args:
        argv: the command line, ``sys.argv``. Started in any other way (from Python, or by a server), there is no
            ``--config_file`` in it, and nothing to check.

    Raises:
        ValueError: for an unknown key; names the nearest real one.
    """
    settings = command_line_settings(argv)
    if "config_file" not in settings:
        return
    # Read as the command's own parser reads it: one path, or a list of them.
    files = fire.parser.DefaultParseValue(settings["config_file"])
    mistake = unknown_override(settings, ConfigParser.load_config_files(files))
    if mistake is not None:
        raise ValueError(mistake)


def _children(node: Any) -> Iterable[tuple[str, Any]]:
    """List the named entries of a component, or the numbered ones of a list."""
    if isinstance(node, Mapping):
        return node.items()
    return ((str(i), item) for i, item in enumerate(node)) if isinstance(node, list) else ()


def _hint(parents: Sequence[str], key: str, known: Sequence[str]) -> str:
    """Name the nearest of the known keys, or all of them where none is near."""
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if nearest:
        return f"did you mean '--{'#'.join([*parents, nearest[0]])}'?"
    return f"{'#'.join(parents) or 'the config'} has {', '.join(k for k in known if k not in RUN_OPTIONS) or 'none'}."
