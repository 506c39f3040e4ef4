from __future__ import annotations

import base64
import dataclasses
import math
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from unet_monai.pictures.errors import ERROR_LEGEND
from unet_monai.pictures.report import ImageResult, Report, render_report, summarise_measures, total_classes

EVIL = "<b>&.png"


def image_result(name: str, seg: float, picture: str = "", **true: int) -> ImageResult:
    true = {"right": 3, "missed": 1, "split": 0, "merged": 0, **true}
    pred = {"right": true["right"], "split": 0, "merged": 0, "false": 2, "excused": 0}
    return ImageResult(f"/data/set/{name}", true, pred, {"SEG": seg, "DET": 0.5}, picture)


REPORT = Report(
    title="Training",
    warnings=["The network finds <nothing>."],
    headline={"SEG, best epoch (4)": "0.812", "time": "3 min"},
    curves=b"curves",
    results=[image_result(EVIL, 0.25, "01.png"), image_result("b.png", 0.75, "02.png"), image_result("c.png", 0.8)],
    pooled={"SEG": 0.6, "DET": 0.55},
    pictures={"01.png": b"first", "02.png": b"second"},
    settings={"epochs": 8, "features": [16, 32], "label_source": None, "command_line": {"w0": "5", "x": "<i>"}},
    split={"training": ["/data/one/x.png", "/data/two/x.png"], "validation": [f"/data/set/{EVIL}", "C:\\cells\\y.tif"]},
    versions={"torch": "2.13.0", "monai": "1.6.1"},
)


class Page(HTMLParser):
    """Check that tags nest, and note what a browser would load and show."""

    VOID = ("meta", "img", "br", "link", "hr")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.headings: list[str | None] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "h2":
            self.headings.append(dict(attrs)["id"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    @property
    def sources(self) -> list[str]:
        return [value or "" for name, value in self.attributes if name in ("src", "href", "srcset", "data", "action")]


def page(**changes: Any) -> Page:
    return Page(render_report(dataclasses.replace(REPORT, **changes)))


class TestRenderReport:
    def test_has_every_section(self) -> None:
        assert page().headings == ["curves", "measures", "pictures", "settings", "split", "versions"]

    def test_needs_nothing_but_itself(self) -> None:
        html = render_report(REPORT)
        assert all(source.startswith("data:image/png;base64,") for source in Page(html).sources)
        assert not re.search(r"https?:|@import|url\(|<script|<link|<iframe", html)
        pictures = [base64.b64decode(source.split(",")[1]) for source in Page(html).sources]
        assert pictures == [b"curves", b"first", b"second"]

    def test_names_are_shown_as_they_are(self) -> None:
        shown = page()
        assert "b" in shown.tags, "test invalid: the page has no <b> of its own"
        assert shown.tags.count("b") == page(results=[image_result("a.png", 0.2, "01.png")] * 2).tags.count("b")
        assert shown.text.count(f"set/{EVIL}") == 1
        assert ("alt", f"/data/set/{EVIL}") in shown.attributes
        assert "The network finds <nothing>." in shown.text
        assert "--w0 5 --x <i>" in shown.text

    def test_figures(self) -> None:
        text = page().text
        # Cells of a table follow each other without a blank.
        for row in ("SEG0.6000.6000.3040.2500.8003", "true129300--", "found159-0060", "SEG, best epoch (4)0.812"):
            assert row in text
        assert "4 true cells: 3 right, 1 missed; 5 found: 3 right, 2 false" in text
        assert "SEG 0.250, DET 0.500" in text
        assert "Shown are 2 of 3 images." in text
        assert "Shown are" not in page(results=REPORT.results[:2]).text

    def test_order_and_legend(self) -> None:
        text = page().text
        assert text.index(f"set/{EVIL}") < text.index("set/b.png SEG 0.750")
        assert all(name in text for name in ERROR_LEGEND)
        assert f"background: rgb{ERROR_LEGEND['missed']}" in render_report(REPORT)

    def test_settings_and_split(self) -> None:
        text = page().text
        for row in ("epochs8", "features16, 32", "label_sourcenone"):
            assert row in text
        assert "training, 2 images /data/one: x.png /data/two: x.png validation, 2 images" in text
        assert "C:/cells: y.tif" in text
        assert "torch 2.13.0, monai 1.6.1" in text

    def test_a_long_list_is_folded(self) -> None:
        assert render_report(REPORT).count("<details open>") == 2
        long = {"training": [f"/data/{i}.png" for i in range(101)]}
        assert "<details>" in render_report(dataclasses.replace(REPORT, split=long))

    def test_without_images_and_curves(self) -> None:
        bare = page(
            results=[], pooled={}, pictures={}, curves=None, warnings=[], split={"training": [], "validation": []}
        )
        assert bare.headings == ["measures", "settings", "split", "versions"]
        assert "No image was measured." in bare.text
        assert bare.sources == []

    def test_pictures_that_are_gone(self) -> None:
        shown = page(pictures={"02.png": b"second"})
        assert len(shown.sources) == 2
        assert f"set/{EVIL}" not in shown.text


class TestSummariseMeasures:
    def test_against_hand_computed_figures(self) -> None:
        seg, det = summarise_measures(REPORT.results, REPORT.pooled)
        assert (seg.name, seg.pooled, seg.lowest, seg.highest, seg.images) == ("SEG", 0.6, 0.25, 0.8, 3)
        assert seg.mean == pytest.approx(0.6)
        assert seg.deviation == pytest.approx(math.sqrt((0.35**2 + 0.15**2 + 0.2**2) / 2))
        assert (det.name, det.mean, det.deviation) == ("DET", 0.5, 0.0)

    def test_undefined_values_are_left_out(self) -> None:
        results = [image_result("a", 0.5), image_result("b", math.nan)]
        row = summarise_measures(results, {"SEG": 0.5})[0]
        assert (row.mean, row.lowest, row.highest, row.images) == (0.5, 0.5, 0.5, 1)
        assert math.isnan(row.deviation)
        none = summarise_measures(results[1:], {"SEG": math.nan})[0]
        assert none.images == 0
        assert all(math.isnan(value) for value in none[1:6])


def test_total_classes_keep_those_without_an_instance() -> None:
    totals = total_classes(REPORT.results)
    assert totals["true"] == {"right": 9, "missed": 3, "split": 0, "merged": 0}
    assert totals["found"] == {"right": 9, "split": 0, "merged": 0, "false": 6, "excused": 0}
    assert total_classes([]) == {"true": {}, "found": {}}
