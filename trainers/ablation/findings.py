"""What came of an experiment: the paper's figures beside ours, a row a finding.

``findings.json`` for programs, ``findings.md`` for people, ``findings.png`` to look at. A
finding that does not hold here says so in a plain sentence.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, Final

from plstore.report.forest import forest, png_bytes
from plstore.report.output import json_text
from plstore.storage import write_atomically
from trainers.ablation.cells import ResolvedCell, number_of
from trainers.ablation.grid import Finding, Grid
from trainers.ablation.statistics import Paired, paired

Row = dict[str, Any]
Values = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Numbers by cell, seed and name."""

PAGE: Final = "findings.md"

_READING: Final = (
    "Differences are paired by seed: the first cell minus the second. Intervals are of 95 %: "
    "the wider of the bootstrap's (BCa) and Student's t, of two seeds Student's t; "
    "findings.json has both."
)
_UNITS: Final = {"mCE": "points of mCE", "mFR": "points of mFR"}
_POINTS: Final = "points"
_SIGNS: Final = {"+": "above", "-": "below"}


def finding_rows(
    findings: Sequence[Finding],
    cells: Mapping[str, ResolvedCell],
    values: Values,
    left_out: Mapping[str, str],
) -> list[Row]:
    """Return a row a finding; `verdict` is "not run" where no seed has both cells.

    Args:
        findings: That were asked for.
        cells: By name.
        values: What is finished.
        left_out: Why cells were not run, by name.
    """
    return [_row(finding, cells, values, left_out) for finding in findings]


def _row(
    finding: Finding,
    cells: Mapping[str, ResolvedCell],
    values: Values,
    left_out: Mapping[str, str],
) -> Row:
    number = number_of(finding, cells)
    pairs = _pairs(finding, number, values)
    found = paired([first - second for first, second in pairs.values()]) if pairs else None
    reasons = [left_out[name] for name in finding.cells if name in left_out]
    verdict = "not run" if found is None else found.verdict(finding.sign)
    row = {
        "finding": finding.id,
        "sentence": finding.sentence,
        "source": finding.source or None,
        "cells": [finding.cell, finding.against],
        "number": number,
        "sign": finding.sign,
        "paper": None if finding.paper is None else _rounded(-_apart(finding.paper)),
        "paper_figures": None if finding.paper is None else list(finding.paper),
        "ours_figures": _means(pairs),
        **_ours(found),
        "seeds": sorted(pairs),
        "agrees": verdict == "agrees",
        "verdict": verdict,
        "note": "; ".join([*([finding.note] if finding.note else []), *reasons]) or None,
    }
    return row | {"said": said(row)}


def _pairs(finding: Finding, number: str, values: Values) -> dict[int, tuple[float, float]]:
    """Return both numbers by seed, of the seeds that have both."""
    found = {}
    for seed, first in sorted(values.get(finding.cell, {}).items()):
        if isinstance(finding.against, str):
            second = values.get(finding.against, {}).get(seed, {}).get(number)
        else:
            second = finding.against
        if number in first and second is not None:
            found[seed] = (first[number], second)
    return found


def _apart(figures: tuple[float, float]) -> float:
    return figures[1] - figures[0]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2) + 0.0  # no minus zero


def _means(pairs: Mapping[int, tuple[float, float]]) -> list[float] | None:
    if not pairs:
        return None
    return [round(mean(of), 2) for of in zip(*pairs.values(), strict=True)]


def _ours(found: Paired | None) -> Row:
    names = ("low", "high", "bootstrap_low", "bootstrap_high", "t_low", "t_high")
    if found is None:
        return dict.fromkeys(("ours", *names, "interval"))
    ends = {name: _rounded(getattr(found, name)) for name in names}
    return {"ours": _rounded(found.mean), **ends, "interval": found.method}


def said(row: Row) -> str:
    """Return what a row says, in one plain sentence."""
    if row["verdict"] == "not run":
        return f"Not run here: {row['note'] or 'no seed has both numbers'}."
    unit = _UNITS.get(row["number"], _POINTS)
    effect = f"{row['ours']:+.2f} {unit}{_interval(row)}"
    count = len(row["seeds"])
    over = f"over {count} seed{'' if count == 1 else 's'}"
    if row["verdict"] == "agrees":
        return f"It holds here: {effect} {over}."
    expected = f"the difference was expected to be {_SIGNS[row['sign']]} zero"
    if row["verdict"] == "contradicts":
        return f"It does not hold at this scale: {effect} {over}, where {expected}."
    why = "so few seeds have no interval" if row["low"] is None else "the interval crosses zero"
    return f"It is not shown at this scale: {effect} {over}; {why}, and {expected}."


def _interval(row: Row) -> str:
    return "" if row["low"] is None else f" ({row['low']:+.2f} to {row['high']:+.2f})"


def write_findings(
    out: Path, grid: Grid, rows: Sequence[Row], about: Mapping[str, Any]
) -> None:
    """Write findings.json, findings.md and findings.png.

    Args:
        out: Folder; made if it is not there.
        grid: Of the experiment.
        rows: Of `finding_rows`.
        about: What the rows are of: seeds asked and finished, images, versions.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "findings.json", (json_text(list(rows), indent=2) + "\n").encode())
    write_atomically(out / PAGE, _page(grid, rows, about).encode())
    drawn = [row for row in rows if row["ours"] is not None]
    if drawn:
        write_atomically(out / "findings.png", png_bytes(forest(drawn)))


def _page(grid: Grid, rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    lines = [f"# Findings of the grid {grid.name}", ""]
    if grid.about:
        lines += [grid.about.strip(), ""]
    lines += [f"{name}: {value}." for name, value in about.items()]
    lines += [
        "",
        _READING,
        "",
        "| finding | paper | here | difference in the paper | difference here | |",
        "|---|---|---|---|---|---|",
        *(_line(row) for row in rows),
        "",
        *(f"- **{row['finding']}.** {row['sentence']} {row['said']}" for row in rows),
    ]
    notes = [f"- {row['finding']}: {row['note']}." for row in rows if row["note"]]
    if notes:
        lines += ["", "Notes:", "", *notes]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    paper = f"{_figures(row['paper_figures'])} ({row['source']})" if row["source"] else "-"
    apart = "-" if row["paper"] is None else f"{row['paper']:+.2f}"
    ours = "-" if row["ours"] is None else f"{row['ours']:+.2f}{_interval(row)}"
    cells = (row["sentence"], paper, _figures(row["ours_figures"]), apart, ours, row["verdict"])
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _figures(figures: Sequence[float] | None) -> str:
    return "-" if figures is None else f"{figures[0]:g} against {figures[1]:g}"
