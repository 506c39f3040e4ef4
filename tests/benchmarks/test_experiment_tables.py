"""The tables of rows written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import experiment_tables as tables

MADE = {"machine": "a CPU", "device": "cpu", "threads": 1, "commit": "abc", "versions": {"torch": "2", "monai": "1"}}


def row(kind: str, data_set: str, name: str, seed: int, alone: float, mirrored: float, **more: Any) -> dict[str, Any]:
    """A finished row in which all measures of its set have the same value."""
    measures = {
        views: dict.fromkeys(tables.TARGETS[data_set], value)
        for views, value in (("identity", alone), ("mirrors", mirrored))
    }
    content = {"kind": kind, "data_set": data_set, "name": name, "seed": seed, "measures": measures, **MADE}
    length = {"steps": 1000 + 40 * seed, "minutes": 10.5, "images": {"training": 48, "validation": 12}}
    return {**content, **length, "overrides": {}, "commands": {"training": f"train {name} {seed}"}, **more}


def table_of(text: str) -> list[str]:
    """The lines of a table below its header."""
    return [line for line in text.splitlines() if line.startswith("|")][2:]


def test_headline_shows_mean_spread_and_target() -> None:
    rows = [row("headline", "dic_hela", "ours", seed, 0.7 + 0.1 * seed, 0.8) for seed in (0, 1)]
    assert table_of(tables.headline_table(rows)) == [
        "| 1 | dic_hela | SEG | 0.776 | 0.750 (0.700 to 0.800) | 0.800 (0.800 to 0.800) | with mirrors "
        "| 0, 1 | 1000 to 1040 | 10.5 |"
    ]


@pytest.mark.parametrize(
    ("alone", "mirrored", "verdict"), [(0.776, 0.1, "yes"), (0.775, 0.776, "with mirrors"), (0.775, 0.775, "**no**")]
)
def test_losses_are_shown_like_wins(alone: float, mirrored: float, verdict: str) -> None:
    (line,) = table_of(tables.headline_table([row("headline", "dic_hela", "ours", 0, alone, mirrored)]))
    assert f"| {verdict} |" in line
    assert f"{alone:.3f} (one seed)" in line


def test_measures_without_a_target_get_no_verdict() -> None:
    lines = table_of(tables.headline_table([row("headline", "nuclei_dsb2018", "ours", 0, 0.9, 0.9)]))
    assert [[line.split(" | ")[i] for i in (2, 3, 6)] for line in lines] == [
        ["AP50", "0.88", "yes"],
        ["AP75", "0.62", "yes"],
        ["AP50_of_images", "", ""],
        ["AP75_of_images", "", ""],
        ["SEG", "", ""],
    ]


def test_tables_name_the_commands_and_the_machine() -> None:
    rows = [row("headline", data_set, "ours", 3, 0.5, 0.5) for data_set in ("phc_u373", "dic_hela")]
    rows[1]["commit"] = "def"
    rows[1]["device"] = "a GPU"
    assert tables.headline_table(rows).splitlines()[-4:] == [
        "1. `train ours 3`",
        "2. `train ours 3`",
        "",
        "Made with: a CPU, threads: 1, torch 2, monai 1, commit `abc`; "
        "a GPU, a CPU, threads: 1, torch 2, monai 1, commit `def`.",
    ]


def test_ablation_compares_with_the_unchanged_row_of_the_same_set() -> None:
    rows = [
        row("ablation", "phc_u373", "nothing", 0, 0.1, 0.1),
        row("ablation", "dic_hela", "nothing", 0, 0.5, 0.6),
        row("ablation", "dic_hela", "nothing", 1, 0.7, 0.6),
        row("ablation", "dic_hela", "no_elastic", 0, 0.4, 0.5),
    ]
    lines = table_of(tables.ablation_table(rows))
    assert lines[1].startswith("| 2 | dic_hela | nothing | SEG | 0.600 (0.500 to 0.700) |  | 0.600 (")
    assert lines[2].startswith("| 3 | dic_hela | no elastic | SEG | 0.400 (one seed) | -0.200 | 0.500 (one seed) | 0 |")
    assert "| SEG | 0.400 (one seed) |  |" in table_of(tables.ablation_table(rows[3:]))[0]


def test_learning_curve_shows_how_many_images_trained() -> None:
    images = {"training": 5, "validation": 12}
    start = {"training_images": 5, "pretrained": "nuclei.pt"}
    rows = [
        row("learning_curve", "dic_hela", "images_5", 0, 0.4, 0.5, images=images),
        row("learning_curve", "dic_hela", "images_5_pretrained", 0, 0.6, 0.7, images=images, overrides=start),
    ]
    assert table_of(tables.learning_curve_table(rows)) == [
        "| 1 | dic_hela | 5 | from scratch | SEG | 0.400 (one seed) | 0.500 (one seed) | 0 | 1000 | 10.5 |",
        "| 2 | dic_hela | 5 | nuclei.pt | SEG | 0.600 (one seed) | 0.700 (one seed) | 0 | 1000 | 10.5 |",
    ]


def test_peer_stands_beside_the_headline_row() -> None:
    rows = [
        row("headline", "dic_hela", "ours", 0, 0.4, 0.5),
        row("peers", "dic_hela", "basic_unet", 0, 0.6, 0.7, minutes=10.25),
        row("peers", "phc_u373", "basic_unet", 0, 0.6, 0.7),
    ]
    lost, alone = table_of(tables.peers_table(rows))
    assert lost == (
        "| 1 | dic_hela | basic unet | SEG | 0.400 (one seed) | 0.600 (one seed) | -0.200 | 0.500 (one seed) "
        "| 0.700 (one seed) | 0; 1000; 10.5 | 0; 1000; 10.25 |"
    )
    assert alone.startswith(
        "| 2 | phc_u373 | basic unet | SEG | not run | 0.600 (one seed) |  | not run | 0.700 (one seed) |  | 0; "
    )


def test_a_library_has_no_mirrors_but_versions_of_its_own() -> None:
    alone = row("peers", "dic_hela", "stardist", 0, 0.6, 0.7, peer_versions={"stardist": "0.9"})
    del alone["measures"]["mirrors"]
    text = tables.peers_table([row("headline", "dic_hela", "ours", 0, 0.4, 0.5), alone])
    (line,) = table_of(text)
    assert line.startswith(
        "| 1 | dic_hela | stardist | SEG | 0.400 (one seed) | 0.600 (one seed) | -0.200 | 0.500 (one seed) |  | 0; "
    )
    assert text.endswith("torch 2, monai 1, stardist 0.9, commit `abc`.")


def test_page_keeps_its_words_and_gets_new_tables(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    parts = [f"About {kind}.\n<!-- {kind} -->\nold\n<!-- end of {kind} -->\n" for kind in tables.SECTIONS]
    page.write_text("\n".join([*parts, "The end.\n"]))
    rows = [row("headline", "dic_hela", "ours", 0, 0.4, 0.5)]
    tables.write_tables(rows, page)
    text = page.read_text()
    assert "old" not in text
    assert text.startswith(
        f"About headline.\n<!-- headline -->\n\n{tables.headline_table(rows)}\n\n<!-- end of headline"
    )
    assert text.count("No row has been run yet.") == 3
    assert text.endswith("The end.\n")
    tables.write_tables(rows, page)
    assert page.read_text() == text


@pytest.mark.parametrize("lost", ["<!-- peers -->\n", "<!-- end of ablation -->\n"])
def test_page_must_have_places_for_the_tables(tmp_path: Path, lost: str) -> None:
    page = tmp_path / "page.md"
    text = "".join(f"<!-- {kind} -->\n<!-- end of {kind} -->\n" for kind in tables.SECTIONS)
    page.write_text(text.replace(lost, ""))
    with pytest.raises(ValueError, match=r"page.md must hold the lines <!-- \w+ --> and <!-- end of"):
        tables.write_tables([], page)
