"""A store as people look at it: two teachers, a view, decisions, measurements."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import plstore
from plstore.images import import_images
from plstore.labels import TeacherRecord, add_teacher
from plstore.report.snapshot import Snapshot
from plstore.store import Store
from tests.conftest import CLASS_NAMES, give_labels, make_records


def filled_with_classes(path: Path, class_names: Sequence[str]) -> Store:
    """Make a store of images of three classes of these names, and fill it."""
    store = plstore.create(path)
    renamed: dict[str | None, str | None] = dict(zip(CLASS_NAMES, class_names, strict=True))
    renamed[None] = None
    records = [
        replace(record, label=renamed[record.label], truth=renamed[record.truth])
        for record in make_records()
    ]
    import_images(store, records, dataset="pets", class_names=class_names)
    fill(store)
    return store


def fill(store: Store) -> Snapshot:
    """Give a store of three classes labels of two iterations, and a view of the later ones."""
    for iteration, name in enumerate(("t0", "t1"), start=1):
        record = TeacherRecord(
            teacher_id=name,
            iteration=iteration - 1,
            role="student" if iteration > 1 else "teacher",
            architecture="net",
            view="first" if iteration > 1 else None,
            view_version=1 if iteration > 1 else None,
        )
        add_teacher(store, record, identity=name, step="train")
        give_labels(store, name, iteration)
        give_labels(store, name, iteration, split="validation")
        if iteration == 1:
            select(store, "first", "t0@1")
    select(store, "second", "t1@2")
    rows = [
        {"run": name, "step": step, "name": "train/loss", "value": 1 / step}
        for name in ("t0", "t1")
        for step in (1, 2, 3)
    ]
    rows += [{"run": "t1", "step": 0, "name": "test_accuracy", "value": 81.5}]
    store.append("runs", rows, identity="runs", step="train")
    return Snapshot(store)


def select(store: Store, view: str, teacher: str) -> None:
    balance = plstore.Balance(min_confidence=0.5, images_per_class=9)
    plstore.select(store, plstore.Selection(view=view, teachers=[teacher], balance=balance))


def sure(
    num_images: int, classes: list[int]
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Return distributions of three classes, each sure of one."""
    found = np.zeros((num_images, 3), np.float32)
    found[np.arange(num_images), np.resize(classes, num_images)] = 1
    return found
