"""A CSV or Parquet file that names images by path, with labels and splits if it has them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from plstore import storage
from plstore.errors import InputError
from plstore.exchange.folders import split_off
from plstore.exchange.source import Source
from plstore.fingerprint import value_hash
from plstore.schema import SPLITS
from plstore.store import ImageRecord

_READ_AHEAD = 64


@dataclass(frozen=True, kw_only=True)
class ListingColumns:
    """Which columns of a listing say what.

    Attributes:
        path: Of the image: absolute, a URL, or relative to the listing's folder.
        label: Class name or number; null or absent for unlabeled images.
        split: "labeled", "unlabeled", "validation" or "test"; without such a column, an image
            with a label is labeled and one without is not.
    """

    path: str = "path"
    label: str = "label"
    split: str = "split"


@dataclass(frozen=True)
class _Row:
    path: str
    label: str | None
    split: str


_DEFAULT = ListingColumns()


def read_table(path: Path, *, as_text: Sequence[str] = ()) -> pa.Table:
    """Read a CSV or Parquet file.

    Args:
        path: Which.
        as_text: Columns of a CSV that are text, whatever they look like: 007 stays 007.

    Raises:
        InputError: If it is not there, or neither.
    """
    if not path.is_file():
        raise InputError(f"{path} is no file; wanted a CSV or Parquet file")
    try:
        if path.suffix == ".parquet":
            return pq.read_table(path)
        types = dict.fromkeys(as_text, pa.string())
        options = pyarrow.csv.ConvertOptions(column_types=types)
        return pyarrow.csv.read_csv(path, convert_options=options)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} cannot be read as CSV or Parquet: {error}") from error


def image_listing(
    listing: Path,
    *,
    columns: ListingColumns = _DEFAULT,
    validation_fraction: float = 0.15,
    seed: int = 0,
    dataset: str = "images",
) -> Source:
    """Read images that a table names.

    Args:
        listing: CSV with a header, or Parquet.
        columns: Names of its columns.
        validation_fraction: Part of each class's labeled images that goes to validation, where
            the listing names no validation images; 0 for none.
        seed: Draws that part.
        dataset: Name of the collection in the store.

    Raises:
        InputError: If a column that was named is missing, a split is unknown, or paths repeat.
    """
    rows = _rows(listing, columns)
    if validation_fraction and not any(row.split == "validation" for row in rows):
        labeled = [n for n, row in enumerate(rows) if row.split == "labeled"]
        named = [(rows[n].path, str(rows[n].label)) for n in labeled]
        moved = {labeled[n] for n in split_off(named, validation_fraction, seed)}
        rows = [
            _Row(row.path, row.label, "validation") if n in moved else row
            for n, row in enumerate(rows)
        ]
    names = {row.label for row in rows if row.label is not None}
    class_names = sorted(
        names, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name)
    )
    identity = value_hash({"rows": [(row.path, row.label, row.split) for row in rows]})
    return Source(
        dataset=dataset,
        identity=identity,
        freshness=identity,
        class_names=class_names,
        num_images=len(rows),
        num_bytes=0,
        splits=dict(Counter(row.split for row in rows)),
        keys=lambda: [row.path for row in rows],
        records=lambda: _records(rows, listing.resolve().parent),
    )


def _rows(listing: Path, columns: ListingColumns) -> list[_Row]:
    table = read_table(listing, as_text=(columns.path, columns.label, columns.split))
    if columns.path not in table.column_names:
        raise InputError(
            f"{listing} has no column {columns.path!r}; it has {', '.join(table.column_names)}"
        )
    for name, standard in ((columns.label, "label"), (columns.split, "split")):
        if name != standard and name not in table.column_names:
            raise InputError(
                f"{listing} has no column {name!r}; it has {', '.join(table.column_names)}"
            )
    paths = [str(path) for path in table[columns.path].to_pylist()]
    if len(set(paths)) != len(paths):
        path, count = Counter(paths).most_common(1)[0]
        raise InputError(f"{listing} names {path!r} {count} times; wanted every image once")
    absent = [None] * len(paths)
    values = {
        name: table[name].to_pylist() if name in table.column_names else absent
        for name in (columns.label, columns.split)
    }
    rows = []
    for path, *given in zip(paths, *values.values(), strict=True):
        label, split = (None if value in {None, ""} else str(value) for value in given)
        where = split or ("unlabeled" if label is None else "labeled")
        if where not in SPLITS:
            raise InputError(
                f"{listing} gives {path!r} the split {where!r}; wanted one of "
                f"{', '.join(SPLITS)}"
            )
        rows.append(_Row(path, None if where == "unlabeled" else label, where))
    return rows


def _records(rows: list[_Row], folder: Path) -> Iterator[ImageRecord]:
    def read(row: _Row) -> ImageRecord:
        place = row.path if "://" in row.path else str(folder / row.path)
        try:
            data = storage.location(place).read_bytes()
        except OSError as error:
            raise InputError(f"cannot read the image {place}: {error}") from error
        return ImageRecord(
            key=row.path, split=row.split, data=data, label=row.label, place=place
        )

    source = iter(rows)
    with ThreadPoolExecutor() as pool:
        while batch := list(islice(source, _READ_AHEAD)):
            yield from pool.map(read, batch)
