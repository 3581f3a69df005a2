"""Test sets by name: images with classes that no run reads, of the classes that a store has.

A set whose classes have other names brings a map: each of them to those of the store that are
right for it. To none: its images are left out, and counted. To several: the first is the
image's label, and all of them count as right for it (`accepted_classes`).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from plstore.errors import InputError, MissingExtraError
from plstore.exchange.folders import image_folders
from plstore.exchange.listing import image_listing
from plstore.exchange.parquet import parquet_file
from plstore.exchange.source import Source
from plstore.exchange.tables import read_table, table_schema
from plstore.exchange.tars import tar_files
from plstore.images import ImageFile, ImageRecord
from plstore.schema import EVALUATION

ClassMap = Mapping[str, Sequence[str]]
"""Classes of a store by class of a test set; the first is the label."""

_READ_AS: Final = "test"
_MAP_COLUMNS: Final = ("class", "label")
_SHOWN: Final = 10
_UNMAPPED: Final = "of a class that the map leads nowhere, left out"
_UNLABELED: Final = "without a class, left out"


@dataclass(frozen=True, kw_only=True)
class MappedSet:
    """A test set in the classes of a store.

    Attributes:
        source: What is imported; its `noticed` counts what was left out, once it was read.
        classes_of: The set's own class by key of an image, of those that were read.
        class_map: Where the set's classes are not the store's.
    """

    source: Source
    classes_of: Mapping[str, str]
    class_map: ClassMap


def open_test_set(path: str | Path, *, name: str, split: str = "test") -> Source:
    """Read labeled images of any layout that an import knows.

    Args:
        path: A folder with a folder for each class; a folder that `datasets` saved; a Parquet
            file with images inside, or with their paths; a CSV of paths; a tar of WebDataset;
            or a name on the hub of the `datasets` library.
        name: Of the set, as `dataset` of its images.
        split: Of a data set of `datasets`.

    Raises:
        InputError: If it is none of them, or cannot be read.
        MissingExtraError: If it is one of `datasets`, which is not installed.
    """
    path = Path(path)
    if path.is_dir() and not _is_of_datasets(path):
        return image_folders(test=path, dataset=name)
    if path.is_dir() or not path.exists():
        return _of_datasets(str(path), name, split)
    kind = path.suffix.lower()
    if kind == ".tar":
        return tar_files({_READ_AS: [path]}, dataset=name)
    if kind == ".parquet" and "image" in table_schema(path).names:
        return parquet_file(path, _READ_AS, dataset=name)
    return image_listing(path, validation_fraction=0, dataset=name)


def _is_of_datasets(path: Path) -> bool:
    files = ("dataset_dict.json", "state.json", "dataset_info.json")
    return any((path / file).is_file() for file in files)


def _of_datasets(path: str, name: str, split: str) -> Source:
    try:
        from plstore.exchange.datasets import datasets_splits
    except ModuleNotFoundError as error:
        raise MissingExtraError("datasets", "train", "reading its data sets") from error
    return datasets_splits(path, {_READ_AS: split}, dataset=name)


def read_class_map(path: str | Path) -> ClassMap:
    """Read which classes of a store are right for a class of a set, a row each.

    Args:
        path: A table with the columns class, the set's, and label, the store's: empty where
            images of the class are to be left out.

    Raises:
        InputError: If a column is missing, or a row names no class.
    """
    table = read_table(Path(path))
    if missing := [column for column in _MAP_COLUMNS if column not in table.column_names]:
        raise InputError(
            f"{path} has no column {' and '.join(missing)}; wanted class, as the test set calls"
            f" it, and label, as the store does. It has {', '.join(table.column_names)}"
        )
    found: dict[str, list[str]] = {}
    names, labels = (table[column].to_pylist() for column in _MAP_COLUMNS)
    for row, (name, label) in enumerate(zip(names, labels, strict=True), start=1):
        if name is None or not str(name).strip():
            raise InputError(f"{path} row {row} names no class of the test set")
        right = found.setdefault(str(name).strip(), [])
        if label is not None and str(label).strip():
            right.append(str(label).strip())
    return found


def mapped_set(
    source: Source,
    store_classes: Sequence[str],
    class_map: ClassMap | None = None,
    *,
    changed: Callable[[bytes], bytes] | None = None,
    what: str = "",
) -> MappedSet:
    """Return a test set in the classes of a store, as images of the split evaluation.

    Args:
        source: Of labeled images.
        store_classes: The label space.
        class_map: Of the set's classes; they are the store's unless given.
        changed: Done to the bytes of each image before it is looked at.
        what: Says what that is, in `noticed`.

    Raises:
        InputError: If a class is neither the store's nor in the map; or the map leads to
            classes that the store lacks, or leaves none.
    """
    known = (
        class_map if class_map is not None else {name: [name] for name in source.class_names}
    )
    _check_classes(source, store_classes, known, is_mapped=class_map is not None)
    reading = _Reading(source=source, class_map=known, changed=changed, what=what)
    mapped = replace(
        source,
        class_names=list(store_classes),
        splits={EVALUATION: source.num_images},
        keys=lambda: list(map(reading.key, source.keys())),
        records=reading.records,
        noticed=reading.noticed,
        named=None,
        settle=None,
    )
    return MappedSet(source=mapped, classes_of=reading.classes_of, class_map=known)


def _check_classes(
    source: Source, store_classes: Sequence[str], class_map: ClassMap, *, is_mapped: bool
) -> None:
    there = set(store_classes)
    if is_mapped and (lacking := [c for c in source.class_names if c not in class_map]):
        raise InputError(
            f"the test set has {_listed(lacking)}, which the map of classes does not name; "
            "name them in it, with an empty label where their images are to be left out"
        )
    used = {label for c in source.class_names for label in class_map[c]}
    if strange := sorted(used - there):
        raise InputError(
            f"the {'map of classes leads to' if is_mapped else 'test set has'} "
            f"{_listed(strange)}, which the store lacks; it has {_listed(list(store_classes))}."
            " --class-map FILE names the store's class for each of the set's, in the columns "
            "class and label; an empty label leaves its images out"
        )
    if not used:
        raise InputError(
            "the map of classes leaves no class of the test set; nothing to import"
        )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    shown = ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
    return f"{'class' if len(names) == 1 else f'{len(names)} classes'}: {shown}"


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """What is told of a source while it is read."""

    source: Source
    class_map: ClassMap
    changed: Callable[[bytes], bytes] | None
    what: str
    noticed: dict[str, int] = field(default_factory=dict)
    classes_of: dict[str, str] = field(default_factory=dict)

    def records(self) -> Iterator[ImageRecord]:
        """Yield the images that have a class of the store."""
        counts: Counter[str] = Counter(self.source.noticed)
        self.classes_of.clear()
        for record in self.source.records():
            right = () if record.label is None else self.class_map[record.label]
            if not right:
                counts[_UNMAPPED if record.label else _UNLABELED] += 1
                continue
            key = self.key(record.key)
            self.classes_of[key] = str(record.label)
            counts[self.what] += self.changed is not None
            yield self._mapped(record, key, right[0])
            self.noticed.update({what: number for what, number in counts.items() if number})
        self.noticed.update({what: number for what, number in counts.items() if number})

    def key(self, key: str) -> str:
        """Return the name of an image in the store, where sets may share names of files."""
        return f"{EVALUATION}/{self.source.dataset}/{key.removeprefix(f'{_READ_AS}/')}"

    def _mapped(self, record: ImageRecord, key: str, label: str) -> ImageRecord:
        if self.changed is not None:
            data = self.changed(record.data)
            return ImageRecord(key=key, split=EVALUATION, data=data, label=label)
        if isinstance(record, ImageFile):
            return ImageFile(
                key=key,
                split=EVALUATION,
                place=str(record.place),
                label=label,
                num_bytes=record.num_bytes,
            )
        return replace(record, key=key, split=EVALUATION, label=label)
