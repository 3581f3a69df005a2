"""Test sets into a store, by name, and answers that accept several classes."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pyarrow.compute as pc

from plstore.errors import InputError
from plstore.exchange import Imported, images_in, import_source
from plstore.exchange.intake import Shows
from plstore.exchange.tables import read_table
from plstore.exchange.test_sets import (
    ClassMap,
    MappedSet,
    mapped_set,
    open_test_set,
    read_class_map,
)
from plstore.fingerprint import value_hash
from plstore.images import DEFAULT_MAX_PIXELS
from plstore.query import connect
from plstore.schema import ACCEPTED, EVALUATION, SPLITS, Split
from plstore.store import Store
from trainers.evaluation.imagenet import PROTOCOLS, REAL, real_labels

_TABLE: Final = "accepted_classes"
_LABEL: Final = "label"
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]*"


@dataclass(frozen=True, kw_only=True)
class ImportedSet:
    """A test set that was imported.

    Attributes:
        imported: What became of its images.
        num_accepted: Images of which several classes may be right, noted now.
        num_trained: Images of the set whose very bytes are labeled or unlabeled images too: a
            model that learned them is not tested by them.
    """

    imported: Imported
    num_accepted: int
    num_trained: int = 0


def import_test_set(
    store: Store,
    path: str | Path,
    *,
    name: str,
    class_map: str | Path | ClassMap | None = None,
    split: str = "test",
    max_pixels: int = DEFAULT_MAX_PIXELS,
    in_place: bool = False,
    shows: Shows | None = None,
) -> ImportedSet:
    """Import labeled images as a test set that no run reads, `plstore evaluate --sets` does.

    Args:
        store: With classes: a test set brings none.
        path: See `plstore.exchange.test_sets.open_test_set`.
        name: Of the set; the official sets of `trainers.evaluation.imagenet.PROTOCOLS` are
            read as their authors ask for.
        class_map: The store's classes by the set's, or a table of them; of an official set its
            own unless given.
        split: Of a data set of `datasets`.
        max_pixels: Larger images are refused.
        in_place: Keep where images are, not their bytes.
        shows: Where progress is shown.

    Raises:
        StoreError: If the store has no classes.
        InputError: If it has other images of that name, the set cannot be read, or its classes
            are not the store's and no map says which are.
    """
    classes = store.class_names
    _check_name(store, name)
    mapped = _mapped(Path(path), name, classes, class_map, split)
    imported = import_source(
        store, mapped.source, shows, max_pixels=max_pixels, in_place=in_place
    )
    several = any(len(right) > 1 for right in mapped.class_map.values())
    count = _note(store, name, _accepted(store, mapped)) if several else 0
    copies = _count_copies(store, name)
    return ImportedSet(imported=imported, num_accepted=count, num_trained=copies)


def _count_copies(store: Store, name: str) -> int:
    sql = """
        select count(*) from images
        where split = 'evaluation' and dataset = $name and content_hash in (
            select content_hash from images where split in ('labeled', 'unlabeled')
        )
    """
    with connect(store) as connection:
        return int(connection.execute(sql, {"name": name}).fetchall()[0][0])


def _check_name(store: Store, name: str) -> None:
    if re.fullmatch(_NAME, name) is None or name in {"all", *SPLITS}:
        raise InputError(
            f"--name is {name!r}; wanted letters, digits, '.', '_' and '-', and none of all, "
            f"{', '.join(SPLITS)}"
        )
    where = (pc.field("dataset") == name) & (pc.field("split") != EVALUATION)
    if store.table("images").dataset().count_rows(filter=where):
        raise InputError(
            f"{store.root} has images to train on or to test with of the dataset {name!r}; "
            "give the test set another --name"
        )


def _mapped(
    path: Path,
    name: str,
    classes: Sequence[str],
    class_map: str | Path | ClassMap | None,
    split: str,
) -> MappedSet:
    known = read_class_map(class_map) if isinstance(class_map, str | Path) else class_map
    protocol = PROTOCOLS.get(name)
    if protocol is None or known is not None:
        source = open_test_set(path, name=name, split=split)
        return mapped_set(source, classes, known)
    place, changed, own = protocol.settings(path, classes)
    source = open_test_set(place, name=name, split=split)
    return mapped_set(source, classes, own, changed=changed, what=protocol.border)


def _accepted(store: Store, mapped: MappedSet) -> Iterator[dict[str, Any]]:
    """Yield a row for each image and class that is right for it."""
    for sample_id, key in _images(store, EVALUATION, mapped.source.dataset):
        if key in mapped.classes_of:
            for label in mapped.class_map[mapped.classes_of[key]]:
                yield {"sample_id": sample_id, "label": label}


def _images(store: Store, split: str, dataset: str | None = None) -> Iterable[tuple[int, str]]:
    where = (pc.field("split") == split) & (pc.field("verdict") == ACCEPTED)
    if dataset is not None:
        where &= pc.field("dataset") == dataset
    rows = store.table("images").read(columns=["sample_id", "key"], where=where)
    return zip(rows["sample_id"].to_pylist(), rows["key"].to_pylist(), strict=True)


def import_answers(
    store: Store,
    answers: str | Path = REAL,
    *,
    source: str | None = None,
    split: Split = "validation",
    dataset: str | None = None,
) -> int:
    """Note which classes are right for images, where several may be; return of how many images.

    They are read by the saved query `evaluation/accepted`, and by `plstore evaluate`.

    Args:
        store: The store.
        answers: A table with a column that names images (see `plstore.exchange.decisions`) and
            one named label, a row for each class that is right; or "real", the reassessed
            labels of ImageNet's validation images, which are found by their file names.
        source: Their name; "real", or the stem of the file, unless given.
        split: Of the images, for "real".
        dataset: Of the images, where keys repeat among data sets.

    Raises:
        InputError: If the table has not these columns, a row names no image or no class, or
            ReaL names none of the images.
    """
    name = source or (REAL if str(answers) == REAL else Path(answers).stem)
    if store.table("images").dataset().count_rows(filter=_of_set(name)):
        raise InputError(
            f"{store.root} has a test set {name!r}, which says itself which classes are right; "
            "give the answers another --source"
        )
    if str(answers) == REAL:
        return _note(store, name, _real(store, split, dataset))
    table = read_table(Path(answers))
    if _LABEL not in table.column_names:
        raise InputError(
            f"{answers} has no column {_LABEL!r}; wanted a class that is right in each row. It "
            f"has {', '.join(table.column_names)}"
        )
    ids = images_in(store, table, str(answers), dataset=dataset)
    rows = [
        {"sample_id": i, "label": str(label).strip()}
        for i, label in zip(ids, table[_LABEL].to_pylist(), strict=True)
    ]
    return _note(store, name, rows)


def _of_set(name: str) -> pc.Expression:
    return (pc.field("split") == EVALUATION) & (pc.field("dataset") == name)


def _real(store: Store, split: str, dataset: str | None) -> list[dict[str, Any]]:
    right = real_labels(store.class_names)
    rows = [
        {"sample_id": sample_id, "label": label}
        for sample_id, key in _images(store, split, dataset)
        for label in right.get(PurePosixPath(key).name, ())
    ]
    if not rows:
        raise InputError(
            f"none of the {split} images of {store.root} is named as ImageNet's validation "
            "images are, ILSVRC2012_val_00000001.JPEG; --split names another split"
        )
    return rows


def _note(store: Store, source: str, rows: Iterable[Mapping[str, Any]]) -> int:
    """Keep the answers of a source that are not kept yet; return of how many images."""
    ids = {name: number for number, name in enumerate(store.class_names)}
    found: dict[tuple[int, int], None] = {}
    for row, one in enumerate(rows, start=1):
        if one["label"] not in ids:
            raise InputError(
                f"{source} row {row} has the label {one['label']!r}, which is no class of the "
                f"store; wanted one of {', '.join(list(ids)[:20])}. Nothing was written"
            )
        found[one["sample_id"], ids[one["label"]]] = None
    table = store.table(_TABLE)
    kept = table.read(columns=["sample_id", "label"], where=pc.field("source") == source)
    there = set(zip(kept["sample_id"].to_pylist(), kept["label"].to_pylist(), strict=True))
    new = [
        {"source": source, "sample_id": sample_id, "label": label}
        for sample_id, label in sorted(found)
        if (sample_id, label) not in there
    ]
    if new:
        identity = value_hash({"source": source, "rows": new})
        store.append(_TABLE, new, identity=identity, step="answers", notes={"source": source})
    return len({row["sample_id"] for row in new})
