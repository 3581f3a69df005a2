"""Predictions that someone already has, as a teacher's labels: Parquet, CSV or NumPy arrays."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

import plstore
from plstore.codec import Codec
from plstore.errors import InputError
from plstore.exchange.listing import read_table
from plstore.fingerprint import value_hash
from plstore.schema import ACCEPTED
from plstore.store import (
    LabelBatch,
    LabelSet,
    Shard,
    Store,
    check_teacher_id,
    commit_labels,
    write_labels,
)

Floats = npt.NDArray[np.float32]

_ID_COLUMNS = ("sample_id", "key", "path", "image", "id", "filename")
_VALUE_COLUMNS = ("probabilities", "probs", "logits", "scores")
_ROWS = 2048
_NEAR_ONE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Matched:
    """Predictions with the images that they are of.

    Attributes:
        splits: For each split, the batches of its images, ascending by sample id.
        num_unknown: Predictions of images that are not in the store: left out.
        num_refused: Predictions of images that were not accepted at import: left out.
        counts: Images by split.
        sample_ids: int64, of all of them.
    """

    splits: dict[str, Callable[[], Iterator[LabelBatch]]]
    num_unknown: int
    num_refused: int
    counts: dict[str, int]
    sample_ids: npt.NDArray[np.int64]


@contextmanager
def match_predictions(
    store: Store,
    values: Path,
    *,
    ids: Path | None = None,
    id_column: str | None = None,
    dataset: str | None = None,
    logits: bool = False,
) -> Iterator[Matched]:
    """Read predictions and find their images; use the result inside the ``with`` block.

    Args:
        store: Where the images are.
        values: ``.npy`` of float [rows, classes] in the order of the store's classes; or
            Parquet or CSV with either one column a class, named as the class, or (Parquet) one
            list column named probabilities, probs, logits or scores.
        ids: For ``.npy``: a ``.npy`` of sample ids, or a text file of one key a line.
        id_column: Of Parquet or CSV: sample ids if it is named sample_id, else keys of images.
            Unless given, the first of sample_id, key, path, image, id and filename.
        dataset: Of the images, where keys are not unique among data sets.
        logits: Whether a softmax is still to be applied.

    Raises:
        InputError: If columns or shapes do not fit, ids repeat, or a row is no distribution.
    """
    with tempfile.TemporaryDirectory() as scratch:
        matrix, names = _open(store, values, ids, id_column, Path(scratch))
        if len(matrix) != len(names):
            raise InputError(f"{values} has {len(matrix)} rows, and there are {len(names)} ids")
        yield _match(store, values, matrix, names, dataset, logits)


def _open(
    store: Store, values: Path, ids: Path | None, id_column: str | None, scratch: Path
) -> tuple[Floats, pa.Array]:
    num_classes = len(store.class_names)
    if values.suffix == ".npy":
        try:
            matrix = np.load(values, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(f"{values} is no array of numbers: {error}") from error
        if matrix.ndim != 2 or matrix.shape[1] != num_classes:  # noqa: PLR2004  rows and classes
            raise InputError(
                f"{values} has shape {matrix.shape}; wanted [rows, {num_classes}], the classes "
                "in the order of the store's"
            )
        return matrix, _ids_beside(values, ids)
    return _from_table(store, values, id_column, scratch)


def _ids_beside(values: Path, ids: Path | None) -> pa.Array:
    if ids is None or not ids.is_file():
        raise InputError(
            f"{values} names no images, and --ids is {ids}; wanted a .npy of sample ids or a "
            "text file of one key a line"
        )
    if ids.suffix == ".npy":
        return pa.array(np.load(ids, allow_pickle=False))
    return pa.array(ids.read_text().splitlines(), pa.string())


def _from_table(
    store: Store, path: Path, id_column: str | None, scratch: Path
) -> tuple[Floats, pa.Array]:
    """Copy a table's values to a mapped array, so that rows can be taken in any order."""
    schema, num_rows, batches = _table_batches(path)
    column = id_column or next((n for n in _ID_COLUMNS if n in schema.names), None)
    if column is None or column not in schema.names:
        raise InputError(
            f"{path} has no column {id_column or ' or '.join(_ID_COLUMNS)!r}; it has "
            f"{', '.join(schema.names)}"
        )
    take = _value_reader(store, path, schema)
    shape = (num_rows, len(store.class_names))
    matrix = np.lib.format.open_memmap(
        scratch / "values.npy", mode="w+", dtype=np.float32, shape=shape
    )
    names: list[pa.Array] = []
    start = 0
    for batch in batches:
        matrix[start : start + batch.num_rows] = take(batch)
        ids = batch[column]
        names.append(ids if column == "sample_id" else ids.cast(pa.string()))
        start += batch.num_rows
    return matrix, pa.concat_arrays(names) if names else pa.array([], pa.int64())


