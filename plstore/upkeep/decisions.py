"""What people decide: images that are not to be trained on, labels that were wrong."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
import pyarrow as pa

from plstore.errors import InputError
from plstore.labels import corrected_labels

if TYPE_CHECKING:
    from plstore.store import Store


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
