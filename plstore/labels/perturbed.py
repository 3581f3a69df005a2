"""Labels of perturbed images: what a teacher says of images that were made worse on purpose."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pyarrow as pa

from plstore.fingerprint import value_hash
from plstore.labels.label_sets import check_teacher_id
from plstore.schema import TABLES

if TYPE_CHECKING:
    from plstore.store import PartitionValues, Store

PerturbationKind = Literal["corruption", "sequence", "attack"]

_TABLE: Final = "perturbed_labels"


@dataclass(frozen=True, kw_only=True)
class PerturbedSet:
    """Whose labels, of which images, made worse how: a partition of `perturbed_labels`.

    Attributes:
        teacher_id: Who labels.
        split: Of the images.
        kind: Of the perturbation.
        perturbation: Its name, [a-z0-9_]+.
    """

    teacher_id: str
    split: str
    kind: PerturbationKind
    perturbation: str

    @property
    def partition(self) -> "PartitionValues":
        """Values of the partition columns."""
        return {**vars(self)}


def perturbed_rows(coded: pa.Table, level: float) -> pa.Table:
    """Return rows of `coded_rows` as rows of `perturbed_labels`.

    Args:
        coded: Labels of perturbed images.
        level: Of the perturbation: severity, number of the frame from 0, or epsilon.
    """
    levels = pa.array(np.full(len(coded), level, np.float32))
    schema = TABLES[_TABLE].file_schema
    return coded.append_column("level", levels).select(schema.names).cast(schema)


def has_perturbed(store: "Store", of: PerturbedSet, identity: str) -> bool:
    """Return whether labels of an identity are what a set holds now."""
    shards = store.table(_TABLE).shards(partition=of.partition)
    names = [shard.path.rpartition("/")[2] for shard in shards]
    return any(name.startswith(f"labels-{identity}-") for name in names)


def commit_perturbed(
    store: "Store",
    of: PerturbedSet,
    rows: pa.Table,
    identity: str,
    *,
    lineage: Mapping[str, Any],
) -> int:
    """Write the labels of a set in the place of those that it holds; return the version.

    Args:
        store: Where to.
        of: The set.
        rows: Of `perturbed_rows`.
        identity: Of all that they follow from, [a-z0-9]+: written twice they are there once.
        lineage: How they were made.

    Raises:
        InputError: If the teacher's id cannot be one.
        CommitConflictError: If one of the images was deleted meanwhile.
    """
    check_teacher_id(of.teacher_id)
    table = store.table(_TABLE)
    in_order = rows.sort_by([("level", "ascending"), ("sample_id", "ascending")])
    before = [shard.path for shard in table.shards(partition=of.partition)]
    where = value_hash({**vars(of), "before": before})  # what was replaced may come back
    shard = table.write_shard(f"labels-{identity}", in_order.combine_chunks(), of.partition)
    return table.commit(
        [shard],
        lineage={"step": "perturb", **vars(of), **lineage},
        transaction=f"perturbed-{identity}-{where}",
        replace=True,
    )
