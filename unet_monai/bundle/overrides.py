"""Catch mistyped command-line overrides, names and values, which MONAI accepts without a word."""

from __future__ import annotations

import difflib
import inspect
import pydoc
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import fire.parser
import torch
from monai.bundle import ConfigParser

_OPTION = re.compile(r"--?([A-Za-z_][^=]*)(=.*)?", flags=re.DOTALL)
# The options of `python -m monai.bundle run` itself, which are no keys of a config.
RUN_OPTIONS = ("run_id", "init_id", "final_id", "config_file", "meta_file", "logging_file", "args_file", "tracking")

# What the settings must be; those that are not here may be several things or are checked by what they are made into.
WHOLE_NUMBERS = (
    *("training_images", "ignore_label", "border_label", "margin", "epochs", "steps_per_epoch", "val_interval"),
    *("batch_size", "sw_batch_size", "ridge_radius", "min_size", "num_workers", "seed", "spatial_dims", "in_channels"),
    *("network_def#out_channels", "validation_windows", "reach", "chunk", "memory_budget"),
)
AT_LEAST_ONE = ("epochs", "steps_per_epoch", "val_interval", "batch_size", "sw_batch_size", "training_images")
AT_LEAST_ZERO = ("seed", "num_workers", "learning_rate")
WHOLE_NUMBERS_PER_AXIS = ("tile_size", "roi_size", "network_def#features")  # one, or a list
NUMBERS = (
    *("max_minutes", "largest_diameter", "smoothing", "learning_rate", "w0", "sigma", "elastic_magnitude"),
    *("threshold", "edge_threshold", "join_threshold", "neck_depth", "scale", "cell_diameter", "claim_seconds"),
    "network_def#dropout",
)
SWITCHES = ("resume", "rois", "save_scores", "save_tiff")
PATHS = (
    *("bundle_root", "dataset_dir", "output_dir", "ckpt_dir", "report_dir", "input", "mask"),
    *("checkpoint", "pretrained"),
)


def command_line_settings(argv: Sequence[str]) -> dict[str, str]:
    """Read what a command line sets: ``--epochs 5``, ``-epochs=5`` and ``--val-interval 2`` alike.

    Example:
        >>> command_line_settings(["run", "training", "--config_file", "train.json", "--epochs=5", "--roi_size", "-1"])
        {'config_file': 'train.json', 'epochs': '5', 'roi_size': '-1'}
        >>> command_line_settings(["--resume", "--epochs", "5", "--rois"])  # without a value: switched on
        {'resume': 'True', 'epochs': '5', 'rois': 'True'}
    """
    settings = {}
    for word, following in zip_longest(argv, argv[1:], fillvalue=""):
        option = _OPTION.fullmatch(word)
        if option:
            value = "True" if not following or _OPTION.fullmatch(following) else following
            settings[option[1].replace("-", "_")] = value if option[2] is None else option[2][1:]
    return settings


