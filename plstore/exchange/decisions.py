"""Tables in which people name images, and say what is on them.

An image is named by sample id, by key, or by the end of its path, as predictions name theirs.
Rows are counted from 1, the first below the header.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from plstore.errors import InputError
from plstore.exchange.hard_labels import classes_of
from plstore.exchange.image_names import Found, look_up
from plstore.exchange.prediction_tables import ID_COLUMNS
from plstore.exchange.tables import read_table, whole_numbers
from plstore.store import Store

Ints = npt.NDArray[np.int64]

_LABEL = "label"
_FEW = 3


@dataclass(frozen=True, kw_only=True)
class Corrections:
    """What people say is on images.

    Attributes:
        labels: Class by sample id, as the store spells it.
        num_empty: Rows without a class: nobody looked, or nobody disagreed.
    """

    labels: Mapping[int, str]
    num_empty: int = 0


def sample_ids(store: Store, names: Sequence[str], *, dataset: str | None = None) -> list[int]:
    """Return the sample ids of images by their names, in the order of the names.

    A name is an image's key, or a path that ends as one image's does, see
    `plstore.exchange.image_names.find_images`.

    Args:
        store: Where the images are.
        names: Any number; one may be there twice.
        dataset: Of the images, where keys are not unique among data sets.

    Raises:
        InputError: If a name is of no image, or may be of two; the message lists the first few.
    """
    table = pa.table({"key": pa.array(names, pa.string())})
    return images_in(store, table, "the list", dataset=dataset)


def images_in(
    store: Store,
    table: pa.Table,
    source: str,
    *,
    dataset: str | None = None,
    with_deleted: bool = False,
) -> list[int]:
    """Return the sample id of each row of a table.

    Args:
        store: Where the images are.
        table: With a column of `ID_COLUMNS`; the first of these counts.
        source: Where it is from, for messages.
        dataset: Of the images, where keys are not unique among data sets.
        with_deleted: Whether names of deleted images are found, too. Sample ids are taken as
            they are.

    Raises:
        InputError: If there is no such column, or a row names no image, or may name two.
    """
    rows = np.arange(table.num_rows)
    ids = _ids_of(store, table, rows, source, dataset=dataset, with_deleted=with_deleted)
    return [int(sample_id) for sample_id in ids]


def read_corrections(
    store: Store,
    table: pa.Table | str | Path,
    *,
    label: str | None = None,
    dataset: str | None = None,
    source: str | None = None,
) -> Corrections:
    """Read which images people filed under which class.

    A row without a class (an empty cell, null, NaN) says nothing of its image: it is counted,
    and its name is not looked up. So the file of `coverage/labels_by_file` can be given back
    whole, with the column `label` filled in where somebody looked.

    Args:
        store: Where the images are.
        table: A file, see `plstore.exchange.tables.read_table`, or its rows: a column of
            `ID_COLUMNS`, and one named label.
        label: Class of all of them, in place of the column.
        dataset: Of the images, where keys are not unique among data sets.
        source: Where the rows are from, for messages; the file unless given.

    Raises:
        InputError: If columns are missing, a row names no image, may name two, or names one
            that another row names, or a label is no class of the store.
    """
    if not isinstance(table, pa.Table):
        source = source or str(table)
        table = read_table(Path(table))
    source = source or "the table"
    names = _labels_of(table, label, store.class_names, source)
    rows = np.flatnonzero([name is not None for name in names])
    ids = _ids_of(store, table, rows, source, dataset=dataset)
    _check_once(ids, rows, source)
    labels = {int(i): str(names[row]) for i, row in zip(ids, rows, strict=True)}
    return Corrections(labels=labels, num_empty=len(names) - len(rows))


def _labels_of(
    table: pa.Table, label: str | None, class_names: Sequence[str], source: str
) -> list[str | None]:
    """Return the class that each row names; None where it names none."""
    there = _LABEL in table.column_names
    if label is None and not there:
        raise InputError(
            f"{source} has no column {_LABEL!r} and there is no --label: what is their class? "
            "Wanted a column label with the class that someone saw, empty where nobody looked; "
            f"it has the columns {', '.join(table.column_names)}"
        )
    if label is not None and there:
        raise InputError(f"a --label, and {source} has a column of that name: which is it?")
    values = table[_LABEL].to_pylist() if there else [label] * table.num_rows
    names = classes_of(values, class_names)
    known = {unicodedata.normalize("NFC", name) for name in class_names}
    for row, (value, name) in enumerate(zip(values, names, strict=True), start=1):
        if name in known or (there and name is None and _is_empty(value)):
            continue
        what = f"{source} row {row} has the label" if there else "--label is"
        raise InputError(
            f"{what} {value!r}, which is no class of the store; wanted one of "
            f"{', '.join(class_names)}{', or nothing where nobody looked' if there else ''}. "
            "Nothing was written"
        )
    return names


def _is_empty(value: object) -> bool:
    """Return whether a cell holds nothing; a text such as NA is something."""
    if isinstance(value, float):
        return isnan(value)  # as pandas writes what is missing
    return value is None or not str(value).strip()


def _ids_of(
    store: Store,
    table: pa.Table,
    rows: Ints,
    source: str,
    *,
    dataset: str | None,
    with_deleted: bool = False,
) -> Ints:
    """Return the sample ids of some rows of a table."""
    column = next((name for name in ID_COLUMNS if name in table.column_names), None)
    if column is None:
        raise InputError(
            f"{source} has the columns {', '.join(table.column_names)}; wanted one that names "
            f"images among them: {', '.join(ID_COLUMNS)}"
        )
    if column == ID_COLUMNS[0]:
        numbers = whole_numbers(table[column], f"{source}: {column}")
        return np.asarray(numbers.to_numpy()[rows], np.int64)
    names = table[column].cast(pa.string()).combine_chunks().take(pa.array(rows))
    found = look_up(store, names, dataset, with_deleted=with_deleted)
    if (found.rows < 0).any():
        raise InputError(_not_found(store, source, names, rows, found))
    return np.asarray(found.images["sample_id"].to_numpy()[found.rows], np.int64)


def _not_found(store: Store, source: str, names: pa.Array, rows: Ints, found: Found) -> str:
    doubtful = [
        f"{names[place].as_py()!r} (row {rows[place] + 1}: {one!r} or {other!r})"
        for place, (one, other) in found.doubtful.items()
    ]
    unknown = [
        f"{names[place].as_py()!r} (row {rows[place] + 1})"
        for place in np.flatnonzero(found.rows < 0).tolist()
        if place not in found.doubtful
    ]
    said = []
    if unknown:
        said.append(f"{len(unknown)} images that are not in {store.root}, {_such_as(unknown)}")
    if doubtful:
        said.append(f"{len(doubtful)} that may be one of two, {_such_as(doubtful)}")
    example = f", such as {found.images['key'][0].as_py()!r}" if found.images.num_rows else ""
    return (
        f"{source} names {' and '.join(said)}; wanted sample ids, keys{example}, or ends of "
        "paths that are one image's. Nothing was written"
    )


def _such_as(texts: Sequence[str]) -> str:
    more = ", ..." if len(texts) > _FEW else ""
    return f"such as {', '.join(texts[:_FEW])}{more}"


def _check_once(ids: Ints, rows: Ints, source: str) -> None:
    different, first = np.unique(ids, return_index=True)
    if len(different) == len(ids):
        return
    second = int(np.setdiff1d(np.arange(len(ids)), first)[0])
    before = int(np.flatnonzero(ids == ids[second])[0])
    raise InputError(
        f"{source} rows {rows[before] + 1} and {rows[second] + 1} are of one image (sample_id "
        f"{ids[second]}); wanted one row an image. Nothing was written"
    )
