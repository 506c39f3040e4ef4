"""One page for a person to look at after a training or an evaluation. It needs no other file and no network."""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from unet_monai.pictures.errors import ERROR_COLOURS


@dataclass
class ImageResult:
    """What was measured on one image.

    Attributes:
        address: address of its file.
        true: number of true instances of each class of `error_classes`, by its name in small letters.
        pred: number of predicted instances of each.
        measures: value of each measure on this image alone; nan where it has none.
        picture: file name of its picture; empty without one.
    """

    address: str
    true: dict[str, int]
    pred: dict[str, int]
    measures: dict[str, float] = field(default_factory=dict)
    picture: str = ""


class MeasureSummary(NamedTuple):
    """One measure over a set of images.

    Attributes:
        name: its name.
        pooled: its value on all images together, as the evaluator has it.
        mean: mean over the images that have a value; nan without any.
        deviation: their standard deviation (n - 1); nan for fewer than two.
        lowest: the lowest of them; nan without any.
        highest: the highest of them; nan without any.
        images: how many images have a value.
    """

    name: str
    pooled: float
    mean: float
    deviation: float
    lowest: float
    highest: float
    images: int


@dataclass(frozen=True)
class Report:
    """What the page shows.

    Attributes:
        title: heading.
        warnings: what the reader must not miss, one sentence or two each.
        headline: the figures to read first, by name.
        curves: picture of the curves, PNG; None without one.
        results: one for each image, in the order to show them.
        pooled: value of each measure on all images together.
        pictures: PNG of each result that has a picture, by file name.
        settings: what was set, by name.
        split: addresses of images by what they were used for.
        versions: versions of the software, by name.
    """

    title: str
    warnings: Sequence[str]
    headline: Mapping[str, str]
    curves: bytes | None
    results: Sequence[ImageResult]
    pooled: Mapping[str, float]
    pictures: Mapping[str, bytes]
    settings: Mapping[str, Any]
    split: Mapping[str, Sequence[str]]
    versions: Mapping[str, str]


def summarise_measures(results: Sequence[ImageResult], pooled: Mapping[str, float]) -> list[MeasureSummary]:
    """Summarise each measure of `pooled` over the images.

    Args:
        results: what was measured on each image.
        pooled: value of each measure on all of them together.

    Returns:
        One summary for each measure.

    Example:
        >>> results = [ImageResult("a.png", {}, {}, {"SEG": 0.5}), ImageResult("b.png", {}, {}, {"SEG": 0.7})]
        >>> row = summarise_measures(results, {"SEG": 0.65})[0]
        >>> row.pooled, row.mean, round(row.deviation, 3), row.images
        (0.65, 0.6, 0.141, 2)
    """
    rows = []
    for name, value in pooled.items():
        values = np.array([result.measures[name] for result in results if not math.isnan(result.measures[name])])
        deviation = float(values.std(ddof=1)) if len(values) > 1 else math.nan
        if len(values):
            mean, lowest, highest = float(values.mean()), float(values.min()), float(values.max())
        else:
            mean = lowest = highest = math.nan
        rows.append(MeasureSummary(name, float(value), mean, deviation, lowest, highest, len(values)))
    return rows


def total_classes(results: Sequence[ImageResult]) -> dict[str, dict[str, int]]:
    """Add up the true and the found (predicted) instances of each class over the images.

    Example:
        >>> results = [ImageResult("a.png", {"right": 2, "missed": 1}, {"right": 2, "false": 0})] * 2
        >>> total_classes(results)
        {'true': {'right': 4, 'missed': 2}, 'found': {'right': 4, 'false': 0}}
    """
    totals: dict[str, Counter[str]] = {"true": Counter(), "found": Counter()}
    for result in results:
        # `update` keeps the classes that have no instance, which `+=` would drop.
        totals["true"].update(result.true)
        totals["found"].update(result.pred)
    return {kind: dict(counts) for kind, counts in totals.items()}


def render_report(report: Report) -> str:
    """Make the page, HTML with the pictures and the style inside.

    Names of files and values of settings are shown as they are, whatever they hold.

    Args:
        report: what to show.

    Returns:
        The text of the HTML file.
    """
    environment = Environment(
        loader=PackageLoader("unet_monai", "pictures"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "base64": lambda data: base64.b64encode(data).decode(),
        "figure": _figure,
        "setting": _setting,
        "short_address": lambda address: "/".join(_parts(address)[-2:]),
    }
    totals = total_classes(report.results)
    return environment.get_template("report.html.jinja").render(
        report=report,
        shown=[result for result in report.results if result.picture in report.pictures],
        measures=summarise_measures(report.results, report.pooled),
        totals=totals,
        classes=list(dict.fromkeys(name for counts in totals.values() for name in counts)),
        folders={use: _by_folder(addresses) for use, addresses in report.split.items()},
        colours={kind.name.lower(): "rgb({}, {}, {})".format(*colour) for kind, colour in ERROR_COLOURS.items()},
    )


def _figure(value: float) -> str:
    """Write a measure with three decimals; a dash where there is none."""
    return "-" if math.isnan(value) else f"{value:.3f}"


def _setting(value: Any) -> str:
    """Write the value of a setting on one line."""
    if isinstance(value, Mapping):
        return "  ".join(f"--{name} {_setting(part)}" for name, part in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_setting, value)) or "none"
    return "none" if value is None else str(value)


def _by_folder(addresses: Sequence[str]) -> dict[str, list[str]]:
    """Group addresses by their folders, in their order."""
    folders: dict[str, list[str]] = {}
    for address in addresses:
        *folder, name = _parts(address)
        folders.setdefault("/".join(folder), []).append(name)
    return folders


def _parts(address: str) -> list[str]:
    """Cut an address of any system into its folders and its name."""
    return address.replace("\\", "/").split("/")
