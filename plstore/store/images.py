"""Images into the store: a verdict for each, a number for each, in order, once."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from plstore.errors import InputError
from plstore.fingerprint import content_hash, value_hash
from plstore.schema import ACCEPTED, SPLITS, TABLES
from plstore.store.shard import Claim
from plstore.store.table import SAMPLE_IDS
from plstore.store.verdict import (
    DEFAULT_MAX_PIXELS,
    Verdict,
    judge,
    large_images_are_verdicts,
)

if TYPE_CHECKING:
    from plstore.store.store import Store

_SHARD_ROWS = 8192
_SHARD_BYTES = 256 << 20
_BATCH_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """One image to import.

    Attributes:
        key: Its name in the dataset: unique there, such as a path below the folder.
        split: "labeled", "unlabeled", "validation" or "test".
        data: The file's bytes.
        label: Class name, where it is known to training and evaluation.
        truth: Class name that only evaluation queries may read.
        place: Where the file is, as an absolute path or URL: for imports in place.
    """

    key: str
    split: str
    data: bytes
    label: str | None = None
    truth: str | None = None
    place: str | None = None


@dataclass(kw_only=True)
class ImportCounts:
    """What became of the images of one import.

    Every image is counted once, in `verdicts`, `already_there` or `deleted`: one that was
    deleted from the store, by its name or its contents, does not come back.
    """

    already_there: int = 0
    deleted: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    conversions: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)


def import_images(
    store: "Store",
    records: Iterable[ImageRecord],
    *,
    dataset: str,
    class_names: Sequence[str],
    max_pixels: int = DEFAULT_MAX_PIXELS,
    in_place: bool = False,
    on_progress: Callable[[int], None] = lambda _: None,
) -> ImportCounts:
    """Import images; those already there, by dataset and key, are skipped.

    Images are numbered in the order they come and committed shard by shard, so an import that
    was stopped goes on where its last shard ended.

    Args:
        store: Where to.
        records: The images, in an order that is the same every time.
        dataset: Name of the collection; keys are unique in it.
        class_names: The label space; the first import into a store fixes it.
        max_pixels: Images of more pixels are refused.
        in_place: Keep where images are, their size and their hash, but not their bytes. The
            files must stay there, unchanged.
        on_progress: Called with the number of images just finished.

    Raises:
        InputError: If a class or split is unknown, a key is there with other contents, or
            images to be left in place are not files of their own.
        CommitConflictError: If another import ran at the same time; run it again.
    """
    class_ids = {name: number for number, name in enumerate(class_names)}
    if store.table("classes").dataset().count_rows() or len(class_ids) != len(class_names):
        class_ids = store.ensure_classes(class_names)  # else with the first images
    writer = _Writer(store, dataset, class_ids, max_pixels)
    writer.in_place = in_place
    with large_images_are_verdicts():
        for record, digest, verdict in _judged(records, writer, max_pixels):
            on_progress(1)
            known = writer.known.get(record.key)
            if {record.key, digest} & writer.deleted:
                writer.counts.deleted += 1
            elif known is not None or verdict is None:
                writer.meet_again(record, writer.known[record.key], digest)
            else:
                writer.add(record, digest, verdict)
    writer.flush()
    return writer.counts


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What the store has of an image that an import names again."""

    sample_id: int
    digest: str
    split: str
    label: int | None
    refused_for_size: bool
    num_pixels: int

    @classmethod
    def of_row(cls, row: dict[str, Any]) -> "_Known":
        return cls(
            sample_id=row["sample_id"],
            digest=row["content_hash"],
            split=row["split"],
            label=row["label"],
            refused_for_size=row["verdict"] == "over_pixel_limit",
            num_pixels=row["width"] * row["height"],
        )


