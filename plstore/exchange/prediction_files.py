"""Files of predictions: a NumPy array with its ids beside it, or a table."""

from collections.abc import Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from plstore.errors import InputError
from plstore.exchange.prediction_tables import (
    Predictions,
    listed,
    order_note,
    read_prediction_table,
)
from plstore.exchange.tables import read_lines, whole_numbers

_ARRAY = ".npy"
_UNREADABLE = (OSError, ValueError, EOFError, SyntaxError, TokenError, MemoryError)
"""What NumPy raises for files that are damaged or none of its own."""


def read_predictions(
    values: Path,
    class_names: Sequence[str],
    *,
    ids: Path | None,
    id_column: str | None,
    scratch: Path,
) -> Predictions:
    """Read a file of predictions; see `match_predictions` for what it may hold.

    Args:
        values: The file.
        class_names: Of the store, in the order of class ids.
        ids: Of an array: the file of its names.
        id_column: Of a table; found unless given.
        scratch: An empty folder that lasts as long as the result.

    Raises:
        InputError: If it cannot be read as such.
    """
    is_array = values.suffix.lower() == _ARRAY
    if is_array and id_column is not None:
        raise InputError(f"{values} is an array, and has no column {id_column!r}; leave it out")
    if is_array:
        return _from_array(values, class_names, ids)
    if ids is not None:
        raise InputError(f"{values} is a table, whose ids are a column; leave out --ids {ids}")
    return read_prediction_table(values, class_names, id_column=id_column, scratch=scratch)


def _from_array(values: Path, class_names: Sequence[str], ids: Path | None) -> Predictions:
    matrix = _load(values, mapped=True)
    num_classes = len(class_names)
    if matrix.ndim != 2 or matrix.shape[1] != num_classes:  # noqa: PLR2004  rows and classes
        raise InputError(
            f"{values} has shape {matrix.shape}; wanted [rows, {num_classes}], the classes in "
            f"the order of the store's: {listed(class_names)}"
        )
    if matrix.dtype.kind not in "fiu":
        raise InputError(
            f"{values} holds {matrix.dtype}; wanted numbers (those of bfloat16 as float32)"
        )
    names = _names_beside(values, ids)
    if len(matrix) != len(names):
        raise InputError(f"{values} has {len(matrix)} rows, and there are {len(names)} ids")
    return Predictions(
        names=names,
        numbers=np.arange(len(names)),
        take=lambda rows: np.asarray(matrix[rows], np.float32),
        notes=(order_note(values, class_names),),
    )


def _names_beside(values: Path, ids: Path | None) -> pa.Array:
    if ids is None or not ids.is_file():
        raise InputError(
            f"{values} names no images, and --ids is {ids}; wanted a .npy of sample ids or a "
            "text file of one key a line"
        )
    if ids.suffix.lower() != _ARRAY:
        return pa.array(read_lines(ids), pa.string())
    array = _load(ids)
    if array.size != max(array.shape, default=0):
        raise InputError(f"{ids} has shape {array.shape}; wanted one id a row")
    array = array.reshape(-1)
    if array.dtype.kind not in "USiuf":
        raise InputError(f"{ids} holds {array.dtype}; wanted sample ids, or names as text")
    if array.dtype.kind in "iuf":
        return whole_numbers(pa.array(array), str(ids))
    try:
        return pa.array(array.astype(str).tolist(), pa.string())
    except UnicodeError as error:
        raise InputError(f"{ids} holds bytes that are no text: {error}") from error


def _load(path: Path, *, mapped: bool = False) -> npt.NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except _UNREADABLE as error:
        if "object" in str(error).lower():
            raise InputError(
                f"{path} holds Python objects, which could run code and are not read; save "
                "numbers as float32, or names by np.save(path, names.astype(str))"
            ) from error
        raise InputError(f"{path} is no array of numbers: {error}") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} is an archive of arrays; wanted one array, by np.save")
    return array
