"""A CSV or Parquet file that names images by path, with labels and splits if it has them."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from plstore.errors import InputError
from plstore.exchange.classes import (
    UNKNOWN,
    Value,
    class_column,
    class_order,
    class_text,
    marks_unknown,
)
from plstore.exchange.files import VALIDATION, Files, file_source, stream_hash
from plstore.exchange.source import Source
from plstore.exchange.tables import read_table
from plstore.exchange.validation_split import ValidationSplit
from plstore.schema import SPLITS

LABEL_COLUMNS: Final = ("label", "class", "class_name", "category", "target")
"""Where labels are looked for, if no column is named."""

_UNLABELED = SPLITS.index("unlabeled")
_LABELED = SPLITS.index("labeled")


@dataclass(frozen=True, kw_only=True)
class ListingColumns:
    """Which columns of a listing say what.

    Attributes:
        path: Of the image: absolute, a URL, or relative to the listing's folder.
        label: Class name or number; missing for unlabeled images. Where there is no column
            "label", that of another name in `LABEL_COLUMNS` is taken. Empty for no labels.
        split: "labeled", "unlabeled", "validation" or "test"; without such a column, an image
            with a label is labeled and one without is not.
    """

    path: str = "path"
    label: str = "label"
    split: str = "split"


_DEFAULT = ListingColumns()


def image_listing(
    listing: str | Path,
    *,
    columns: ListingColumns = _DEFAULT,
    validation_fraction: float = 0.15,
    seed: int = 0,
    dataset: str = "images",
) -> Source:
    """Read images that a table names.

    Labels are read as tables have them: 3.0 among numbers is 3, and what pandas or a database
    writes for "missing" is no class, nor is -1 beside class numbers. Both are counted in
    `noticed` where they are not simply blank.

    Args:
        listing: CSV with a header, or Parquet.
        columns: Names of its columns.
        validation_fraction: Part of each class's labeled images that goes to validation, where
            the listing names no validation images; 0 for none.
        seed: Chooses that part.
        dataset: Name of the collection in the store.

    Raises:
        InputError: If a column that was named is missing, none holds labels and it is not said
            that there are none, a split is unknown, or paths repeat.
    """
    listing = Path(listing)
    table = read_table(listing)
    keys = _paths(listing, table, columns)
    noticed: Counter[str] = Counter()
    names, codes = _labels(listing, table, columns, noticed)
    splits = _splits(listing, table, columns, codes)
    codes[splits == _UNLABELED] = -1
    class_names = class_order({names[code] for code in np.unique(codes[codes >= 0]).tolist()})
    ids = {name: number for number, name in enumerate(class_names)}
    labels = np.array([*(ids.get(name, -1) for name in names), -1], np.int32)[codes]
    is_drawn = bool(validation_fraction) and not (splits == VALIDATION).any()
    files = Files(
        keys=keys,
        places=_places(keys, listing.resolve().parent),
        splits=splits,
        labels=labels,
        num_bytes=None,
        class_names=class_names,
        validation=ValidationSplit(
            fraction=validation_fraction if is_drawn else None, seed=seed
        ),
        noticed=noticed,
    )
    identity = stream_hash("rows", files.with_validation().rows_as_json(with_bytes=False))
    return file_source(files, dataset=dataset, identity=identity, freshness=identity)


def _paths(listing: Path, table: pa.Table, columns: ListingColumns) -> pa.Array:
    if columns.path not in table.column_names:
        raise InputError(
            f"{listing} has no column {columns.path!r}; it has {', '.join(table.column_names)}"
        )
    paths = _flat(_as_text(listing, columns.path, table[columns.path]))
    blank = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(paths), ""), True)  # noqa: FBT003
    if (row := pc.index(blank, True).as_py()) >= 0:
        raise InputError(
            f"{listing} names no path in row {row + 1} and {pc.sum(blank).as_py()} in all; "
            "take such rows out"
        )
    counts = pc.value_counts(paths)
    if len(counts) != len(paths):
        most = counts[int(np.argmax(counts.field("counts").to_numpy()))].as_py()
        raise InputError(
            f"{listing} names {most['values']!r} {most['counts']} times; wanted every image "
            "once"
        )
    return paths


def _as_text(listing: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return column.cast(pa.large_string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"{listing} has {column.type} in column {name!r}; wanted text"
        ) from error


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _places(keys: pa.Array, folder: Path) -> pa.Array:
    """Return where paths lead: URLs and absolute paths as they are, others below the folder."""
    is_url = pc.match_substring(keys, "://")
    is_whole = pc.or_(is_url, pc.starts_with(keys, "/"))
    folder_, slash = (pa.scalar(text, pa.large_string()) for text in (str(folder), "/"))
    places = pc.if_else(is_whole, keys, pc.binary_join_element_wise(folder_, keys, slash))
    loose = pc.and_not(pc.match_substring_regex(places, "//|/[.]/|/[.]?$"), is_url)
    if not pc.any(loose).as_py():
        return places
    tidy = [str(Path(place)) for place in places.filter(loose).to_pylist()]
    return pc.replace_with_mask(places, loose, pa.array(tidy, pa.large_string()))


def _labels(
    listing: Path, table: pa.Table, columns: ListingColumns, noticed: Counter[str]
) -> tuple[list[str], npt.NDArray[np.int32]]:
    """Return the names of classes, and for each row the index of one, -1 for none."""
    column = _label_column(listing, table, columns)
    if column is None:
        return [], np.full(table.num_rows, -1, np.int32)
    if pa.types.is_nested(table[column].type):
        raise InputError(
            f"{listing} has {table[column].type} in column {column!r}; wanted one class a row, "
            "as text or a number"
        )
    values, codes = _encoded(table[column])
    names = class_column(values)
    counts = np.bincount(codes[codes >= 0], minlength=len(values)).tolist()
    unknown = marks_unknown(names)
    for n, (value, name) in enumerate(zip(values, names, strict=True)):
        if name is None and isinstance(value, str) and value.strip():
            noticed[f"label {value.strip()!r}, taken as missing"] += counts[n]
        if name == UNKNOWN and unknown:
            noticed[f"label {UNKNOWN}, taken as unknown"] += counts[n]
            names[n] = None
    kept = {name: n for n, name in enumerate(dict.fromkeys(n for n in names if n is not None))}
    spelled = np.array([*(kept.get(str(name), -1) for name in names), -1], np.int32)
    return list(kept), spelled[codes]


def _encoded(column: pa.ChunkedArray) -> tuple[list[Value], npt.NDArray[np.int32]]:
    """Return the different values of a column, and for each row the index of one, or -1."""
    if not column.num_chunks:
        return [], np.empty(0, np.int32)
    encoded = _flat(column).dictionary_encode()
    codes = pc.fill_null(encoded.indices.cast(pa.int32()), -1)
    return encoded.dictionary.to_pylist(), codes.to_numpy(zero_copy_only=False).copy()


def _label_column(listing: Path, table: pa.Table, columns: ListingColumns) -> str | None:
    names: list[str] = table.column_names
    if not columns.label or columns.label in names:
        return columns.label or None
    if columns.label != _DEFAULT.label:
        raise InputError(
            f"{listing} has no column {columns.label!r}; it has {', '.join(names)}"
        )
    others = [name for name in names if name not in {columns.path, columns.split}]
    found = [name for name in others if name.strip().lower() in LABEL_COLUMNS]
    if len(found) == 1 or not others:
        return found[0] if found else None
    raise InputError(
        f"{listing} has no column 'label'; it has {', '.join(names)}. Name the one with the "
        "classes (--label-column NAME), or say that no image has a label (--label-column '')"
    )


def _splits(
    listing: Path, table: pa.Table, columns: ListingColumns, codes: npt.NDArray[np.int32]
) -> npt.NDArray[np.int8]:
    by_label = np.where(codes >= 0, _LABELED, _UNLABELED).astype(np.int8)
    if columns.split not in table.column_names:
        if columns.split != _DEFAULT.split:
            raise InputError(
                f"{listing} has no column {columns.split!r}; it has "
                f"{', '.join(table.column_names)}"
            )
        return by_label
    values, rows = _encoded(_as_text(listing, columns.split, table[columns.split]))
    names = [class_text(value) for value in values]
    for name in names:
        if name is not None and name not in SPLITS:
            row = int(np.argmax(rows == names.index(name)))
            raise InputError(
                f"{listing} gives {table[columns.path][row].as_py()!r} the split {name!r}; "
                f"wanted one of {', '.join(SPLITS)}"
            )
    given = [-1 if name is None else SPLITS.index(name) for name in names]
    found = np.array([*given, -1], np.int8)[rows]
    return np.where(found >= 0, found, by_label)