def _table_batches(path: Path) -> tuple[pa.Schema, int, Iterator[pa.RecordBatch]]:
    if path.suffix == ".parquet" and path.is_file():
        file = pq.ParquetFile(path)
        return file.schema_arrow, file.metadata.num_rows, file.iter_batches(_ROWS)
    table = read_table(path, as_text=_ID_COLUMNS[1:])
    return table.schema, table.num_rows, iter(table.to_batches(max_chunksize=_ROWS))


def _value_reader(
    store: Store, path: Path, schema: pa.Schema
) -> Callable[[pa.RecordBatch], Floats]:
    names = list(store.class_names)
    column = next((n for n in _VALUE_COLUMNS if n in schema.names), None)
    if column is not None:

        def from_list(batch: pa.RecordBatch) -> Floats:
            lists = batch[column]
            widths = pc.unique(pc.list_value_length(lists)).to_pylist()
            if widths != [len(names)]:
                raise InputError(
                    f"{path} column {column!r} has lists of {widths} values; wanted "
                    f"{len(names)}"
                )
            flat = lists.flatten().to_numpy(zero_copy_only=False)
            return np.asarray(flat.reshape(-1, len(names)), np.float32)

        return from_list
    missing = [name for name in names if name not in schema.names]
    if missing:
        raise InputError(
            f"{path} has no column for {len(missing)} of the {len(names)} classes, such as "
            f"{missing[0]!r}; wanted a column a class, or one list column named "
            f"{' or '.join(_VALUE_COLUMNS)}"
        )

    def from_columns(batch: pa.RecordBatch) -> Floats:
        columns = [batch[name].to_numpy(zero_copy_only=False) for name in names]
        return np.stack(columns, axis=1).astype(np.float32)

    return from_columns


def _match(
    store: Store,
    path: Path,
    matrix: Floats,
    names: pa.Array,
    dataset: str | None,
    logits: bool,  # noqa: FBT001  private: one caller
) -> Matched:
    images = _images(store, dataset, by_key=not pa.types.is_integer(names.type))
    places = pc.index_in(names.cast(images["name"].type), images["name"].combine_chunks())
    known = places.is_valid().to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(known)
    found = images.take(places.drop_null())
    sample_ids = found["sample_id"].to_numpy()
    if len(np.unique(sample_ids)) != len(sample_ids):
        raise InputError(f"{path} has more than one prediction of some images; wanted one each")
    accepted = pc.equal(found["verdict"], ACCEPTED).to_numpy()
    splits: dict[str, Callable[[], Iterator[LabelBatch]]] = {}
    counts: dict[str, int] = {}
    for split in dict.fromkeys(found["split"].to_pylist()):
        here = np.flatnonzero(accepted & pc.equal(found["split"], split).to_numpy())
        order = here[np.argsort(sample_ids[here], kind="stable")]
        if len(order):
            counts[split] = len(order)
            splits[split] = _reader(path, matrix, rows[order], sample_ids[order], logits)
    return Matched(
        splits=splits,
        num_unknown=int((~known).sum()),
        num_refused=int((~accepted).sum()),
        counts=counts,
        sample_ids=sample_ids[accepted],
    )


def _images(store: Store, dataset: str | None, *, by_key: bool) -> pa.Table:
    where = None if dataset is None else pc.field("dataset") == dataset
    columns = ["sample_id", "split", "verdict", *(["key"] if by_key else [])]
    images = store.table("images").read(columns=columns, where=where)
    names = images["key"] if by_key else images["sample_id"]
    if by_key and pc.count_distinct(names).as_py() != images.num_rows:
        raise InputError(
            f"keys of images repeat among the data sets of {store.root}; name one with "
            "--dataset"
        )
    return images.append_column("name", names)


def _reader(
    path: Path,
    matrix: Floats,
    rows: npt.NDArray[np.intp],
    sample_ids: npt.NDArray[np.int64],
    logits: bool,  # noqa: FBT001  private: one caller
) -> Callable[[], Iterator[LabelBatch]]:
    def batches() -> Iterator[LabelBatch]:
        for start in range(0, len(rows), _ROWS):
            values = np.asarray(matrix[rows[start : start + _ROWS]], np.float32)
            probabilities = _softmax(values) if logits else _checked(values, path)
            yield LabelBatch(
                sample_ids=sample_ids[start : start + _ROWS], probabilities=probabilities
            )

    return batches


