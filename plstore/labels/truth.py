"""What is known of validation images: their classes, as people corrected them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from plstore.codec import decode
from plstore.errors import InputError
from plstore.labels.label_sets import LabelSet

if TYPE_CHECKING:
    from plstore.store import Store

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Validation images of a known class that some teachers labeled, all of them all.

    Attributes:
        classes: int64 [images], the true ones.
        distributions: What each teacher says, one float32 [images, classes] a teacher.
    """

    classes: Ints
    distributions: list[Floats]


def corrected_labels(store: "Store", version: int | None = None) -> dict[int, int]:
    """Return the class that people last gave to images, by sample id."""
    rows = store.table("corrections").read(version=version).sort_by("decided_at")
    columns = (rows["sample_id"].to_pylist(), rows["label"].to_pylist())
    return dict(zip(*columns, strict=True))


def read_validation(store: "Store", teachers: Sequence[tuple[str, int]]) -> Validation:
    """Return what teachers say of the validation images, beside what they are.

    Args:
        store: The store.
        teachers: Ids, each with the iteration of its labels.

    Raises:
        InputError: If a teacher did not label the validation images, or none that has a class
            was labeled by all.
    """
    pins = store.versions(["soft_labels", "images", "corrections"])
    labels = [_labels(store, *teacher, pins["soft_labels"]) for teacher in teachers]
    ids, truth = _truth(store, pins)
    common = reduce(np.intersect1d, [table["sample_id"].to_numpy() for table in labels], ids)
    if not len(common):
        names = " and ".join(teacher_id for teacher_id, _ in teachers)
        raise InputError(
            f"none of the {len(ids)} validation images with a class was labeled by {names}; "
            "'plstore label --splits validation' labels what is missing"
        )
    return Validation(
        classes=truth[np.searchsorted(ids, common)],
        distributions=[_decoded(store, table, common) for table in labels],
    )


def _labels(store: "Store", teacher_id: str, iteration: int, version: int) -> pa.Table:
    label_set = LabelSet(iteration=iteration, teacher_id=teacher_id, split="validation")
    table = store.table("soft_labels")
    shards = table.shards(version, label_set.partition)
    if not shards:
        raise InputError(
            f"teacher {teacher_id!r} has no labels of the validation images in {store.root} "
            f"of iteration {iteration}; 'plstore label' makes them"
        )
    return (
        table.dataset_of(shards).to_table(columns=["sample_id", "label"]).sort_by("sample_id")
    )


def _decoded(store: "Store", labels: pa.Table, ids: Ints) -> Floats:
    places = np.searchsorted(labels["sample_id"].to_numpy(), ids)
    coded = labels["label"].combine_chunks().take(pa.array(places))
    return decode(coded, len(store.class_names))


def _truth(store: "Store", pins: Mapping[str, int]) -> tuple[Ints, Ints]:
    """Return the validation images, in order, and their classes as people corrected them."""
    images = store.table("images").read(
        version=pins["images"],
        columns=["sample_id", "label"],
        where=pc.field("split") == "validation",
    )
    images = images.sort_by("sample_id")
    corrected = corrected_labels(store, pins["corrections"])
    known = zip(images["sample_id"].to_pylist(), images["label"].to_pylist(), strict=True)
    found = [(n, corrected.get(n, label)) for n, label in known]
    labeled = [pair for pair in found if pair[1] is not None]
    columns = np.array(labeled, np.int64).reshape(-1, 2)
    return columns[:, 0].copy(), columns[:, 1].copy()
