"""Write the finished rows of the experiments into the tables of `docs/experiments.md`, wins and losses alike."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

# What is measured of each set, and what it shall reach; None for what has no target.
TARGETS: dict[str, dict[str, float | None]] = {
    "em_isbi2012": {"VRand": 0.988, "VInfo": 0.990},
    "phc_u373": {"SEG": 0.92},
    "dic_hela": {"SEG": 0.776},
    "nuclei_dsb2018": {"AP50": 0.88, "AP75": 0.62, "AP50_of_images": None, "AP75_of_images": None, "SEG": None},
    "phase_t98g": {"SEG": 0.55, "AP50": 0.45},
}
# A row of an experiment as its file holds it, and the rows that differ in the seed only.
Content = Mapping[str, Any]
Group = Sequence[Content]


def write_tables(rows: Sequence[Content], page: Path) -> None:
    """Replace the tables of a page by those of these rows.

    A table stands between the lines `<!-- KIND -->` and `<!-- end of KIND -->`.

    Args:
        rows: contents of the rows' files, in the order to show them.
        page: Markdown file.

    Raises:
        ValueError: if a line is missing.
    """
    text = page.read_text(encoding="utf-8")
    for kind, table in SECTIONS.items():
        start, end = f"<!-- {kind} -->\n", f"<!-- end of {kind} -->\n"
        before, found_start, rest = text.partition(start)
        _, found_end, after = rest.partition(end)
        if not found_start or not found_end:
            raise ValueError(f"{page.name} must hold the lines {start.strip()} and {end.strip()}, got not both.")
        text = f"{before}{start}\n{table(rows)}\n\n{end}{after}"
    page.write_text(text, encoding="utf-8")


def grouped(rows: Sequence[Content], kind: str) -> dict[tuple[str, str], list[Content]]:
    """Collect the rows of a kind that differ in the seed only, by set and name."""
    groups: dict[tuple[str, str], list[Content]] = {}
    for row in rows:
        if row["kind"] == kind:
            groups.setdefault((row["data_set"], row["name"]), []).append(row)
    return groups


def average(group: Group, views: str, measure: str) -> float:
    """Average a measure over the seeds."""
    return mean(row["measures"][views][measure] for row in group)


def spread(group: Group, views: str, measure: str) -> str:
    """Write the mean of a measure with its lowest and highest value.

    Example:
        >>> group = [{"measures": {"identity": {"SEG": seg}}} for seg in (0.7, 0.8)]
        >>> spread(group, "identity", "SEG")
        '0.750 (0.700 to 0.800)'
    """
    values = [row["measures"][views][measure] for row in group]
    figure = f"{mean(values):.3f}"
    return f"{figure} ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else f"{figure} (one seed)"


def length(group: Group) -> list[str]:
    """Write the seeds, the steps and the minutes of training of a group."""
    seeds = ", ".join(str(row["seed"]) for row in group)
    return [seeds, _range([row["steps"] for row in group]), _range([row["minutes"] for row in group])]


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):g}", f"{max(values):g}"
    return low if low == high else f"{low} to {high}"


def headline_table(rows: Sequence[Content]) -> str:
    """Set what each set reached beside its target."""
    header = ["row", "set", "measure", "target", "image alone", "with mirrors", "reached", "seeds", "steps", "minutes"]
    groups = grouped(rows, "headline")
    lines = []
    for number, ((data_set, _), group) in enumerate(groups.items(), 1):
        for measure, target in TARGETS[data_set].items():
            values = [spread(group, views, measure) for views in ("identity", "mirrors")]
            bound = "" if target is None else f"{target:g}"
            lines.append([number, data_set, measure, bound, *values, reached(group, measure, target), *length(group)])
    return _section(header, lines, groups.values())


def reached(group: Group, measure: str, target: float | None) -> str:
    """Say whether the mean over the seeds reached the target."""
    if target is None:
        return ""
    if average(group, "identity", measure) >= target:
        return "yes"
    return "with mirrors" if average(group, "mirrors", measure) >= target else "**no**"


def ablation_table(rows: Sequence[Content]) -> str:
    """Set each change beside the row in which nothing was changed."""
    header = ["row", "set", "changed", "measure", "image alone", "difference", "with mirrors"]
    header += ["seeds", "steps", "minutes"]
    groups = grouped(rows, "ablation")
    lines = []
    for number, ((data_set, name), group) in enumerate(groups.items(), 1):
        unchanged = groups.get((data_set, "nothing"), [])
        for measure in TARGETS[data_set]:
            compared = difference(group, unchanged, measure) if name != "nothing" else ""
            values = [spread(group, "identity", measure), compared, spread(group, "mirrors", measure)]
            lines.append([number, data_set, name.replace("_", " "), measure, *values, *length(group)])
    return _section(header, lines, groups.values())


def difference(group: Group, other: Group, measure: str) -> str:
    """Write by how much the mean of a measure differs from that of another group; nothing without one."""
    if not other:
        return ""
    return f"{average(group, 'identity', measure) - average(other, 'identity', measure):+.3f}"


def learning_curve_table(rows: Sequence[Content]) -> str:
    """Show what each number of training images reached, from scratch and from shipped weights."""
    header = ["row", "set", "training images", "start", "measure", "image alone", "with mirrors"]
    header += ["seeds", "steps", "minutes"]
    groups = grouped(rows, "learning_curve")
    lines = []
    for number, ((data_set, _), group) in enumerate(groups.items(), 1):
        images, start = group[0]["images"]["training"], group[0]["overrides"].get("pretrained", "from scratch")
        for measure in TARGETS[data_set]:
            values = [spread(group, views, measure) for views in ("identity", "mirrors")]
            lines.append([number, data_set, images, start, measure, *values, *length(group)])
    return _section(header, lines, groups.values())


def peers_table(rows: Sequence[Content]) -> str:
    """Set each peer beside the headline row of the same set."""
    header = ["row", "set", "peer", "measure", "ours, image alone", "peer, image alone", "ours - peer"]
    header += ["ours, with mirrors", "peer, with mirrors", "ours: seeds; steps; minutes", "peer: seeds; steps; minutes"]
    groups, headline = grouped(rows, "peers"), grouped(rows, "headline")
    lines = []
    for number, ((data_set, name), peer) in enumerate(groups.items(), 1):
        ours = headline.get((data_set, "ours"), [])
        for measure in TARGETS[data_set]:
            alone, mirrored = (
                [spread_if_run(side, views, measure) for side in (ours, peer)] for views in ("identity", "mirrors")
            )
            compared = difference(ours, peer, measure) if ours else ""
            lengths = ["; ".join(length(side)) if side else "" for side in (ours, peer)]
            lines.append([number, data_set, name.replace("_", " "), measure, *alone, compared, *mirrored, *lengths])
    return _section(header, lines, groups.values())


def spread_if_run(group: Group, views: str, measure: str) -> str:
    """Write the mean of a measure, or that there is none; the libraries' rows have no mirrors."""
    if not group:
        return "not run"
    return spread(group, views, measure) if all(views in row["measures"] for row in group) else ""


def _section(header: Sequence[str], lines: Sequence[Sequence[object]], groups: Collection[Group]) -> str:
    """Write a table, the command of each row and what they were made with."""
    if not lines:
        return "No row has been run yet."
    table = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    table += [f"| {' | '.join(map(str, line))} |" for line in lines]
    commands = [f"{number}. `{group[0]['commands']['training']}`" for number, group in enumerate(groups, 1)]
    made = dict.fromkeys(_made_with(row) for group in groups for row in group)
    return "\n".join([*table, "", *commands, "", "Made with: " + "; ".join(made) + "."])


def _made_with(row: Content) -> str:
    machine = row["machine"] if row["device"] == "cpu" else f"{row['device']}, {row['machine']}"
    versions = {name: row["versions"][name] for name in ("torch", "monai")} | row.get("peer_versions", {})
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{machine}, threads: {row['threads']}, {named}, commit `{row['commit']}`"


SECTIONS: dict[str, Callable[[Sequence[Content]], str]] = {
    "headline": headline_table,
    "ablation": ablation_table,
    "learning_curve": learning_curve_table,
    "peers": peers_table,
}