def _softmax(logits: Floats) -> Floats:
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True), np.float32)


def _checked(values: Floats, path: Path) -> Floats:
    sums = values.sum(axis=1)
    if (values < 0).any() or not (np.abs(sums - 1) <= _NEAR_ONE).all():
        row = int(np.argmax((values < 0).any(axis=1) | ~(np.abs(sums - 1) <= _NEAR_ONE)))
        raise InputError(
            f"{path} holds a row of minimum {values[row].min()} and sum {sums[row]}: no "
            "probabilities. Logits want --logits"
        )
    return values


def keep_predictions(
    store: Store,
    matched: Matched,
    *,
    teacher_id: str,
    iteration: int,
    codec: Codec,
    source: str,
    replace: bool = False,
    on_images: Callable[[int], None] = lambda _: None,
) -> int:
    """Keep matched predictions as the labels of a teacher; return the version of `soft_labels`.

    Args:
        store: Where to.
        matched: What `match_predictions` found.
        teacher_id: Of these labels.
        iteration: Of these labels.
        codec: How they are kept.
        source: Where they came from, for the lineage.
        replace: Whether they take the place of those that there are of the same iteration and
            splits. Otherwise they stand beside them, and must be of other images.
        on_images: Called with the number of images just kept.

    Raises:
        InputError: If the teacher is of another kind, some images have its labels already, or
            none of the predictions is of an image of the store.
    """
    check_teacher_id(teacher_id)
    _check_teacher(store, teacher_id)
    table = store.table("soft_labels")
    there = [
        shard
        for split in matched.splits
        for shard in table.shards(
            partition=LabelSet(
                iteration=iteration, teacher_id=teacher_id, split=split
            ).partition
        )
    ]
    shards, prints = [], []
    for split, batches in matched.splits.items():
        label_set = LabelSet(iteration=iteration, teacher_id=teacher_id, split=split)
        written = write_labels(
            store, label_set, _counted(batches(), on_images), codec=codec, identity=teacher_id
        )
        shards += written
        prints += [shard.path for shard in written]
    if not shards:
        raise InputError(
            f"none of the predictions of {source} is of an accepted image of {store.root}: "
            f"{matched.num_unknown} name no image, {matched.num_refused} a refused one"
        )
    if not {shard.path for shard in shards} - {shard.path for shard in there}:
        return table.version()  # the same predictions, kept before
    if there:
        _check_beside(store, matched, there, teacher_id, replace=replace)
    lineage = {
        "step": "import predictions",
        "teacher_id": teacher_id,
        "iteration": iteration,
        "source": source,
        "codec": codec.as_json(),
    }
    what = {"new": prints, "there": [shard.path for shard in there], "replace": replace}
    version = commit_labels(
        store,
        shards,
        lineage=lineage,
        transaction=f"predictions-{value_hash(what)}",
        beside=None if replace else there,
    )
    row = {
        "teacher_id": teacher_id,
        "iteration": iteration,
        "role": "predictions",
        "architecture": "",
        "metrics": "{}",
        "code_version": plstore.__version__,
        "created_at": datetime.now(UTC),
    }
    store.append("teachers", [row], identity=f"predictions-{teacher_id}", step="import")
    return version


def _check_teacher(store: Store, teacher_id: str) -> None:
    where = pc.field("teacher_id") == teacher_id
    for row in store.table("teachers").read(where=where).to_pylist():
        if row["role"] != "predictions":
            raise InputError(
                f"{store.root} has a {row['role']} named {teacher_id!r}; name these "
                "predictions otherwise"
            )


def _check_beside(
    store: Store, matched: Matched, there: Sequence[Shard], teacher_id: str, *, replace: bool
) -> None:
    rows = store.table("soft_labels").dataset_of(there).to_table(columns=["sample_id"])
    known = rows["sample_id"].to_numpy()
    both = np.intersect1d(known, matched.sample_ids)
    if len(both) and not replace:
        raise InputError(
            f"{len(both)} of these images have labels by {teacher_id!r} already, such as "
            f"sample_id {both[0]}; --replace puts these in their place"
        )
    lost = np.setdiff1d(known, matched.sample_ids)
    if len(lost) and replace:
        raise InputError(
            f"{len(lost)} other images have labels by {teacher_id!r} too, such as sample_id "
            f"{lost[0]}, and would lose them; replace with predictions of all of them"
        )


def _counted(
    batches: Iterator[LabelBatch], on_images: Callable[[int], None]
) -> Iterator[LabelBatch]:
    for batch in batches:
        yield batch
        on_images(len(batch.sample_ids))
