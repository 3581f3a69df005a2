"""Predictions that someone already has, as a teacher's labels: Parquet, CSV or NumPy arrays."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from plstore.codec import Codec
from plstore.errors import InputError
from plstore.exchange.distributions import as_distributions, check_logits, softmax
from plstore.exchange.image_names import Found, find_images
from plstore.exchange.prediction_files import read_predictions
from plstore.exchange.prediction_tables import Predictions
from plstore.fingerprint import value_hash
from plstore.labels import (
    LabelBatch,
    LabelSet,
    TeacherRecord,
    add_teacher,
    check_teacher_id,
    commit_labels,
    find_teacher,
    write_labels,
)
from plstore.schema import ACCEPTED
from plstore.store import Shard, Store

Floats = npt.NDArray[np.float32]

_ROWS = 2048


@dataclass(frozen=True, kw_only=True)
class Matched:
    """Predictions with the images that they are of.

    Attributes:
        splits: For each split, the batches of its images, ascending by sample id.
        num_unknown: Predictions of images that are not in the store: left out.
        num_refused: Predictions of images that were not accepted at import: left out.
        counts: Images by split.
        sample_ids: int64, of all of them.
        left_out: Rows that predict nothing, by reason.
        notes: What was assumed of the file, for people to read.
        examples: A name of the file, and one of the store, where nothing was found.
    """

    splits: dict[str, Callable[[], Iterator[LabelBatch]]]
    num_unknown: int
    num_refused: int
    counts: dict[str, int]
    sample_ids: npt.NDArray[np.int64]
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    examples: tuple[str, str] | None = None


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
        values: ``.npy`` of float [rows, classes] in the order of the store's classes; or a
            table (Parquet, CSV, JSON) with one of these: a column a class, named as the class,
            all with the same start if they have one (prob_cat, prob_dog); a list column named
            probabilities, probs, logits or scores; or labels, in a column such as label or
            class, and their confidence, if there is such a column. A label's class gets its
            confidence (1 without), all others even shares of what is left. Rows without a
            label are counted. Probabilities are normalised as `distributions` says.
        ids: For ``.npy``: a ``.npy`` of sample ids or names, or a text file of one name a line.
        id_column: Of a table: sample ids if it is named sample_id, else names of images. Unless
            given, the first there is of sample_id, key, path, image, id, filename, file_name
            and file. A name is an image's key, or a path that `find_images` finds it by.
        dataset: Of the images, where keys are not unique among data sets.
        logits: Whether a softmax is still to be applied.

    Raises:
        InputError: If columns or shapes do not fit, a name may be of two images, two are of one
            image, or a row is no distribution.
    """
    with tempfile.TemporaryDirectory() as scratch:
        predictions = read_predictions(
            values,
            store.class_names,
            ids=ids,
            id_column=id_column,
            scratch=Path(scratch),
        )
        if logits:
            _check_logits(values, predictions)
        found = find_images(store, predictions.names, dataset)
        yield _match(values, predictions, found, logits=logits)


def _check_logits(path: Path, predictions: Predictions) -> None:
    if predictions.is_hard:
        raise InputError(f"{path} holds labels, no logits; leave out --logits")
    if predictions.strangers:  # of probabilities, the sum would tell
        raise InputError(
            f"{path} has a column {predictions.strangers[0]!r}, of no class of the store, and "
            "a softmax over the others would hide it; leave that column out, or give the "
            "probabilities"
        )
    check_logits(predictions.take(np.arange(min(_ROWS, len(predictions.names)))), path)


def _how_found(found: Found) -> list[str]:
    if found.example is None:
        return []
    note = (
        f"{found.num_by_end} names are no keys and were found by the ends of paths, such "
        f"as {found.example[0]!r} for {found.example[1]!r}"
    )
    return [note]


def _match(path: Path, predictions: Predictions, found: Found, *, logits: bool) -> Matched:
    rows = np.flatnonzero(found.rows >= 0)
    images = found.images.take(pa.array(found.rows[rows]))
    sample_ids = images["sample_id"].to_numpy()
    _check_once(path, predictions, rows, sample_ids)
    accepted = pc.equal(images["verdict"], ACCEPTED).to_numpy()
    splits: dict[str, Callable[[], Iterator[LabelBatch]]] = {}
    counts: dict[str, int] = {}
    for split in dict.fromkeys(images["split"].to_pylist()):
        here = np.flatnonzero(accepted & pc.equal(images["split"], split).to_numpy())
        order = here[np.argsort(sample_ids[here], kind="stable")]
        if len(order):
            counts[split] = len(order)
            splits[split] = _reader(path, predictions, rows[order], sample_ids[order], logits)
    return Matched(
        splits=splits,
        num_unknown=len(found.rows) - len(rows),
        num_refused=int((~accepted).sum()),
        counts=counts,
        sample_ids=sample_ids[accepted],
        left_out=predictions.left_out,
        notes=(*predictions.notes, *_how_found(found)),
        examples=None if len(rows) else _examples(predictions, found),
    )


