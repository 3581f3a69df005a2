"""What pages ask for again and again, kept in memory by a snapshot: some bytes a row.

Of labels the numbers that people filter and sort by, without the distributions; of images their
split, class and verdict; of two sets of labels how far they are apart. A table of a million
labels is asked in milliseconds so. What is too much for it is read from the store each time.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from plstore.codec import decode
from plstore.labels import LabelSet
from plstore.query.functions import jensen_shannon
from plstore.report.snapshot import Snapshot
from plstore.store import Shard

_WHOLE_BYTES: Final = 64 << 20
"""Of distributions over all classes that are compared at once, of each of the two sets."""

_OF_LABELS: Final = """
select sample_id, class_id, confidence, entropy,
    (label.probs[1] - coalesce(label.probs[2], 0))::float as lead
from soft_labels
where teacher_id = ${name}_teacher and iteration = ${name}_iteration and split = ${name}_split
"""
_OF_IMAGES: Final = "select sample_id, split, label, verdict from images"
_KNOWN: Final = """
select k.sample_id, coalesce(c.label, k.label)::int as class_id, null::float as confidence
from {images} as k
left join (
    select sample_id, arg_max(label, decided_at) as label from corrections group by all
) as c on k.sample_id = c.sample_id
where coalesce(c.label, k.label) is not null
"""
_OF_VIEW: Final = (
    "select sample_id from view_rows where view = $name_view and version = $name_version"
)
_OF_BOTH: Final = """
select a.sample_id, js(a.label, b.label) as divergence
from soft_labels as a
inner join soft_labels as b on a.sample_id = b.sample_id
where a.teacher_id = ${name}_teacher and a.iteration = ${name}_iteration
    and a.split = ${name}_split and b.teacher_id = ${name}_other
    and b.iteration = ${name}_other_iteration and b.split = ${name}_split
"""


@dataclass(frozen=True)
class Source:
    """Something to select from: the name of a table, or a SELECT with its parameters."""

    sql: str
    parameters: Mapping[str, Any]


def labels_source(snapshot: Snapshot, labels: LabelSet, name: str) -> Source:
    """Return labels: sample_id, class_id, confidence, entropy and lead.

    Args:
        snapshot: Of the store.
        labels: Whose.
        name: Start of the names of parameters.
    """
    sql, values = _OF_LABELS.format(name=name), _values(labels, name)
    num_rows = snapshot.num_labels.get(labels, 0)
    table = snapshot.hold(labels, num_rows, lambda: snapshot.table(sql, values))
    return Source(f"({sql})", values) if table is None else Source(table, {})


def images_source(snapshot: Snapshot) -> Source:
    """Return all images: sample_id, split, label and verdict."""
    num_rows = snapshot.store.next_sample_id()
    table = snapshot.hold("images", num_rows, lambda: snapshot.table(_OF_IMAGES))
    return Source(f"({_OF_IMAGES})" if table is None else table, {})


def known_source(snapshot: Snapshot) -> Source:
    """Return what people say: sample_id, class_id, and no confidence."""
    return Source(f"({_KNOWN.format(images=images_source(snapshot).sql)})", {})


def view_source(snapshot: Snapshot, view: str, version: int, num_rows: int) -> Source:
    """Return the sample_id of a view's images."""
    values = {"name_view": view, "name_version": version}
    key = ("view", view, version)
    table = snapshot.hold(key, num_rows, lambda: snapshot.table(_OF_VIEW, values))
    return Source(f"({_OF_VIEW})", values) if table is None else Source(table, {})


def divergence_source(snapshot: Snapshot, a: LabelSet, b: LabelSet, name: str) -> Source:
    """Return how far two sets of labels are apart: sample_id and divergence, in nats."""
    num_rows = min(snapshot.num_labels.get(labels, 0) for labels in (a, b))
    table = snapshot.hold(("js", a, b), num_rows, lambda: _divergences(snapshot, a, b))
    if table is not None:
        return Source(table, {})
    other = {f"{name}_other": b.teacher_id, f"{name}_other_iteration": b.iteration}
    return Source(f"({_OF_BOTH.format(name=name)})", {**_values(a, name), **other})


def _values(labels: LabelSet, name: str) -> dict[str, Any]:
    return {
        f"{name}_teacher": labels.teacher_id,
        f"{name}_iteration": labels.iteration,
        f"{name}_split": labels.split,
    }


def _divergences(snapshot: Snapshot, a: LabelSet, b: LabelSet) -> pa.Table:
    """Compare files that hold labels of the same images: whole, few distributions at a time."""
    kind = [("sample_id", pa.int64()), ("divergence", pa.float32())]
    parts = [pa.table(columns, pa.schema(kind)) for columns in _pairs(snapshot, a, b)]
    return pa.concat_tables(parts) if parts else pa.schema(kind).empty_table()


def _pairs(snapshot: Snapshot, a: LabelSet, b: LabelSet) -> Iterator[list[pa.Array]]:
    for mine in _shards(snapshot, a):
        theirs = [
            shard
            for shard in _shards(snapshot, b)
            if shard.first_id <= mine.last_id and shard.last_id >= mine.first_id
        ]
        if not theirs:
            continue
        ours, others = _labels(snapshot, [mine]), _labels(snapshot, theirs)
        both, at, there = np.intersect1d(ours[0], others[0], return_indices=True)
        size = len(snapshot.class_names)
        step = max(_WHOLE_BYTES // (4 * size), 1)
        for start in range(0, len(both), step):
            here = slice(start, start + step)
            rows = [
                decode(labels.take(pa.array(places[here])), size)
                for labels, places in ((ours[1], at), (others[1], there))
            ]
            yield [pa.array(both[here]), pa.array(jensen_shannon(*rows))]


def _shards(snapshot: Snapshot, labels: LabelSet) -> list[Shard]:
    table = snapshot.store.table("soft_labels")
    return table.shards(snapshot.pins["soft_labels"], labels.partition)


def _labels(snapshot: Snapshot, shards: list[Shard]) -> tuple[Any, pa.StructArray]:
    rows = snapshot.store.table("soft_labels").dataset_of(shards)
    found = rows.to_table(columns=["sample_id", "label"]).combine_chunks()
    return found["sample_id"].to_numpy(), found["label"].combine_chunks()
