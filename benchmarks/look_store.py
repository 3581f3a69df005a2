"""A store of many images to look at: real image bytes, two teachers, views, curves, a run.

Its images are the bundled sample over and over, each with its own number in a text chunk of its
PNG, so that no two have the same bytes or hash. Labels are drawn around the true classes, those
of the second teacher nearer to them. Every piece is a commit that is made once: a build that
was stopped goes on.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

import plstore
from plstore.codec import Codec
from plstore.fingerprint import content_hash
from plstore.labels import (
    LabelBatch,
    LabelSet,
    TeacherRecord,
    add_teacher,
    commit_labels,
    find_teacher,
    write_labels,
)
from plstore.report.runs import keep_run
from plstore.schema import TABLES
from plstore.seeds import Purpose, generator
from plstore.selection import Balance, Selection, select
from plstore.store import SAMPLE_IDS, Claim, Store
from plstore.views import View
from trainers.data import FASHION_MNIST_CLASSES, sample_folder

TEACHERS: Final = ("t0", "t1")
_IMAGES_A_FILE: Final = 8192
_ROWS_A_BATCH: Final = 65_536
_HELD_SHARE: Final = 100  # one image of so many is labeled; as many validate, and test
_FLOOR: Final = 0.5
_SHARPNESS: Final = (2.2, 2.8)  # of the first teacher's labels, and the second's
_STEPS: Final = 200
_IEND: Final = 12  # bytes of the last chunk of a PNG


@dataclass(frozen=True)
class Sample:
    """The bundled images: their bytes, and the true class of each."""

    files: Sequence[bytes]
    classes: npt.NDArray[np.int64]

    @classmethod
    def read(cls) -> "Sample":
        """Read those whose class is known."""
        folder = sample_folder()
        tables = [pq.read_table(folder / f"{name}.parquet") for name in ("test", "unlabeled")]
        labels = [tables[0]["label"], pq.read_table(folder / "truth.parquet")["label"]]
        files = [row["bytes"] for table in tables for row in table["image"].to_pylist()]
        return cls(files, np.concatenate([column.to_numpy() for column in labels]))

    def file(self, number: int) -> bytes:
        """Return the bytes of an image of the store."""
        data = self.files[number % len(self.files)]
        body = b"tEXtnumber\0" + str(number).encode()
        chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        return data[:-_IEND] + chunk + data[-_IEND:]

    def classes_of(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the true classes of images of the store."""
        return self.classes[numbers % len(self.classes)]