def _check_once(
    path: Path,
    predictions: Predictions,
    rows: npt.NDArray[np.int64],
    sample_ids: npt.NDArray[np.int64],
) -> None:
    different, first = np.unique(sample_ids, return_index=True)
    if len(different) == len(sample_ids):
        return
    second = int(np.setdiff1d(np.arange(len(sample_ids)), first)[0])
    pair = (int(np.flatnonzero(sample_ids == sample_ids[second])[0]), second)
    places = [_place(path, predictions, int(rows[i])) for i in pair]
    raise InputError(
        f"{path} has more than one prediction of some images, such as {places[0]} and "
        f"{places[1]}; wanted one each"
    )


def _place(path: Path, predictions: Predictions, row: int) -> str:
    return f"{path} row {predictions.numbers[row]} ({predictions.names[row].as_py()!r})"


def _examples(predictions: Predictions, found: Found) -> tuple[str, str] | None:
    if not len(predictions.names) or not found.images.num_rows:
        return None
    name = "key" if "key" in found.images.column_names else "sample_id"
    return repr(predictions.names[0].as_py()), repr(found.images[name][0].as_py())


def _reader(
    path: Path,
    predictions: Predictions,
    rows: npt.NDArray[np.int64],
    sample_ids: npt.NDArray[np.int64],
    logits: bool,  # noqa: FBT001  private: one caller
) -> Callable[[], Iterator[LabelBatch]]:
    turn = softmax if logits else as_distributions

    def batch(start: int) -> LabelBatch:
        here = rows[start : start + _ROWS]
        return LabelBatch(
            sample_ids=sample_ids[start : start + _ROWS],
            probabilities=turn(
                predictions.take(here), lambda row: _place(path, predictions, int(here[row]))
            ),
        )

    return lambda: map(batch, range(0, len(rows), _ROWS))


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
        InputError: If the teacher is of another kind, some images have its labels already,
            others would lose theirs, or none of the predictions is of an image of the store.
        CommitConflictError: If others wrote labels of the same images at the same time.
    """
    check_teacher_id(teacher_id)
    _check_teacher(store, teacher_id)
    read, there = _labels_there(store, matched, teacher_id, iteration)
    shards = _write(store, matched, teacher_id, iteration, codec, on_images)
    if not shards:
        raise InputError(_nothing(store, matched, source))
    new, old = ([shard.path for shard in some] for some in (shards, there))
    version = read
    if set(new) - set(old) or (replace and set(old) - set(new)):  # else they are there already
        if there:
            _check_beside(store, matched, there, teacher_id, replace=replace)
        # The version, because labels that were replaced may come back.
        what = {"version": read, "new": new, "there": old, "replace": replace}
        version = commit_labels(
            store,
            shards,
            lineage={
                "step": "import predictions",
                "teacher_id": teacher_id,
                "iteration": iteration,
                "source": source,
                "codec": codec.as_json(),
            },
            transaction=f"predictions-{value_hash(what)}",
            beside=None if replace else there,
            instead_of=there if replace else None,
        )
    _name_teacher(store, teacher_id, iteration)
    return version


def _write(
    store: Store,
    matched: Matched,
    teacher_id: str,
    iteration: int,
    codec: Codec,
    on_images: Callable[[int], None],
) -> list[Shard]:
    shards: list[Shard] = []
    for split, batches in matched.splits.items():
        label_set = LabelSet(iteration=iteration, teacher_id=teacher_id, split=split)
        counted = _counted(batches(), on_images)
        shards += write_labels(store, label_set, counted, codec=codec, identity=teacher_id)
    return shards


def _labels_there(
    store: Store, matched: Matched, teacher_id: str, iteration: int
) -> tuple[int, list[Shard]]:
    """Return the newest version with the files of the label sets that are to be filled."""
    version, newest = store.table("soft_labels").newest()
    own = {"teacher_id": teacher_id, "iteration": str(iteration)}.items()
    return version, [
        shard
        for shard in newest
        if own <= shard.partition.items() and shard.partition["split"] in matched.splits
    ]


def _name_teacher(store: Store, teacher_id: str, iteration: int) -> None:
    """Say whose labels these are, last of all: an import that was stopped before it goes on."""
    record = TeacherRecord(teacher_id=teacher_id, iteration=iteration, role="predictions")
    add_teacher(store, record, identity=f"predictions-{teacher_id}", step="import")


def _nothing(store: Store, matched: Matched, source: str) -> str:
    lost = "".join(
        f", {count} without a class: {why}" for why, count in matched.left_out.items()
    )
    found = (
        f"none of the predictions of {source} is of an accepted image of {store.root}: "
        f"{matched.num_unknown} name no image, {matched.num_refused} a refused one{lost}"
    )
    if matched.examples is None:
        return found
    return (
        f"{found}. The first is of {matched.examples[0]}; the store has such as "
        f"{matched.examples[1]}"
    )


def _check_teacher(store: Store, teacher_id: str) -> None:
    known = find_teacher(store, teacher_id)
    if known is not None and known.role != "predictions":
        raise InputError(
            f"{store.root} has a {known.role} named {teacher_id!r}; name these predictions "
            "otherwise"
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
