"""Labels of one's own that are probably wrong: what held-out fits say of labeled images."""

from typing import Final

import numpy as np
import numpy.typing as npt

from plstore.codec import Codec
from plstore.labels import (
    LabelBatch,
    LabelSet,
    TeacherRecord,
    add_teacher,
    commit_labels,
    find_teacher,
    write_labels,
)
from plstore.query import run_query
from plstore.store import Store
from trainers.features.folds import FOLDS, Folded
from trainers.training.keeping import Place

QUERY: Final = "calibration/likely_label_errors"
ITERATION: Final = 0
"""Of the labels of labeled images: no student learns from them."""


def folds_teacher(teacher_id: str) -> str:
    """Return the name under which a probe's held-out fits are kept."""
    return f"{teacher_id}-folds"


def keep_folds(
    store: Store, folded: Folded, sample_ids: npt.NDArray[np.int64], place: Place
) -> None:
    """Keep what held-out fits say of labeled images, as soft labels of a teacher of its own.

    Done twice it leaves them once.

    Args:
        store: The store.
        folded: Of the examples.
        sample_ids: int64 [examples], of the images.
        place: As what the probe is kept whose fits they are.
    """
    name, ids = folds_teacher(place.teacher_id), sample_ids[folded.rows]
    if find_teacher(store, name) is not None:
        return
    order = np.argsort(ids)
    batch = LabelBatch(sample_ids=ids[order], probabilities=folded.probabilities[order])
    label_set = LabelSet(iteration=ITERATION, teacher_id=name, split="labeled")
    identity = f"{place.identity}-folds"
    shards = write_labels(store, label_set, [batch], codec=Codec(), identity=identity)
    lineage = {
        "step": "folds",
        "teacher_id": name,
        "iteration": ITERATION,
        "of": place.teacher_id,
        "strength": folded.strength,
    }
    commit_labels(store, shards, lineage=lineage, transaction=identity)
    record = TeacherRecord(
        teacher_id=name,
        iteration=ITERATION,
        role="predictions",
        metrics={"folds": FOLDS, "strength": folded.strength, "nll": folded.nll},
    )
    add_teacher(store, record, identity=identity, step="folds")


def count_doubted(store: Store, teacher_id: str) -> int | None:
    """Return how many labeled images a probe's held-out fits would file elsewhere.

    None where there were no such fits.
    """
    name = folds_teacher(teacher_id)
    if find_teacher(store, name) is None:
        return None
    return int(run_query(store, QUERY, teacher_id=name, iteration=ITERATION).num_rows)
