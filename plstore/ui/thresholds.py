"""The page Thresholds: its balance as a URL, as a command, and as a view that is kept."""

import shlex
from typing import Final

from plstore.labels import LabelSet
from plstore.report.snapshot import labels_name
from plstore.selection import Balance, Selection, select
from plstore.store import Store
from plstore.ui.address import Address
from plstore.views import View

POLICIES: Final = {
    "exact": "exact: fewer are copied up to the quota",
    "cap": "cap: at most the quota, once each",
    "none": "none: all above the floor",
}
_DIGITS: Final = 3  # a floor falls between two buckets


def read_balance(address: Address) -> Balance:
    """Return the floor and balance that a URL names; what goes with nothing is left out."""
    floor = address.number("floor", high=0.999)
    policy = address.text("policy", "exact")
    total = address.whole("total") or None
    power = address.number("power") or 0.0
    return Balance(
        policy=policy if policy in POLICIES else "exact",  # type: ignore[arg-type]  # one of them
        min_confidence=round(0.3 if floor is None else floor, _DIGITS),
        images_per_class=None
        if total or policy == "none"
        else (address.whole("quota") or None),
        total=None if policy == "none" else total,
        power=power if total and policy != "none" else 0.0,
    )


def command(labels: LabelSet, balance: Balance, view: str, store: str) -> str:
    """Return the command that selects the same."""
    words = ["plstore", "select", view or "VIEW", "--teacher", labels_name(labels)]
    words += ["--min-confidence", f"{balance.min_confidence:g}"]
    if balance.policy != "exact":
        words += ["--policy", balance.policy]
    if balance.images_per_class is not None:
        words += ["--images-per-class", str(balance.images_per_class)]
    if balance.total is not None:
        words += ["--total", str(balance.total)]
    if balance.power:
        words += ["--power", f"{balance.power:g}"]
    return shlex.join([*words, "--store", store])


def save(store: Store, labels: LabelSet, balance: Balance, view: str) -> View:
    """Select, and keep what comes of it as a view.

    Raises:
        InputError: If the name cannot be one, or nothing is left.
    """
    selection = Selection(view=view, teachers=[labels_name(labels)], balance=balance)
    return select(store, selection)
