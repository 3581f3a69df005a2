"""A selection, decided and not yet written: what the ways to choose have in common."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from plstore.errors import StoreError
from plstore.selection.balance import Counts
from plstore.store import Store

Rows = Iterator[pa.RecordBatch]

ROW_BYTES = 300
"""Of a row of a view by reference in memory: a label of 20 classes, and the image's place."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A selection, decided and not yet written.

    Attributes:
        query: What decided, by name.
        sql: Its text, as it is run.
        parameters: All that it was told.
        counts: Images by what becomes of them, with a reason for every drop, and by class.
        rows: Yields what is kept, by ascending sample id: sample_id, class_id, confidence,
            copies, label and, where it is not 1, weight.
        row_bytes: About what one takes in memory, its image aside.
    """

    query: str
    sql: str
    parameters: Mapping[str, Any]
    counts: Mapping[str, Any]
    rows: Callable[[], Rows]
    row_bytes: int = ROW_BYTES


def as_many(rows: Rows, wanted: int, store: Store) -> Rows:
    """Yield rows, and stop if they are not as many as the counts beside the labels said."""
    found = 0
    for batch in rows:
        found += batch.num_rows
        yield batch
    if found != wanted:
        raise StoreError(
            f"{found} labels are selected and {wanted} were counted. If it happens again, what "
            f"is kept in {store.work_folder('histograms')} is not true of the labels: delete "
            "it (it is made again). Nothing was written"
        )


def by_class(store: Store, **counts: Counts) -> dict[str, Any]:
    """Return counts by class for a view's record, and the classes that have no candidate."""
    names = store.class_names
    empty = np.flatnonzero(counts.get("candidates", counts["kept"]) == 0).tolist()
    return {
        **{f"{name}_by_class": values.tolist() for name, values in counts.items()},
        "classes_without_candidate": [names[class_id] for class_id in empty],
    }


def outcome_counts(
    store: Store, outcomes: Sequence[Mapping[str, Any]], dropped: Mapping[str, int]
) -> dict[str, Any]:
    """Return the counts of a choice whose outcomes were counted by class.

    Args:
        store: The store.
        outcomes: By class and outcome: n, draws, and weight, the sum of copies times weight.
        dropped: Images by the reason.
    """
    size = len(store.class_names)
    predicted, kept, draws = (np.zeros(size, np.int64) for _ in range(3))
    weight = Decimal(0)
    for row in outcomes:
        predicted[row["class_id"]] += row["n"]
        if row["outcome"] == "kept":
            kept[row["class_id"]] += row["n"]
            draws[row["class_id"]] += row["draws"]
            weight += row["weight"]
    total = int(draws.sum())
    named = {why: n for why, n in sorted(dropped.items()) if n}
    return {
        "in": int(kept.sum()) + sum(named.values()),
        "kept": int(kept.sum()),
        "dropped": named,
        "draws": total,
        **({"mean_weight": round(float(weight) / total, 4)} if weight != total else {}),
        **by_class(store, predicted=predicted, kept=kept, draws=draws),
    }
