"""What a snapshot keeps in memory is what the store says, and it keeps no more than it may."""

from collections.abc import Callable
from pathlib import Path

import pytest

import plstore
from plstore.labels import LabelSet
from plstore.report import held
from plstore.report import snapshot as snapshots
from plstore.report.held import (
    Source,
    divergence_source,
    images_source,
    known_source,
    labels_source,
    view_source,
)
from plstore.report.snapshot import Snapshot


def _two(snapshot: Snapshot) -> tuple[LabelSet, LabelSet]:
    first, second = snapshot.labels("unlabeled")
    return first, second


SOURCES: dict[str, Callable[[Snapshot], Source]] = {
    "labels": lambda s: labels_source(s, s.labels("unlabeled")[-1], "l"),
    "divergence": lambda s: divergence_source(s, *_two(s), "d"),
    "images": images_source,
    "known": known_source,
    "view": lambda s: view_source(s, "second", 1, 40),
}


def rows(snapshot: Snapshot, source: Source) -> list[dict[str, object]]:
    found = snapshot.rows(f"from {source.sql} order by sample_id", source.parameters)
    return [
        {n: round(v, 5) if isinstance(v, float) else v for n, v in row.items()} for row in found
    ]


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_kept_in_memory_is_what_the_store_says(
    name: str, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, read = (Snapshot(plstore.open(filled)) for _ in range(2))
    there = rows(kept, SOURCES[name](kept))
    monkeypatch.setattr(snapshots, "_MOST_HELD", 0)

    assert there
    assert rows(read, SOURCES[name](read)) == there
    assert "soft_labels" not in SOURCES[name](kept).sql
    if name != "known":
        assert SOURCES[name](kept).sql.startswith("held_")
        assert SOURCES[name](read).sql.startswith("(")


def test_divergences_are_the_same_however_many_are_computed_at_once(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, pieces = (Snapshot(plstore.open(filled)) for _ in range(2))
    there = rows(whole, SOURCES["divergence"](whole))
    monkeypatch.setattr(held, "_WHOLE_BYTES", 7 * 4 * 3)  # seven images of three classes

    assert len(there) > 7
    assert rows(pieces, SOURCES["divergence"](pieces)) == there


def test_of_too_many_rows_the_first_asked_for_are_kept(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_MOST_HELD", 100)
    snapshot = Snapshot(plstore.open(filled))
    first, second = (labels_source(snapshot, s, "l") for s in snapshot.labels("unlabeled"))

    assert (first.sql[:5], second.sql[:1]) == ("held_", "(")
    assert labels_source(snapshot, snapshot.labels("unlabeled")[0], "l") == first