def unknown_override(names: Iterable[str], config: Mapping[str, Any]) -> str | None:
    """Find the first name that is neither a key of the config nor an option of the command.

    A nested name (``network_def#dropout`` or ``network_def::dropout``) may add an argument to a component, which must
    exist, and take it where its ``_target_`` is a full dotted name.

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
                arguments = _arguments(node)  # it may be a further one
                if arguments and key not in arguments and not key.startswith("_"):
                    return f"unknown setting {f'--{name}'!r}: {_hint(path[:depth], key, arguments)}"
                break
            else:
                known = [*children, *RUN_OPTIONS] if depth == 0 else list(children)
                return f"unknown setting {f'--{name}'!r}: {_hint(path[:depth], key, known)}"
    return None


def mistyped_value(settings: Mapping[str, str]) -> str | None:
    """Find the first setting whose value is of another type than it must be, or too low for what it counts.

    Values are read as the command's own parser, Python Fire, reads them. Expressions (``$...``) and references
    (``@...``, ``%...``) may be anything.

    Args:
        settings: values by name, as `command_line_settings` returns them.

    Returns:
        One line that says what was meant, or None when there is no mistake.

    Example:
        >>> mistyped_value({"epochs": "ten"})
        "--epochs must be a whole number, got 'ten'."
    """
    for name, text in settings.items():
        key, value = name.replace("::", "#"), fire.parser.DefaultParseValue(text)
        if text.startswith(("$", "@", "%")):
            continue
        if value is None or str(value).lower() in ("none", "null"):
            if key in (*WHOLE_NUMBERS, *WHOLE_NUMBERS_PER_AXIS, *NUMBERS):
                return f"--{name} must be '$None', in quotes, for none, got {value!r}."
        elif key in WHOLE_NUMBERS and not _is_number(value, int):
            return f"--{name} must be a whole number, got {value!r}."
        elif key in AT_LEAST_ONE and value < 1:
            return f"--{name} must be at least 1, got {value!r}."
        elif key in WHOLE_NUMBERS_PER_AXIS:
            numbers = value if isinstance(value, list | tuple) and value else [value]
            if not all(_is_number(number, int) and number > 0 for number in numbers):
                return f"--{name} must be a whole number above 0 or a list of them, got {value!r}."
        elif key in NUMBERS and not _is_number(value, int, float):
            return f"--{name} must be a number, got {value!r}."
        elif key in AT_LEAST_ZERO and value < 0:
            return f"--{name} must be at least 0, got {value!r}."
        elif key in PATHS and "#" in text:
            return f"--{name} must be a path without '#', which configs take for a sign of their own, got {text!r}."
        elif key in PATHS and value != text:
            return f"--{name} must be a path, got {text!r}, which is read as {value!r}: write './{text}'."
        elif key in SWITCHES and value not in (True, False, "true"):  # MONAI takes the text 'false' for true
            return f"--{name} must be True or False, with a capital letter, got {value!r}."
        elif key == "device" and not _is_device(text):
            return f"--{name} must be a device that torch finds here, such as cpu or cuda:0, got {text!r}."
    return None


def check_overrides(argv: Sequence[str]) -> None:
    """Stop a ``monai.bundle run`` whose command line sets a key that its config files do not have, or a wrong value.

    Args:
        argv: the command line, ``sys.argv``. Started in any other way (from Python, or by a server), there is no
            ``--config_file`` in it, and nothing to check.

    Raises:
        ValueError: for an unknown key, with the nearest real one, and for a value of the wrong type, with the right.
    """
    settings = command_line_settings(argv)
    if "config_file" not in settings:
        return
    # Read as the command's own parser reads it: one path, or a list of them.
    files = fire.parser.DefaultParseValue(settings["config_file"])
    mistake = unknown_override(settings, ConfigParser.load_config_files(files)) or mistyped_value(settings)
    if mistake is not None:
        raise ValueError(mistake)


def _is_number(value: Any, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _is_device(name: str) -> bool:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError):  # no such kind, no such number, or a torch built without it
        return False
    return True


def _children(node: Any) -> Iterable[tuple[str, Any]]:
    """List the named entries of a component, or the numbered ones of a list."""
    if isinstance(node, Mapping):
        return node.items()
    return ((str(i), item) for i, item in enumerate(node)) if isinstance(node, list) else ()


def _arguments(component: Mapping[str, Any]) -> list[str]:
    """List the arguments that a component takes, by the signature of its target; none where that does not tell."""
    target: Any = pydoc.locate(str(component.get("_target_", "")))
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):  # nothing that can be called, or of C
        return []
    return [] if any(p.kind is p.VAR_KEYWORD for p in parameters) else [p.name for p in parameters]


def _hint(parents: Sequence[str], key: str, known: Sequence[str]) -> str:
    """Name the nearest of the known keys, or all of them where none is near."""
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if nearest:
        return f"did you mean '--{'#'.join([*parents, nearest[0]])}'?"
    return f"{'#'.join(parents) or 'the config'} has {', '.join(k for k in known if k not in RUN_OPTIONS) or 'none'}."