def splits(num_images: int) -> dict[str, range]:
    """Return the sample ids of each split."""
    held = max(num_images // _HELD_SHARE, 20)
    names = ("labeled", "validation", "test")
    found = {name: range(n * held, (n + 1) * held) for n, name in enumerate(names)}
    return {**found, "unlabeled": range(3 * held, num_images)}


def build(home: Path, num_images: int) -> Store:
    """Make the store, or what is left to make of it; return it."""
    path = home / f"store-{num_images}"
    store = plstore.open(path) if path.exists() else plstore.create(path)
    store.ensure_classes(FASHION_MNIST_CLASSES)
    sample = Sample.read()
    _add_images(store, sample, num_images)
    views: list[View] = []
    for iteration, name in enumerate(TEACHERS, start=1):
        _add_labels(store, sample, splits(num_images), iteration)
        trained_on = views[-1] if views else None
        _add_teacher(store, name, iteration - 1, trained_on)
        views.append(_add_view(store, f"view-{iteration}", name, iteration, num_images))
    _add_curves(store)
    keep_run(store, "look", _result(views), _rows())
    return store


def _add_images(store: Store, sample: Sample, num_images: int) -> None:
    table, of = store.table("images"), splits(num_images)
    for number, first in enumerate(range(0, num_images, _IMAGES_A_FILE)):
        name = f"images-{number}"
        if table.transaction(name) is not None:
            continue
        ids = np.arange(first, min(first + _IMAGES_A_FILE, num_images))
        shard = table.write_shard(f"part-{number:06d}", _image_rows(sample, ids, of))
        claim = Claim(name=SAMPLE_IDS, start=first, end=int(ids[-1]) + 1)
        table.commit([shard], lineage={"step": "import"}, transaction=name, claim=claim)


def _image_rows(sample: Sample, ids: npt.NDArray[np.int64], of: dict[str, range]) -> pa.Table:
    numbers = ids.tolist()
    files = [sample.file(number) for number in numbers]
    names = [next(name for name, here in of.items() if number in here) for number in numbers]
    hidden = np.array([name == "unlabeled" for name in names])
    keys = [f"{split}/{n:07d}.png" for split, n in zip(names, numbers, strict=True)]
    count = len(numbers)
    columns: dict[str, Any] = {
        "sample_id": pa.array(ids),
        "dataset": pa.repeat(pa.scalar("fashion"), count),
        "key": keys,
        "split": names,
        "label": pa.array(sample.classes_of(ids), pa.int32(), mask=hidden),
        "image": pa.StructArray.from_arrays(
            [pa.array(files), pa.nulls(count, pa.string())], names=["bytes", "path"]
        ),
        "width": pa.repeat(pa.scalar(28, pa.int32()), count),
        "height": pa.repeat(pa.scalar(28, pa.int32()), count),
        "num_bytes": pa.array([len(data) for data in files], pa.int64()),
        "content_hash": [content_hash(data) for data in files],
        "verdict": pa.repeat(pa.scalar("accepted"), count),
        "conversion": pa.nulls(count, pa.string()),
    }
    return pa.table(columns, schema=TABLES["images"].columns)


def _add_labels(store: Store, sample: Sample, of: dict[str, range], iteration: int) -> None:
    teacher = TEACHERS[iteration - 1]
    for split in ("unlabeled", "validation", "test"):
        name = f"{teacher}-{iteration}-{split}"
        if store.table("soft_labels").transaction(name) is not None:
            continue
        label_set = LabelSet(teacher_id=teacher, iteration=iteration, split=split)
        batches = _batches(sample, of[split], iteration)
        shards = write_labels(store, label_set, batches, codec=Codec(), identity=name)
        lineage = {"step": "label", "teacher_id": teacher, "iteration": iteration}
        commit_labels(store, shards, lineage=lineage, transaction=name)


def _batches(sample: Sample, ids: range, iteration: int) -> Iterator[LabelBatch]:
    """Yield distributions; what is hard of an image is so for both teachers."""
    for first in range(ids.start, ids.stop, _ROWS_A_BATCH):
        here = np.arange(first, min(first + _ROWS_A_BATCH, ids.stop))
        shape = len(here), len(FASHION_MNIST_CLASSES)
        shared = generator(0, Purpose.SAMPLE, first).normal(size=shape)
        own = generator(iteration, Purpose.SAMPLE, first).normal(size=shape)
        logits = 1.1 * shared + 0.7 * own
        logits[np.arange(len(here)), sample.classes_of(here)] += _SHARPNESS[iteration - 1]
        exponents = np.exp(2 * (logits - logits.max(axis=1, keepdims=True)))
        probabilities = exponents / exponents.sum(axis=1, keepdims=True)
        yield LabelBatch(sample_ids=here, probabilities=probabilities.astype(np.float32))


def _add_teacher(store: Store, name: str, iteration: int, trained_on: View | None) -> None:
    if find_teacher(store, name) is not None:
        return
    record = TeacherRecord(
        teacher_id=name,
        iteration=iteration,
        role="teacher" if trained_on is None else "student",
        architecture="none: labels are drawn",
        view=None if trained_on is None else trained_on.record.view,
        view_version=None if trained_on is None else trained_on.record.version,
    )
    add_teacher(store, record, identity=name, step="train")


def _add_view(store: Store, view: str, teacher: str, iteration: int, num_images: int) -> View:
    quota = max(num_images // 20, 1)
    balance = Balance(min_confidence=_FLOOR, images_per_class=quota)
    selection = Selection(view=view, teachers=[f"{teacher}@{iteration}"], balance=balance)
    return select(store, selection, identity=view)


def _add_curves(store: Store) -> None:
    rows = [
        {"run": name, "step": step, "name": metric, "value": value}
        for name in TEACHERS
        for step in range(1, _STEPS + 1)
        for metric, value in (
            ("train/loss", 2 / step),
            ("validation/accuracy", 100 - 40 / step),
        )
    ]
    rows += [
        {"run": name, "step": _STEPS, "name": "test_accuracy", "value": 80.0 + 2 * place}
        for place, name in enumerate(TEACHERS)
    ]
    store.append("runs", rows, identity="curves", step="train")


def _result(views: Sequence[View]) -> dict[str, Any]:
    """Return what a run of these models would have said of them."""
    first, _ = views
    student = {
        "teacher_id": "t1",
        "iteration": 1,
        "view": first.record.view,  # its identity too
        "taught_by": "t0",
        "min_confidence": _FLOOR,
        "counts": first.record.counts,
        "architecture": "none: labels are drawn",
        "test_accuracy": 82.0,
        "validation_accuracy": 82.0,
    }
    return {
        "recipe": "a store to look at",
        "recipe_hash": "look",
        "code_version": plstore.__version__,
        "seed": 0,
        "run_seconds": 0,
        "best": "t1",
        "teacher": {"teacher_id": "t0", "test_accuracy": 80.0, "validation_accuracy": 80.0},
        "control": None,
        "students": [student],
        "imported": {"verdicts": {}, "conversions": {}, "splits": {}},
    }


def _rows() -> list[dict[str, object]]:
    return [{"model": name, "test accuracy": 80.0 + 2 * n} for n, name in enumerate(TEACHERS)]
