"""Data sets of the `datasets` library: a folder, or a name on its hub; streamed or not.

Every split is read by its own label feature, and classes of splits are matched by name: those
of ClassLabel features in the order of the labeled split's, others in the one order of imports.
A label of -1, or none at all, says that a class is unknown: it is an error, but where one split
is named for both labeled and unlabeled. There it says which of the two an image is.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from datasets.utils.file_utils import xopen

from plstore.errors import InputError
from plstore.exchange.classes import (
    UNKNOWN,
    Value,
    class_column,
    class_order,
    marks_unknown,
)
from plstore.exchange.label_space import declared_names, label_space
from plstore.exchange.opening import open_split, told_as_input
from plstore.exchange.source import Source
from plstore.fingerprint import value_hash
from plstore.images import DEFAULT_MAX_BYTES, ImageFile, ImageRecord
from plstore.schema import SPLITS

_BATCH_ROWS: Final = 8192
_Rows = npt.NDArray[np.int64]


def datasets_splits(
    name: str,
    splits: Mapping[str, str],
    *,
    image_column: str = "image",
    label_column: str = "label",
    streaming: bool = False,
    dataset: str | None = None,
) -> Source:
    """Read a data set of images.

    Args:
        name: A folder that `save_to_disk` wrote, one that `load_dataset` opens, or a name on
            the hub.
        splits: Its split by ours: {"labeled": "train[:10%]", "unlabeled": "train[10%:]"}. One
            split for both is divided by its labels, see above.
        image_column: Of an Image feature.
        label_column: Of a ClassLabel, numbers or text; not read of a split of its own for
            unlabeled images.
        streaming: Read while it is downloaded, without a local copy.
        dataset: Name of the collection in the store; the data set's own unless given.

    Raises:
        InputError: If it cannot be opened, a split or column is missing, one split is to be
            trained on and tested with, or a class is not among the labeled images'.
    """
    _check_splits(splits)
    opened = {ours: open_split(name, theirs, streaming) for ours, theirs in splits.items()}
    parts = {
        ours: _part(part, ours, f"{name} ({splits[ours]})", image_column, label_column)
        for ours, part in opened.items()
    }
    noticed = {}
    if "labeled" in splits and splits["labeled"] == splits.get("unlabeled"):
        num_unknown = _divide(parts["labeled"], parts["unlabeled"])
        noticed = {"without a known label, taken as unlabeled": num_unknown}
    identity = value_hash(
        {
            "name": name,
            "splits": dict(splits),
            "prints": [_fingerprint(part) for part in opened.values()],
            "columns": [image_column, label_column],
        }
    )
    counts = {ours: part.count() for ours, part in parts.items()}
    return Source(
        dataset=dataset or Path(name).name,
        identity=identity,
        freshness=identity,
        class_names=_class_names(parts, name),
        num_images=sum(counts.values()),
        num_bytes=0,
        splits=counts,
        keys=lambda: [key for part in parts.values() for key in part.names()],
        records=lambda: (record for part in parts.values() for record in part.records()),
        noticed=noticed,
    )


def _check_splits(splits: Mapping[str, str]) -> None:
    unknown = sorted(set(splits) - set(SPLITS))
    if unknown or not splits:
        raise InputError(f"splits {unknown or splits}; wanted some of {', '.join(SPLITS)}")
    known = Counter(theirs for ours, theirs in splits.items() if ours != "unlabeled")
    for theirs, count in known.items():
        if count > 1:
            both = " and ".join(ours for ours in splits if splits[ours] == theirs)
            raise InputError(
                f"the split {theirs!r} is named for {both}: its images would be trained on and "
                f"tested with. Name parts, such as {theirs}[:80%] and {theirs}[80%:]"
            )


@dataclass(frozen=True, kw_only=True)
class _Labels:
    """The label column of one split, read by the split's own feature.

    Attributes:
        names: Its classes, in their order.
        where: The split, for messages.
        name_of: Returns the class of a value: None where it is unknown.
        values: Returns its different values.
    """

    names: Sequence[str]
    where: str
    name_of: Callable[[Any], str | None]
    values: Callable[[], Sequence[Any]]

    def used(self) -> set[str]:
        """Return the classes that rows have."""
        return {name for value in self.values() if (name := self.name_of(value)) is not None}


@dataclass(kw_only=True)
class _Part:
    """A split of the data set as one of ours.

    Attributes:
        data: Of the library, with images that are not decoded.
        split: Ours.
        image_column: Of the images.
        label_column: Of the labels.
        labels: How they are read; None where they are not.
        rows: Which ones are taken, where not all are.
    """

    data: Any
    split: str
    image_column: str
    label_column: str
    labels: _Labels | None
    rows: _Rows | None = None

    def count(self) -> int:
        """Return how many images it has, 0 where nobody knows."""
        if self.rows is not None:
            return len(self.rows)
        if isinstance(self.data, datasets.Dataset):
            return len(self.data)
        known = (self.data.info.splits or {}).get(str(self.data.split))
        return int(known.num_examples) if known is not None else 0

    def names(self) -> list[str]:
        """Return the names of its images."""
        rows = range(self.count()) if self.rows is None else self.rows.tolist()
        return [_key(self.split, number) for number in rows]

    def records(self) -> Iterator[ImageRecord]:
        """Yield its images."""
        for number, row in self._rows():
            image = row[self.image_column] or {}
            yield _record(
                _key(self.split, number),
                self.split,
                self._label(row, number),
                place=image.get("path") or "",
                data=image.get("bytes"),
            )

    def _rows(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        with told_as_input(f"cannot read the {self.split} images"):
            if self.rows is not None and isinstance(self.data, datasets.Dataset):
                yield from zip(self.rows.tolist(), self.data.select(self.rows), strict=True)
                return
            wanted = None if self.rows is None else set(self.rows.tolist())
            for number, row in enumerate(self.data):
                if wanted is None or number in wanted:
                    yield number, row

    def _label(self, row: Mapping[str, Any], number: int) -> str | None:
        if self.labels is None:
            return None
        value = row[self.label_column]
        name = self.labels.name_of(value)
        if name is None:
            raise InputError(
                f"{self.split} row {number} has the label {value!r}, which is none of the "
                f"{len(self.labels.names)} classes; import images of unknown class as "
                "unlabeled: a split that is named for both is divided by its labels"
            )
        return name


def _part(
    data: Any,  # noqa: ANN401  a Dataset, untyped
    split: str,
    where: str,
    image_column: str,
    label_column: str,
) -> _Part:
    has_labels = split != "unlabeled"
    columns = [image_column, label_column] if has_labels else [image_column]
    features = data.features or {}
    missing = [column for column in columns if column not in features]
    if missing:
        raise InputError(f"{where} lacks {', '.join(missing)}; it has {', '.join(features)}")
    with told_as_input(f"{where}: the column {image_column!r} as images"):
        data = data.cast_column(image_column, datasets.Image(decode=False))
    return _Part(
        data=data,
        split=split,
        image_column=image_column,
        label_column=label_column,
        labels=_labels(data, label_column, where) if has_labels else None,
    )


def _class_names(parts: Mapping[str, _Part], name: str) -> list[str]:
    labels = {ours: part.labels for ours, part in parts.items() if part.labels is not None}
    return label_space(
        {ours: label.names for ours, label in labels.items()},
        lambda ours: labels[ours].used(),
        name,
    )


def _labels(data: Any, column: str, where: str) -> _Labels:  # noqa: ANN401
    feature = data.features[column]

    def values() -> list[Any]:
        with told_as_input(f"{where}: the column {column!r}"):
            return _distinct(data, column)

    if isinstance(feature, datasets.ClassLabel):
        names = declared_names(feature.names, f"{where}, column {column!r},")
        name_of = partial(_name_by_number, names, where)
        return _Labels(names=names, where=where, name_of=name_of, values=values)
    if not isinstance(feature, datasets.Value):
        raise InputError(
            f"{where}: the column {column!r} is {feature}; wanted one class an image: a "
            "ClassLabel, numbers or text"
        )
    found = values()
    named = class_column(found)
    has_unknown = marks_unknown(named)
    by_value: dict[Value, str | None] = {
        value: None if has_unknown and name == UNKNOWN else name
        for value, name in zip(found, named, strict=True)
    }
    names = class_order({name for name in by_value.values() if name is not None})
    return _Labels(names=names, where=where, name_of=by_value.get, values=lambda: found)


def _name_by_number(names: Sequence[str], where: str, value: Any) -> str | None:  # noqa: ANN401
    if value is None or value == int(UNKNOWN):
        return None
    if not 0 <= value < len(names):
        raise InputError(f"{where} has the label {value}; wanted 0 to {len(names) - 1}, or -1")
    return names[int(value)]


def _divide(labeled: _Part, unlabeled: _Part) -> int:
    """Give the rows of one split to labeled or unlabeled, by whether their class is known.

    Returns:
        How many have none that is known.
    """
    labels = labeled.labels
    if labels is None:
        return 0
    known = np.array(
        [
            labels.name_of(value) is not None
            for batch in _batches(labeled.data, labeled.label_column)
            for value in batch.to_pylist()
        ],
        dtype=bool,
    )
    if known.all():
        raise InputError(
            f"{labels.where} is named for labeled and unlabeled, and each of its {len(known)} "
            "images has a label: none is left to be unlabeled. Name parts, such as train[:10%] "
            "and train[10%:], or leave out unlabeled"
        )
    labeled.rows, unlabeled.rows = np.flatnonzero(known), np.flatnonzero(~known)
    return len(unlabeled.rows)


def _batches(data: Any, column: str) -> Iterator[pa.ChunkedArray]:  # noqa: ANN401
    rows = data.select_columns([column]).with_format("arrow")
    for batch in rows.iter(batch_size=_BATCH_ROWS):
        yield batch[column]


def _distinct(data: Any, column: str) -> list[Any]:  # noqa: ANN401
    found: dict[Any, None] = {}
    for batch in _batches(data, column):
        found |= dict.fromkeys(pc.unique(batch).to_pylist())
    return list(found)


def _record(
    key: str, split: str, label: str | None, *, place: str, data: bytes | None
) -> ImageRecord:
    """Return an image by its bytes; or by its place: a file, or one in an archive."""
    is_inside = "::" in place or "://" in place
    if data is None and place and not is_inside:
        return ImageFile(key=key, split=split, place=str(Path(place).absolute()), label=label)
    if data is None:
        data = _read_inside(place) if is_inside else b""
    is_file = bool(place) and not is_inside and Path(place).is_file()
    return ImageRecord(
        key=key, split=split, data=data, label=label, place=place if is_file else None
    )


def _read_inside(place: str) -> bytes:
    """Return the bytes of an image in an archive, or far away; of a huge one, the first."""
    try:
        with xopen(place, "rb") as file:
            return bytes(file.read(DEFAULT_MAX_BYTES + 1))
    except Exception as error:  # each archive and client raises its own
        raise InputError(f"cannot read the image {place}: {error}") from error


def _fingerprint(part: Any) -> str:  # noqa: ANN401
    return str(getattr(part, "_fingerprint", "")) or str(part.info.download_checksums)


def _key(split: str, number: int) -> str:
    return f"{split}/{number:09d}"
