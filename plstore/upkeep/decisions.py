"""What people decide: images that are not to be trained on, labels that were wrong."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

import numpy as np
import pyarrow as pa

from plstore.errors import InputError
from plstore.fingerprint import value_hash
from plstore.labels import corrected_labels

if TYPE_CHECKING:
    from plstore.store import Store

Decisions = Literal["exclusions", "corrections"]
"""The tables of what people decide."""


def exclude(store: "Store", sample_ids: Sequence[int], *, reason: str, who: str) -> int:
    """Keep images from selection and training; return how many were not excluded before.

    Raises:
        InputError: If an image is not in the store; nothing is written then.
    """
    ids = dict.fromkeys(sample_ids)
    check_images(store, list(ids))
    known = set(store.table("exclusions").read(columns=["sample_id"])["sample_id"].to_pylist())
    now = datetime.now(UTC)
    rows = [
        {"sample_id": sample_id, "reason": reason, "who": who, "decided_at": now}
        for sample_id in ids
        if sample_id not in known
    ]
    if rows:
        store.append("exclusions", rows, identity=uuid4().hex, step="exclude")
    return len(rows)


def correct(store: "Store", labels: Mapping[int, str], *, who: str) -> int:
    """Give images the labels that a person saw; return how many differ from those they had.

    The last correction of an image counts. A labeled or unlabeled image is trained on with that
    label, a validation or test image is evaluated with it.

    Raises:
        InputError: If an image or class is not in the store; nothing is written then.
    """
    check_images(store, list(labels))
    class_ids = store.ensure_classes(())
    if unknown := sorted(set(labels.values()) - class_ids.keys()):
        raise InputError(
            f"classes {', '.join(unknown)} are not in the store, which has "
            f"{', '.join(class_ids)}"
        )
    before, now = corrected_labels(store), datetime.now(UTC)
    rows = [
        {"sample_id": i, "label": class_ids[name], "who": who, "decided_at": now}
        for i, name in labels.items()
        if before.get(i) != class_ids[name]
    ]
    if rows:
        store.append("corrections", rows, identity=uuid4().hex, step="correct")
    return len(rows)


def take_back(store: "Store", table: Decisions, sample_ids: Sequence[int], *, who: str) -> int:
    """Take back the last decision that a person made of each image; return how many.

    What was decided of them before, or by others, counts again. Older versions of the table
    keep what was taken back.

    Args:
        store: The store.
        table: Which decisions.
        sample_ids: The images; one without such a decision stays as it is.
        who: Made the decisions.

    Raises:
        CommitConflictError: If another writer changed the same decisions at the same time.
    """
    found = store.table(table)
    version, shards = found.newest()
    rows = {shard.path: found.dataset_of([shard]).to_table() for shard in shards}
    last = _last_of(rows, set(sample_ids), who)
    places: dict[str, list[int]] = {}
    for path, place in last.values():
        places.setdefault(path, []).append(place)
    what = {"version": version, "rows": {path: sorted(p) for path, p in places.items()}}
    left = {path: _without(rows[path], places[path]) for path in places}
    if places:
        identity = value_hash(what)
        found.commit(
            [
                found.write_shard(f"part-{table}-{identity}-{n}", some)
                for n, some in enumerate(left.values())
                if some.num_rows
            ],
            lineage={"step": "take back", "who": who, "decisions": len(last)},
            transaction=f"take-back-{identity}",
            remove=[shard for shard in shards if shard.path in places],
        )
    return len(last)


def _last_of(
    rows: Mapping[str, pa.Table], sample_ids: AbstractSet[int], who: str
) -> dict[int, tuple[str, int]]:
    """Return the file, and the row in it, of each image's last decision by a person."""
    last: dict[int, tuple[datetime, str, int]] = {}
    for path, table in rows.items():
        columns = (table[name].to_pylist() for name in ("sample_id", "who", "decided_at"))
        for place, (sample_id, by, time) in enumerate(zip(*columns, strict=True)):
            if sample_id in sample_ids and by == who:
                last[sample_id] = max(
                    last.get(sample_id, (time, path, place)), (time, path, place)
                )
    return {sample_id: (path, place) for sample_id, (_, path, place) in last.items()}


def _without(rows: pa.Table, places: Sequence[int]) -> pa.Table:
    return rows.take(pa.array(np.setdiff1d(np.arange(rows.num_rows), places)))


def check_images(store: "Store", sample_ids: Sequence[int]) -> None:
    """Raise InputError unless all of these images are in the store."""
    wanted = np.array(sorted(set(sample_ids)), dtype=np.int64)
    if not len(wanted):
        return
    where = pa.compute.field("sample_id").isin(pa.array(wanted))
    found = store.table("images").read(columns=["sample_id"], where=where)["sample_id"]
    missing = np.setdiff1d(wanted, found.to_numpy())
    if len(missing):
        raise InputError(
            f"{len(missing)} of {len(wanted)} images are not in {store.root}, such as "
            f"sample_id {missing[0]}; nothing was written"
        )
