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
    """

    key: str
    split: str
    data: bytes
    label: str | None = None
    truth: str | None = None


@dataclass(kw_only=True)
class ImportCounts:
    """What became of the images of one import.

    Every image is counted once, in `verdicts` or in `already_there`.
    """

    already_there: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    conversions: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as JSON-like values."""
        return {
            "already_there": self.already_there,
            "verdicts": dict(sorted(self.verdicts.items())),
            "conversions": dict(sorted(self.conversions.items())),
            "splits": dict(sorted(self.splits.items())),
        }


def import_images(
    store: "Store",
    records: Iterable[ImageRecord],
    *,
    dataset: str,
    class_names: Sequence[str],
    max_pixels: int = DEFAULT_MAX_PIXELS,
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
        on_progress: Called with the number of images just finished.

    Raises:
        InputError: If a class or split is unknown, or a key is there with other contents.
    """
    class_ids = store.ensure_classes(class_names)
    known = _known_keys(store, dataset)
    counts = ImportCounts()
    next_id = store.next_sample_id()
    rows: list[dict[str, Any]] = []
    truths: list[dict[str, Any]] = []
    num_bytes = 0
    with large_images_are_verdicts():
        for record, verdict, digest in _judged(records, max_pixels):
            on_progress(1)
            if _is_known(known, record, digest, dataset):
                counts.already_there += 1
                continue
            rows.append(_row(record, verdict, digest, dataset, class_ids, next_id))
            if record.truth is not None:
                label = _class_id(record.truth, class_ids, record.key)
                truths.append({"sample_id": next_id, "label": label})
            known[record.key] = digest
            next_id += 1
            num_bytes += len(verdict.data or b"")
            counts.verdicts[verdict.verdict] += 1
            counts.splits[record.split] += 1
            if verdict.conversion is not None:
                counts.conversions[verdict.conversion] += 1
            if len(rows) >= _SHARD_ROWS or num_bytes >= _SHARD_BYTES:
                _commit(store, dataset, rows, truths)
                rows, truths, num_bytes = [], [], 0
    if rows:
        _commit(store, dataset, rows, truths)
    return counts


def _judged(
    records: Iterable[ImageRecord], max_pixels: int
) -> Iterator[tuple[ImageRecord, Verdict, str]]:
    def work(record: ImageRecord) -> tuple[ImageRecord, Verdict, str]:
        return record, judge(record.data, max_pixels=max_pixels), content_hash(record.data)

    source = iter(records)
    with ThreadPoolExecutor() as pool:
        while batch := list(islice(source, _BATCH_ROWS)):
            yield from pool.map(work, batch)


def _known_keys(store: "Store", dataset: str) -> dict[str, str]:
    where = pa.compute.field("dataset") == dataset
    rows = store.table("images").read(columns=["key", "content_hash"], where=where)
    return dict(zip(rows["key"].to_pylist(), rows["content_hash"].to_pylist(), strict=True))


def _is_known(known: dict[str, str], record: ImageRecord, digest: str, dataset: str) -> bool:
    if record.key not in known:
        return False
    if known[record.key] != digest:
        raise InputError(
            f"image {record.key!r} of dataset {dataset!r} is in the store with other contents "
            f"(hash {known[record.key]}, now {digest}); import it under another dataset name"
        )
    return True


def _class_id(name: str, class_ids: dict[str, int], key: str) -> int:
    if name not in class_ids:
        raise InputError(
            f"image {key!r} has the class {name!r}; the store's classes are "
            f"{', '.join(class_ids)}"
        )
    return class_ids[name]


def _row(  # noqa: PLR0917  private: one row from its six parts
    record: ImageRecord,
    verdict: Verdict,
    digest: str,
    dataset: str,
    class_ids: dict[str, int],
    sample_id: int,
) -> dict[str, Any]:
    if record.split not in SPLITS:
        raise InputError(
            f"image {record.key!r} has the split {record.split!r}; wanted one of "
            f"{', '.join(SPLITS)}"
        )
    label = None if record.label is None else _class_id(record.label, class_ids, record.key)
    if label is None and record.split != "unlabeled" and verdict.verdict == ACCEPTED:
        raise InputError(f"image {record.key!r} of split {record.split!r} has no label")
    return {
        "sample_id": sample_id,
        "dataset": dataset,
        "key": record.key,
        "split": record.split,
        "label": label,
        "image": {"bytes": verdict.data, "path": record.key},
        "width": verdict.width,
        "height": verdict.height,
        "content_hash": digest,
        "verdict": verdict.verdict,
        "conversion": verdict.conversion,
    }


def _commit(
    store: "Store", dataset: str, rows: list[dict[str, Any]], truths: list[dict[str, Any]]
) -> None:
    first, last = rows[0]["sample_id"], rows[-1]["sample_id"]
    identity = value_hash({"dataset": dataset, "hashes": [r["content_hash"] for r in rows]})
    transaction = f"images-{first:012d}-{identity}"
    lineage = {"step": "import", "dataset": dataset, "sample_ids": [first, last]}
    if truths:  # before the images: truth of an image that never came harms nobody
        table = pa.Table.from_pylist(truths, schema=TABLES["truth"].columns)
        store.table("truth").append(table, lineage=lineage, transaction=transaction)
    table = pa.Table.from_pylist(rows, schema=TABLES["images"].columns)
    store.table("images").append(table, lineage=lineage, transaction=transaction)
