"""The images of a run into its store: all of them, and of every class some to learn from."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from plstore.errors import InputError
from plstore.exchange import Source, import_source
from plstore.exchange.intake import Shows
from plstore.images import UNSTORED
from plstore.query import run_query
from plstore.schema import ACCEPTED
from plstore.store import Store

Outputs = dict[str, Any]


def import_for_run(store: Store, source: Source, *, max_pixels: int, display: Shows) -> Outputs:
    """Import the images of a run; return the version of `images` and what is in it.

    Raises:
        InputError: If the store has other images too, or none of a split or class that a run
            needs was accepted.
    """
    _check_store_is_its_own(store, source)
    imported = import_source(store, source, display, max_pixels=max_pixels)
    counts = _counts(store, source.dataset)
    _check_imported(store, counts["splits"])
    unread = {name: n for name in UNSTORED if (n := imported.counts.verdicts[name])}
    for what, number in {**imported.remarks, **counts["verdicts"], **unread}.items():
        display.say(f"  {what}: {number}")
    for conversion, number in counts["conversions"].items():
        display.say(f"  of these converted, {conversion}: {number}")
    return {"images_version": store.table("images").version(), **counts, "unread": unread}


def check_present(store: Store) -> Outputs:
    """Return the version of `images` and what is in it, for a run on what a store has.

    Raises:
        InputError: If none of a split or class that a run needs is there.
    """
    counts = _counts(store, None)
    _check_imported(store, counts["splits"])
    return {"images_version": store.table("images").version(), **counts, "unread": {}}


def _check_store_is_its_own(store: Store, source: Source) -> None:
    rows = store.table("images").read(
        columns=["dataset", "key"], where=pc.field("verdict") == ACCEPTED
    )
    if not rows.num_rows:
        return
    named = pc.is_in(rows["key"], value_set=pa.array(source.keys(), rows["key"].type))
    other = rows.filter(pc.invert(pc.and_(named, pc.equal(rows["dataset"], source.dataset))))
    if other.num_rows:
        raise InputError(
            f"{store.root} holds {other.num_rows} images that this recipe's data does not "
            f"name, such as {other['key'][0].as_py()!r}. A run uses all images of its store: "
            "name another --store, or take them out with 'plstore delete'; nothing was imported"
        )


def _check_imported(store: Store, splits: Mapping[str, int]) -> None:
    why = f"'plstore query run coverage/verdicts --store {store.root}' says why"
    for split in ("labeled", "unlabeled"):
        if not store.count_images(split):
            raise InputError(
                f"none of the {splits.get(split, 0)} {split} images was accepted; {why}"
            )
    where = (pc.field("split") == "labeled") & (pc.field("verdict") == ACCEPTED)
    rows = store.table("images").read(columns=["label"], where=where)
    taught = set(rows["label"].unique().to_pylist())
    lost = [name for number, name in enumerate(store.class_names) if number not in taught]
    if lost:
        raise InputError(
            f"{len(lost)} of {len(store.class_names)} classes have no labeled image that can "
            f"be used: {', '.join(lost)}. Nothing could learn them: add images of these "
            f"classes that can be read; {why}"
        )


def _counts(store: Store, dataset: str | None) -> dict[str, dict[str, int]]:
    # From the store, not from this import: an earlier one may have been stopped half-way.
    counts: dict[str, Counter[str]] = {
        "splits": Counter(),
        "verdicts": Counter(),
        "conversions": Counter(),
    }
    for row in run_query(store, "coverage/verdicts").to_pylist():
        if dataset in {None, row["dataset"]}:
            counts["splits"][row["split"]] += row["num_images"]
            counts["verdicts"][row["verdict"]] += row["num_images"]
            if row["conversion"] is not None:
                counts["conversions"][row["conversion"]] += row["num_images"]
    return {name: dict(sorted(counter.items())) for name, counter in counts.items()}
