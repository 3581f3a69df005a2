import subprocess
from typing import Any

import numpy as np
import pytest

import plstore
from plstore.errors import InputError
from plstore.report.snapshot import Snapshot, newest_labels
from plstore.report.thresholds import counts_of, keep
from plstore.selection import Balance, Selection, preview
from plstore.store import Store
from plstore.ui import thresholds
from plstore.ui.address import Address
from plstore.ui.thresholds import command, read_balance
from tests.cli.shell import shell

BALANCES: list[dict[str, Any]] = [
    {},
    {"min_confidence": 0.0},
    {"min_confidence": 0.7, "images_per_class": 5},
    {"min_confidence": 0.999},
    {"policy": "cap", "images_per_class": 7},
    {"policy": "none", "min_confidence": 0.55},
    {"total": 31, "power": 0.5, "min_confidence": 0.4},
    {"total": 31, "power": 1.0, "policy": "cap"},
]


@pytest.mark.parametrize("given", BALANCES)
def test_what_is_left_is_what_a_dry_run_says(decided: Snapshot, given: dict[str, Any]) -> None:
    labels = newest_labels(decided)
    assert labels is not None
    balance = Balance(**given)
    found = keep(counts_of(decided, labels), balance, decided.class_names)
    said = preview(decided.store, Selection(view="x", teachers=["t1@2"], balance=balance))

    assert found.predicted.tolist() == said["predicted_by_class"]
    assert found.candidates.tolist() == said["candidates_by_class"]
    assert found.quotas.tolist() == said["quota_by_class"]
    assert found.kept.tolist() == said["kept_by_class"]
    assert found.draws.tolist() == said["draws_by_class"]


def test_the_estimate_is_of_validation_images_above_the_same_cuts(
    decided: Snapshot,
) -> None:
    labels = newest_labels(decided)
    assert labels is not None
    found = keep(
        counts_of(decided, labels),
        Balance(policy="none", min_confidence=0.4),
        decided.class_names,
    )
    rows = decided.rows("from evaluated('validation', '') where iteration = 2")
    right, kept = 0.0, 0
    for class_id in range(3):
        cut = found.cuts[class_id]
        here = [r for r in rows if r["class_id"] == class_id and r["confidence"] > cut]
        if here:
            share = np.mean([r["class_id"] == r["true_id"] for r in here])
            right += share * int(found.kept[class_id])
            kept += int(found.kept[class_id])

    assert kept
    assert found.estimate == pytest.approx(right / kept)


def test_cuts_are_where_a_class_meets_what_it_keeps(decided: Snapshot) -> None:
    labels = newest_labels(decided)
    assert labels is not None
    balance = Balance(policy="cap", images_per_class=4, min_confidence=0.3)
    found = keep(counts_of(decided, labels), balance, decided.class_names)
    rows = decided.rows(
        "select class_id, confidence from candidates('t1', 2) where standing = 'candidate'"
    )
    for class_id in range(3):
        sure = sorted(
            (r["confidence"] for r in rows if r["class_id"] == class_id), reverse=True
        )
        assert found.cuts[class_id] < sure[3] <= found.cuts[class_id] + 0.0011


def test_a_histogram_has_every_label_that_may_be_chosen(decided: Snapshot) -> None:
    labels = newest_labels(decided)
    assert labels is not None
    counts = counts_of(decided, labels)

    assert sum(counts.histogram()) == 57  # two excluded, one corrected
    assert sum(sum(counts.histogram(class_id)) for class_id in range(3)) == 57
    assert counts_of(decided, labels) is counts


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, Balance()),
        ({"floor": "0.95", "quota": "12"}, Balance(min_confidence=0.95, images_per_class=12)),
        ({"total": "9", "power": "0.5", "quota": "3"}, Balance(total=9, power=0.5)),
        ({"power": "0.5"}, Balance()),
        ({"policy": "none", "total": "9"}, Balance(policy="none")),
        ({"policy": "x", "floor": "2", "quota": "0"}, Balance()),
    ],
)
def test_any_address_gives_a_balance(given: dict[str, str], wanted: Balance) -> None:
    assert read_balance(Address("/thresholds", given)) == wanted


def test_the_command_does_the_same_as_the_page(own: Store) -> None:
    opened = Snapshot(own)
    labels = newest_labels(opened)
    assert labels is not None
    balance = Balance(total=30, power=0.5, min_confidence=0.45)
    view = thresholds.save(own, labels, balance, "by-page")
    words = command(labels, balance, "by-command", str(own.root))
    split = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {words.removeprefix('plstore ')}"],
        capture_output=True,
        check=True,
        text=True,
    ).stdout.splitlines()
    done = shell(*split)

    assert done.returncode == 0, done.stderr
    other = plstore.open_view(own, "by-command")
    assert other.record.counts == view.record.counts
    assert other.record.parameters == view.record.parameters


def test_a_name_that_cannot_be_one_is_refused(decided: Snapshot) -> None:
    labels = newest_labels(decided)
    assert labels is not None
    with pytest.raises(InputError, match="view name 'A b'"):
        thresholds.save(decided.store, labels, Balance(), "A b")