class _Writer:
    """Numbers images and commits them shard by shard."""

    def __init__(
        self, store: "Store", dataset: str, class_ids: dict[str, int], max_pixels: int
    ) -> None:
        self._max_pixels = max_pixels
        self.in_place = False
        self.deleted = _deleted_images(store, dataset)
        self.counts = ImportCounts()
        self.known = _known_images(store, dataset)
        self._store = store
        self._dataset = dataset
        self._class_ids = class_ids
        self._next_id = store.next_sample_id()
        self._with_truth = set(store.table("truth").read()["sample_id"].to_pylist())
        self._rows: list[dict[str, Any]] = []
        self._truths: list[dict[str, Any]] = []
        self._num_bytes = 0

    def meet_again(self, record: ImageRecord, known: "_Known", digest: str) -> None:
        label = None if record.label is None else self._class_ids.get(record.label)
        stored = {"contents": known.digest, "split": known.split, "label": known.label}
        found = {"contents": digest, "split": record.split, "label": label}
        changed = [f"{k} {stored[k]}, now {found[k]}" for k in found if stored[k] != found[k]]
        if known.refused_for_size and 0 < known.num_pixels <= self._max_pixels:
            changed.append(f"refused for its {known.num_pixels} pixels, now within the limit")
        if changed:
            raise InputError(
                f"image {record.key!r} of dataset {self._dataset!r} is in the store with "
                f"{'; '.join(changed)}. Use a new store to change it"
            )
        self.counts.already_there += 1
        if known.sample_id not in self._with_truth:  # stopped between images and truth
            self._note_truth(record, known.sample_id)

    def add(self, record: ImageRecord, digest: str, verdict: Verdict) -> None:
        row = _row(record, verdict, self._class_ids)
        if self.in_place:
            row["image"] = {"bytes": None, "path": _place(record)}
        row |= {"sample_id": self._next_id, "dataset": self._dataset, "content_hash": digest}
        self._note_truth(record, self._next_id)
        self._rows.append(row)
        self.known[record.key] = _Known.of_row(row)
        self._next_id += 1
        self._num_bytes += 0 if self.in_place else len(verdict.data or b"")
        self.counts.verdicts[verdict.verdict] += 1
        self.counts.splits[record.split] += 1
        if verdict.conversion is not None:
            self.counts.conversions[verdict.conversion] += 1
        if len(self._rows) >= _SHARD_ROWS or self._num_bytes >= _SHARD_BYTES:
            self.flush()

    def _note_truth(self, record: ImageRecord, sample_id: int) -> None:
        if record.truth is not None:
            label = _class_id(record.truth, self._class_ids, record.key)
            self._truths.append({"sample_id": sample_id, "label": label})
            self._with_truth.add(sample_id)

    def flush(self) -> None:
        """Commit the images, then their truth: numbers are sure once the images are in."""
        if self._rows:
            self._store.ensure_classes(list(self._class_ids))
            first, last = self._rows[0]["sample_id"], self._rows[-1]["sample_id"]
            images = [(row["key"], row["content_hash"]) for row in self._rows]
            identity = value_hash({"dataset": self._dataset, "images": images})
            claim = Claim(name=SAMPLE_IDS, start=first, end=last + 1)
            self._commit("images", self._rows, f"{first:012d}-{identity}", claim)
        if self._truths:
            self._commit("truth", self._truths, value_hash({"truths": self._truths}), None)
        self._rows, self._truths, self._num_bytes = [], [], 0

    def _commit(
        self, table: str, rows: list[dict[str, Any]], identity: str, claim: Claim | None
    ) -> None:
        ids = [rows[0]["sample_id"], rows[-1]["sample_id"]]
        lineage = {"step": "import", "dataset": self._dataset, "sample_ids": ids}
        content = pa.Table.from_pylist(rows, schema=TABLES[table].columns)
        self._store.table(table).append(
            content, lineage=lineage, transaction=f"{table}-{identity}", claim=claim
        )


def _judged(
    records: Iterable[ImageRecord], writer: _Writer, max_pixels: int
) -> Iterator[tuple[ImageRecord, str, Verdict | None]]:
    """Yield records with their hash and, unless they are in the store, their verdict."""

    def work(record: ImageRecord) -> tuple[ImageRecord, str, Verdict | None]:
        digest = content_hash(record.data)
        if record.key in writer.known or {record.key, digest} & writer.deleted:
            return record, digest, None
        return record, digest, judge(record.data, max_pixels=max_pixels)

    source = iter(records)
    with ThreadPoolExecutor() as pool:
        while batch := list(islice(source, _BATCH_ROWS)):
            yield from pool.map(work, batch)


def _known_images(store: "Store", dataset: str) -> dict[str, _Known]:
    """Return what the store has of a dataset, by key."""
    where = pa.compute.field("dataset") == dataset
    columns = [
        "key",
        "sample_id",
        "content_hash",
        "split",
        "label",
        "verdict",
        "width",
        "height",
    ]
    rows = store.table("images").read(columns=columns, where=where).to_pylist()
    return {row["key"]: _Known.of_row(row) for row in rows}


def _deleted_images(store: "Store", dataset: str) -> set[str]:
    """Return names and content hashes that may not come back."""
    rows = store.table("deletions").read(columns=["dataset", "key", "content_hash"]).to_pylist()
    names = {row["key"] for row in rows if row["dataset"] == dataset}
    return names | {row["content_hash"] for row in rows}


def _place(record: ImageRecord) -> str:
    if record.place is None:
        raise InputError(
            f"image {record.key!r} is no file of its own, so it cannot be left in place; "
            "import it with its bytes"
        )
    return record.place


def _class_id(name: str, class_ids: dict[str, int], key: str) -> int:
    if name not in class_ids:
        raise InputError(
            f"image {key!r} has the class {name!r}; the store's classes are "
            f"{', '.join(class_ids)}"
        )
    return class_ids[name]


def _row(record: ImageRecord, verdict: Verdict, class_ids: dict[str, int]) -> dict[str, Any]:
    if record.split not in SPLITS:
        raise InputError(
            f"image {record.key!r} has the split {record.split!r}; wanted one of "
            f"{', '.join(SPLITS)}"
        )
    label = None if record.label is None else _class_id(record.label, class_ids, record.key)
    if label is None and record.split != "unlabeled" and verdict.verdict == ACCEPTED:
        raise InputError(f"image {record.key!r} of split {record.split!r} has no label")
    return {
        "key": record.key,
        "split": record.split,
        "label": label,
        "image": {"bytes": verdict.data, "path": record.key},
        "width": verdict.width,
        "height": verdict.height,
        "num_bytes": len(record.data),
        "verdict": verdict.verdict,
        "conversion": verdict.conversion,
    }
