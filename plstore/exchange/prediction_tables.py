"""Tables of predictions: a column a class, a list column, or a label with its confidence."""

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from plstore.errors import InputError
from plstore.exchange.hard_labels import classes_of, spread, wrong_confidence
from plstore.exchange.label_space import declared_names
from plstore.exchange.tables import (
    table_batches,
    table_metadata,
    table_schema,
    whole_numbers,
)
from plstore.schema import ACCEPTED

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

PREDICTIONS_KEY: Final = b"plstore_predictions"
"""Of a Parquet file's metadata: JSON that names the classes of its lists in `class_names`."""

_SAMPLE_ID = "sample_id"
ID_COLUMNS: Final = (
    _SAMPLE_ID,
    *("key", "path", "image", "id", "filename", "file_name", "file"),
)
"""Columns that name images, in the order in which they are looked for."""
_VALUE_COLUMNS = ("probabilities", "probs", "logits", "scores")
_LABEL_COLUMNS = ("label", "class", "class_name", "prediction", "predicted", "pred")
_CONFIDENCE_COLUMNS = ("confidence", "probability", "prob", "score")
_VERDICT = "verdict"
_NO_CLASS = "no class"
_FEW = 5


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a file holds, not yet matched with images.

    Attributes:
        names: int64 sample ids, or names of images as text: one a prediction.
        numbers: int64, for each its row in the file, as messages count them: of an array from
            0, of a table from 1.
        take: Gives the values of some predictions, float32 [rows, classes].
        is_hard: Whether these are labels, which `take` gives as distributions.
        notes: What was assumed, for people to read.
        left_out: Rows of the file that predict nothing, by reason.
        strangers: Columns that start as those of the classes do, and are of none of them.
    """

    names: pa.Array
    numbers: Ints
    take: Callable[[npt.NDArray[np.int64]], Floats]
    is_hard: bool = False
    strangers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)


def read_prediction_table(
    path: Path, class_names: Sequence[str], *, id_column: str | None, scratch: Path
) -> Predictions:
    """Read a table of predictions; see `match_predictions` for what it may hold.

    Args:
        path: The table.
        class_names: Of the store, in the order of class ids.
        id_column: Found unless given.
        scratch: An empty folder that lasts as long as the result: values are copied there, so
            that rows can be taken in any order.

    Raises:
        InputError: If columns do not fit, or cells are not what they must be.
    """
    schema = table_schema(path)
    ids = _id_column(path, schema.names, id_column)
    others = [column for column in schema if column.name != ids]
    names = [column.name for column in others]
    lists = [column.name for column in others if _is_list(column.type)]
    if values := [name for name in _VALUE_COLUMNS if name in lists]:
        has_verdict = _VERDICT in names
        return _from_lists(path, class_names, ids, values[0], scratch, has_verdict=has_verdict)
    if (wide := _class_columns(path, names, class_names)) is not None:
        has_verdict = _VERDICT in names and _VERDICT not in wide
        found = _from_columns(path, class_names, ids, wide, scratch, has_verdict=has_verdict)
        start = wide[0].removesuffix(class_names[0])
        alike = [name for name in names if start and name.startswith(start)]
        return replace(found, strangers=tuple(name for name in alike if name not in set(wide)))
    label = next((name for name in _LABEL_COLUMNS if name in names), None)
    if label is None:
        raise InputError(
            f"{path} has no column for {len(class_names)} of the {len(class_names)} classes, "
            f"such as {class_names[0]!r}; wanted a column a class, one list column named "
            f"{' or '.join(_VALUE_COLUMNS)}, or labels in a column named "
            f"{' or '.join(_LABEL_COLUMNS)}. It has {listed(schema.names)}"
        )
    return _from_labels(path, class_names, ids, label, names)


def order_note(path: Path, class_names: Sequence[str]) -> str:
    """Say in what order the values of a file were taken that names no classes."""
    return f"{path.name} is taken to be in the order of the store: {listed(class_names)}"


def listed(names: Sequence[str]) -> str:
    """Return the first few of some names, with the number of all if there are more."""
    more = f", ... ({len(names)} in all)" if len(names) > _FEW else ""
    return ", ".join(names[:_FEW]) + more


def _id_column(path: Path, names: Sequence[str], wanted: str | None) -> str:
    column = wanted or next((name for name in ID_COLUMNS if name in names), None)
    if column is None or column not in names:
        raise InputError(
            f"{path} has no column {wanted or ' or '.join(ID_COLUMNS)!r}; it has "
            f"{', '.join(names)}"
        )
    return column


def _id_type(column: str) -> pa.DataType | None:
    return None if column == _SAMPLE_ID else pa.string()


def _ids(path: Path, column: str, values: pa.ChunkedArray) -> pa.Array:
    if column == _SAMPLE_ID:
        return whole_numbers(values, f"{path}: {column}")
    return values.combine_chunks()


def _is_list(kind: pa.DataType) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(kind) for is_kind in kinds)


def _from_lists(
    path: Path,
    class_names: Sequence[str],
    ids: str,
    column: str,
    scratch: Path,
    *,
    has_verdict: bool,
) -> Predictions:
    num_classes = len(class_names)
    order, note = _order_of_lists(path, class_names)

    def values(batch: pa.RecordBatch) -> Floats:
        there = batch[column].is_valid()
        lists = batch[column].filter(there)
        widths = pc.unique(pc.list_value_length(lists)).to_pylist()
        if widths not in ([], [num_classes]):
            raise InputError(
                f"{path} column {column!r} has lists of {listed([str(w) for w in widths])} "
                f"values; wanted {num_classes}, the classes in the order of the store: "
                f"{listed(class_names)}"
            )
        try:
            flat = lists.flatten().cast(pa.float32()).to_numpy(zero_copy_only=False)
        except pa.ArrowException as error:
            raise InputError(f"{path} column {column!r}: {error}; wanted numbers") from error
        rows = np.full((len(there), num_classes), np.nan, np.float32)
        rows[there.to_numpy(zero_copy_only=False)] = flat.reshape(-1, num_classes)[:, order]
        return rows

    columns = {ids: _id_type(ids), column: None}
    columns |= {_VERDICT: pa.string()} if has_verdict else {}
    return _spooled(path, columns, values, scratch / "values", num_classes, (note,))


def _order_of_lists(path: Path, class_names: Sequence[str]) -> tuple[Ints, str]:
    """Return the place in a list of each class of the store, and what to say of it."""
    about = table_metadata(path).get(PREDICTIONS_KEY)
    if about is None:
        return np.arange(len(class_names)), order_note(path, class_names)
    try:
        names = json.loads(about)["class_names"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} has metadata {PREDICTIONS_KEY.decode()} without class_names; write it "
            "anew with plstore predict"
        ) from error
    theirs = declared_names(names, f"{path}: {PREDICTIONS_KEY.decode()}")
    ours = [unicodedata.normalize("NFC", name) for name in class_names]
    if set(theirs) != set(ours):
        raise InputError(
            f"{path} is of the classes {listed(theirs)}; wanted those of the store: "
            f"{listed(class_names)}"
        )
    places = {name: place for place, name in enumerate(theirs)}
    order = np.array([places[name] for name in ours], np.int64)
    return order, f"the classes of {path.name} are matched by name"


def _class_columns(
    path: Path, names: Iterable[str], class_names: Sequence[str]
) -> list[str] | None:
    """Return the columns of the classes, in their order: all with the same start, or none."""
    columns = {unicodedata.normalize("NFC", name): name for name in names}
    wanted = [unicodedata.normalize("NFC", name) for name in class_names]
    starts = {
        column.removesuffix(name)
        for name in wanted[:_FEW]
        for column in columns
        if column.endswith(name)
    }
    counts = {start: sum(start + name in columns for name in wanted) for start in starts}
    whole = sorted(start for start, count in counts.items() if count == len(wanted))
    if len(whole) > 1 and whole[0]:
        raise InputError(
            f"{path} has columns {whole[0] + wanted[0]!r} and {whole[1] + wanted[0]!r}; which "
            "are the predictions? Leave out the others"
        )
    if whole:
        return [columns[whole[0] + name] for name in wanted]
    best = max(sorted(counts), key=lambda start: counts[start], default="")
    if counts.get(best, 0) > (1 if best else 0):
        missing = [best + name for name in wanted if best + name not in columns]
        raise InputError(
            f"{path} has no column for {len(missing)} of the {len(wanted)} classes, such as "
            f"{missing[0]!r}; wanted a column a class, or one list column named "
            f"{' or '.join(_VALUE_COLUMNS)}"
        )
    return None


def _from_columns(
    path: Path,
    class_names: Sequence[str],
    ids: str,
    wide: Sequence[str],
    scratch: Path,
    *,
    has_verdict: bool,
) -> Predictions:
    def values(batch: pa.RecordBatch) -> Floats:
        columns = [batch[name].to_numpy(zero_copy_only=False) for name in wide]
        return np.stack(columns, axis=1).astype(np.float32)

    columns = {ids: _id_type(ids), **dict.fromkeys(wide, pa.float32())}
    columns |= {_VERDICT: pa.string()} if has_verdict else {}
    renamed = wide[0] != class_names[0]
    notes = (f"columns of {path.name}, by class: {listed(wide)}",) if renamed else ()
    return _spooled(path, columns, values, scratch / "values", len(wide), notes)


def _spooled(
    path: Path,
    columns: Mapping[str, pa.DataType | None],
    values: Callable[[pa.RecordBatch], Floats],
    place: Path,
    num_classes: int,
    notes: tuple[str, ...],
) -> Predictions:
    """Copy values to a mapped file; the first of the columns is that of ids.

    Rows without any value whose verdict says why are left out.
    """
    ids = next(iter(columns))
    names: list[pa.Array] = []
    kept: list[npt.NDArray[np.bool_]] = []
    reasons: Counter[str] = Counter()
    with place.open("wb") as file:
        for batch in table_batches(path, columns):
            part, left = values(batch), np.zeros(batch.num_rows, bool)
            if _VERDICT in columns:
                left = np.isnan(part).all(axis=1) & _is_refusal(batch[_VERDICT])
                reasons.update(_reasons(batch[_VERDICT], left))
            part[~left].tofile(file)
            names.append(batch[ids])
            kept.append(~left)
    chosen = np.concatenate(kept) if kept else np.empty(0, bool)
    if not chosen.any():
        raise InputError(f"{path} has no rows with values; wanted predictions")
    matrix = np.memmap(place, np.float32, "r", shape=(int(chosen.sum()), num_classes))
    return Predictions(
        names=_ids(path, ids, pa.chunked_array(names)).filter(pa.array(chosen)),
        numbers=np.flatnonzero(chosen) + 1,
        take=lambda rows: np.asarray(matrix[rows]),
        notes=notes,
        left_out=dict(sorted(reasons.items())),
    )


def _left_out(table: pa.Table, dropped: npt.NDArray[np.bool_]) -> dict[str, int]:
    there = _VERDICT in table.column_names
    verdicts = table[_VERDICT] if there else pa.nulls(len(dropped), pa.string())
    return dict(sorted(_reasons(verdicts, dropped).items()))


def _from_labels(
    path: Path, class_names: Sequence[str], ids: str, label: str, names: Sequence[str]
) -> Predictions:
    confidence = next((name for name in _CONFIDENCE_COLUMNS if name in names), None)
    columns: dict[str, pa.DataType | None] = {ids: _id_type(ids), label: None}
    columns |= {} if confidence is None else {confidence: pa.float64()}
    columns |= {_VERDICT: pa.string()} if _VERDICT in names else {}
    batches = list(table_batches(path, columns))
    if not batches:
        raise InputError(f"{path} has no rows; wanted predictions")
    table = pa.Table.from_batches(batches)
    class_ids = _class_ids(path, table[label], class_names)
    kept = class_ids >= 0
    sure = np.ones(len(kept)) if confidence is None else table[confidence].to_numpy()
    if confidence is not None:
        _check_confidence(path, sure, kept, len(class_names))
    class_ids, sure = class_ids[kept], sure[kept]
    with_it = "certain" if confidence is None else f"with the confidence of {confidence!r}"
    return Predictions(
        names=_ids(path, ids, table[ids]).filter(pa.array(kept)),
        numbers=np.flatnonzero(kept) + 1,
        take=lambda rows: spread(class_ids[rows], sure[rows], len(class_names)),
        is_hard=True,
        notes=(f"labels of column {label!r} of {path.name}, {with_it}",),
        left_out=_left_out(table, ~kept),
    )


def _class_ids(path: Path, labels: pa.ChunkedArray, class_names: Sequence[str]) -> Ints:
    """Return class ids of labels; -1 where one is missing."""
    if pa.types.is_dictionary(labels.type):
        labels = labels.cast(labels.type.value_type)
    different = labels.unique()
    places = {name: class_id for class_id, name in enumerate(class_names)}
    found = []
    for value, name in zip(
        different, classes_of(different.to_pylist(), class_names), strict=True
    ):
        if name is not None and name not in places:
            row = pc.index(labels, value).as_py() + 1
            raise InputError(
                f"{path} row {row} has the label {value.as_py()!r}, which is no class of the "
                f"store: it has {listed(class_names)}"
            )
        found.append(-1 if name is None else places[name])
    return np.asarray(np.array(found, np.int64)[pc.index_in(labels, different).to_numpy()])


def _check_confidence(
    path: Path,
    confidence: npt.NDArray[np.float64],
    kept: npt.NDArray[np.bool_],
    num_classes: int,
) -> None:
    wrong = kept & wrong_confidence(confidence, num_classes)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(
            f"{path} row {row + 1} has the confidence {confidence[row]}; wanted that of the "
            f"most probable of {num_classes} classes: {1 / num_classes:.3g} to 1"
        )


def _is_refusal(verdicts: pa.Array) -> npt.NDArray[np.bool_]:
    says_nothing = pc.is_in(verdicts, pa.array([None, "", ACCEPTED]))
    return ~np.asarray(says_nothing.to_numpy(zero_copy_only=False), bool)


def _reasons(verdicts: pa.Array, left: npt.NDArray[np.bool_]) -> Counter[str]:
    """Count rows that are left out by their verdict, where there is one."""
    texts = verdicts.filter(pa.array(left)).to_pylist()
    return Counter(text if text and text != ACCEPTED else _NO_CLASS for text in texts)
