"""The images that a recipe names."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pyarrow.compute as pc

from plstore.errors import InputError
from plstore.exchange import IdxSplits, Source, idx_files, image_folders, parquet_folder
from plstore.fingerprint import value_hash
from plstore.images import ImageRecord, Intake
from plstore.schema import EVALUATION, FILE_GONE, SPLITS
from plstore.store import Store
from trainers.data import FASHION_MNIST_CLASSES, sample_folder
from trainers.data.pools import long_tailed, without_classes
from trainers.sections import Data

_OF_RUNS: Final = tuple(split for split in SPLITS if split != EVALUATION)


def open_source(
    data: Data, seed: int, store: Store | None = None, listed: Source | None = None
) -> Source:
    """Return the images that a recipe's data section names.

    Args:
        data: The section.
        seed: Of splits that are drawn.
        store: For a recipe whose images are those of its store.
        listed: The same images without a limit, their pool drawn, where they are listed
            already.

    Raises:
        InputError: If they are not there, or not as they must be.
    """
    source = listed
    if source is None:
        source = _of_store(store) if data.source == "store" else _pooled(data, seed)
    if data.limit_unlabeled is None:
        return source
    return _limited(source, data.limit_unlabeled)


NO_IMAGES: Final = Source(
    dataset="",
    identity="",
    freshness="",
    class_names=(),
    num_images=0,
    num_bytes=0,
    splits={},
    keys=list,
    records=lambda: iter(()),
)
"""Of a process that imports nothing."""


def counted_source(data: Data) -> Source | None:
    """Return images that are only counted, for a dry run; None where the recipe counts none."""
    counts = data.counts
    if counts is None:
        return None
    splits = {split: int(getattr(counts, split)) for split in _OF_RUNS}
    return Source(
        dataset=data.dataset,
        identity="counted",
        freshness="",
        class_names=[str(number) for number in range(counts.classes)],
        num_images=sum(splits.values()),
        num_bytes=sum(splits.values()) * counts.image_bytes,
        splits={split: count for split, count in splits.items() if count},
        keys=list,
        records=lambda: iter(()),
    )


def _pooled(data: Data, seed: int) -> Source:
    source = _open(data, seed)
    if data.classes_out is not None:
        source = without_classes(source, data.classes_out, data.pool)
    if data.imbalance is not None:
        source = long_tailed(source, data.imbalance, seed)
    return source


def _open(data: Data, seed: int) -> Source:
    if data.source == "folders":
        return image_folders(
            labeled=Path(str(data.labeled)),
            unlabeled=Path(str(data.unlabeled)),
            test=None if data.test is None else Path(data.test),
            validation=None if data.validation is None else Path(data.validation),
            validation_fraction=data.validation_fraction,
            seed=seed,
            dataset=data.dataset,
        )
    if data.source == "idx":
        return _open_idx(data, seed)
    folder = sample_folder() if data.source == "sample" else Path(str(data.path))
    return parquet_folder(folder, dataset=data.dataset)


def _open_idx(data: Data, seed: int) -> Source:
    splits = IdxSplits(
        num_labeled=data.num_labeled,
        num_validation=data.num_validation,
        num_unlabeled=data.num_unlabeled,
        num_test=data.num_test,
        seed=seed,
    )
    return idx_files(
        Path(str(data.path)),
        class_names=data.class_names or FASHION_MNIST_CLASSES,
        splits=splits,
        dataset=data.dataset,
    )


def _of_store(store: Store | None) -> Source:
    """Return what a store has, for a run that imports nothing."""
    if store is None or not store.root.exists() or not store.next_sample_id():
        raise InputError(
            f"{'the store' if store is None else store.root} has no images to run on; 'plstore "
            "import images' brings them, or name your folders with --labeled and --unlabeled"
        )
    version = store.table("images").version()
    splits = {split: store.count_images(split, version=version) for split in _OF_RUNS}
    gone = store.table("images").read(
        version=version, columns=["split"], where=pc.field("verdict") == FILE_GONE
    )["split"]
    known = {split: count + gone.to_pylist().count(split) for split, count in splits.items()}
    deleted = store.table("deletions").read(columns=["sample_id", "key"])
    deleted = deleted.filter(pc.invert(pc.starts_with(deleted["key"], f"{EVALUATION}/")))
    # Images never change: they come, with the next numbers, and may be deleted. Which of them
    # have lost their files is a step's own to say.
    rows = store.table("images").read(
        version=version,
        columns=["sample_id", "num_bytes"],
        where=pc.field("split") != EVALUATION,
    )
    # Test sets come at any time, and are of no run.
    ids = [*rows["sample_id"].to_pylist(), *deleted["sample_id"].to_pylist()]
    what = {"next_id": max(ids, default=-1) + 1, "deleted": len(deleted), "splits": known}
    return Source(
        dataset="",
        identity=value_hash(what),
        freshness="",
        class_names=store.class_names,
        num_images=sum(splits.values()),
        num_bytes=pc.sum(rows["num_bytes"]).as_py() or 0,
        splits={split: count for split, count in splits.items() if count},
        keys=list,
        records=lambda: iter(()),
    )


def _limited(source: Source, limit: int) -> Source:
    def settle(intake: Intake) -> Source:
        return source if source.settle is None else _limited(source.settle(intake), limit)

    def records() -> Iterator[ImageRecord]:
        left = limit
        for record in source.records():
            if record.split == "unlabeled":
                left -= 1
            if record.split != "unlabeled" or left >= 0:
                yield record

    unlabeled = min(limit, source.splits["unlabeled"])
    splits = source.splits | {"unlabeled": unlabeled}
    return replace(
        source,
        identity=value_hash({"identity": source.identity, "limit": limit}),
        splits=splits,
        num_images=sum(splits.values()),
        num_bytes=source.num_bytes * sum(splits.values()) // source.num_images,
        keys=lambda: [record.key for record in records()],
        records=records,
        settle=None if source.settle is None else settle,
    )
