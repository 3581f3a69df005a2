"""What a model sees in files that are in no store: a row for each, whatever it is.

Files are looked at in portions, and what was seen of one is handed on before the next is read:
memory does not grow with their number.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow.compute as pc

from plstore.errors import InputError
from plstore.exchange import ImagePaths, Paths, image_paths
from plstore.images import large_images_are_verdicts
from plstore.labels import TeacherRecord, list_teachers
from plstore.loaders import import_backend, pick_backend
from plstore.loaders.settings import check_number, check_whole
from plstore.loaders.work import Backend
from plstore.report.runs import last_run
from plstore.store import Store
from trainers.events import Listener, Teller, unheard
from trainers.inference.clean import BatchSize, check_batch, first_batch
from trainers.models.model import Bundle, load_bundle, load_teacher
from trainers.prediction.files import Unfinished, kind_of
from trainers.prediction.predicted import Columns, Row
from trainers.prediction.sorting import Sorter
from trainers.prediction.viewing import Viewer
from trainers.training.train import pick_device


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """How files are looked at, what is told of them, and where copies go.

    Attributes:
        teacher_id: A teacher with a model; the best of the last run by
            validation unless given.
        checkpoint: Folder of a model in place of a store's teacher, with config.json and
            model.safetensors; no store is needed then.
        device: "auto", "cpu" or a CUDA device.
        backend: Of the loader; "auto" as in `plstore.load`.
        batch: Images that the model sees at once. "auto" is 64 on the CPU and 512 on a CUDA
            device, fewer of large images. Where memory does not hold them it is halved.
        top_k: Rows have columns `top1_class`, `top1_confidence`, `top2_class`, ... for so many
            classes, the most probable first; 0 for none.
        with_probabilities: Whether rows have a column `prob_CLASS` for each class.
        with_embeddings: Whether rows have a column `embedding`, the model's pooled features
            before its classifier.
        sort_into: Folder that gets a copy of each image, in a folder for each class; see
            `trainers.prediction.sorting.Sorter` for names.
        min_confidence: Copies of images whose confidence is not above it go to `_unsure`.
    """

    teacher_id: str | None = None
    checkpoint: str | Path | None = None
    device: str = "auto"
    backend: Backend = "auto"
    batch: int | Literal["auto"] = "auto"
    top_k: int = 0
    with_probabilities: bool = False
    with_embeddings: bool = False
    sort_into: str | Path | None = None
    min_confidence: float | None = None

    def __post_init__(self) -> None:
        """Check every setting that needs no model.

        Raises:
            InputError: If one is out of range, or two do not go together.
        """
        check_whole("top_k", self.top_k, low=0)
        check_batch(self.batch)
        if self.min_confidence is not None:
            check_number("min_confidence", self.min_confidence, low=0, high=1)
            if self.sort_into is None:
                raise InputError(
                    f"min_confidence is {self.min_confidence}, and nothing is sorted; it goes "
                    "with sort_into, and rows name every confidence"
                )
        if self.teacher_id is not None and self.checkpoint is not None:
            raise InputError(
                f"both a teacher, {self.teacher_id!r}, and a checkpoint, {self.checkpoint}, "
                "are named; wanted one model"
            )


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What a file of predictions holds.

    Attributes:
        file: The file.
        num_rows: Of all of it.
        num_before: Rows that an earlier run had made.
        verdicts: Rows by verdict: accepted, or why there is no class.
        copied: Copies of images that this run made, by folder.
    """

    file: Path
    num_rows: int
    num_before: int
    verdicts: dict[str, int]
    copied: dict[str, int]


_DEFAULT = Prediction()


def predict(
    store: Store | None,
    paths: Paths,
    prediction: Prediction = _DEFAULT,
    *,
    on_event: Listener = unheard,
) -> list[Row]:
    """Return what a model sees in every file, all rows at once; see `predictions`."""
    with large_images_are_verdicts():
        return list(predictions(store, paths, prediction, on_event=on_event))


def predictions(
    store: Store | None,
    paths: Paths,
    prediction: Prediction = _DEFAULT,
    *,
    on_event: Listener = unheard,
) -> Iterator[Row]:
    """Yield what a model sees in every file, in their order, as it is seen.

    A row has `path` (as it was given, or relative to the folder), `class`, `confidence`,
    `verdict` and what else is wanted. A file that is no acceptable image, that is missing, or
    has more than 256 MiB, has the reason as its verdict, and no class. Memory: the encoded
    bytes of 512 files of 64 MiB together, or of one file if it is larger, and one decoded image
    for each thread; however many files there are.

    Args:
        store: Where the teacher is; None where the prediction names a checkpoint.
        paths: A folder (all that is below it), a file, several paths, which may be a stream, or
            `plstore.path_list(FILE)`.
        prediction: How they are looked at.
        on_event: Told of progress.

    Raises:
        InputError: If there is no such model, or there are no such images; at once.
    """
    found, teller = image_paths(paths), Teller(on_event)
    viewer = _open(store, found, prediction, teller)
    return (row for rows in viewer.rows(found) for row in rows)


def prediction_blocks(
    store: Store | None,
    paths: Paths,
    prediction: Prediction = _DEFAULT,
    *,
    on_event: Listener = unheard,
) -> tuple[list[str], Iterator[list[Row]]]:
    """Return the columns of `predictions`, and its rows in blocks as they are seen."""
    found, teller = image_paths(paths), Teller(on_event)
    viewer = _open(store, found, prediction, teller)
    return viewer.columns.names, viewer.rows(found)


def write_predictions(
    store: Store | None,
    paths: Paths,
    out: str | Path,
    prediction: Prediction = _DEFAULT,
    *,
    on_event: Listener = unheard,
) -> Predicted:
    """Write what a model sees in every file to a file; go on where it was stopped.

    The file is CSV, JSON, JSON lines or Parquet by its ending, and appears when it is whole.
    Until then its rows are in a folder beside it; the same call goes on with the files that
    have none, whatever files came or went meanwhile. See `trainers.prediction.files`. In
    Parquet probabilities are one column of lists, in the order of the classes that the metadata
    names, and numbers are not rounded.

    Args:
        store: As of `predictions`.
        paths: The same.
        out: The file: .csv, .json, .jsonl, .ndjson, .parquet or .pq.
        prediction: How they are looked at.
        on_event: Told of progress.

    Raises:
        InputError: As `predictions`, or if the file is there, another process makes it, or it
            was begun with other settings.
    """
    out = Path(out)
    kind_of(out)
    found, teller = image_paths(paths), Teller(on_event)
    viewer = _open(store, found, prediction, teller)
    with Unfinished(out, viewer.columns, viewer.about(found)) as file:
        if file.num_done:
            teller.say(f"{out.name}: {file.num_done} rows are there; it goes on after them")
        with large_images_are_verdicts(), teller.task("predict", found.num_files) as advance:
            for batch in viewer.batches(file.left(found.named(), advance)):
                file.add(batch)
                advance(batch.num_rows)
        if file.num_unnamed:
            teller.say(
                f"{out.name}: {file.num_unnamed} rows are of files that were named before, and "
                "are not now; they stay"
            )
        verdicts = file.finish()
    viewer.say_refused(verdicts)
    return Predicted(
        file=out,
        num_rows=verdicts.total(),
        num_before=file.num_done,
        verdicts=dict(sorted(verdicts.items())),
        copied={} if viewer.sorter is None else dict(sorted(viewer.sorter.copied.items())),
    )


def _open(
    store: Store | None, paths: ImagePaths, prediction: Prediction, teller: Teller
) -> Viewer:
    """Load the model, and check all that can be checked before an image is read."""
    device = pick_device(prediction.device)
    backend = pick_backend(prediction.backend, device)
    import_backend(backend)
    bundle = _bundle(store, prediction, device, teller)
    if prediction.with_embeddings:
        bundle.check_features()
    batch = prediction.batch
    return Viewer(
        bundle=bundle,
        device=device,
        backend=backend,
        batch_size=BatchSize(
            first_batch(bundle.format, device) if batch == "auto" else batch,
            lambda before, now: teller.say(
                f"a batch of {before} images does not fit into memory; {now} from here on"
            ),
        ),
        columns=Columns(
            class_names=bundle.class_names,
            top_k=prediction.top_k,
            with_probabilities=prediction.with_probabilities,
            with_embeddings=prediction.with_embeddings,
        ),
        sorter=_sorter(prediction, bundle, paths),
        teller=teller,
    )


def _sorter(prediction: Prediction, bundle: Bundle, paths: ImagePaths) -> Sorter | None:
    if prediction.sort_into is None:
        return None
    folder = Path(prediction.sort_into)
    sorter = Sorter(folder, bundle.class_names, prediction.min_confidence)
    sorter.check_apart(paths)
    return sorter


def _bundle(store: Store | None, prediction: Prediction, device: str, teller: Teller) -> Bundle:
    if prediction.checkpoint is not None:
        bundle = load_bundle(Path(prediction.checkpoint), device=device)
        for note in bundle.notes:
            teller.say(f"{prediction.checkpoint}: {note}")
        return bundle
    if store is None:
        raise InputError("no model is named; wanted a store with one, or a checkpoint folder")
    teacher = _teacher(store, prediction.teacher_id)
    teller.say(f"{teacher.teacher_id}: {teacher.architecture}, {teacher.role}")
    return load_teacher(store, teacher, device=device)


def _of_last_run(store: Store, models: Sequence[TeacherRecord]) -> list[TeacherRecord]:
    """Return the model that the last run said is its best; of none, the newest's models.

    It may be of an earlier recipe, where a run took it over as it was.
    """
    run = last_run(store)
    said = [t for t in models if run is not None and t.teacher_id == run.result["best"]]
    newest = models[-1].recipe_hash if models else None
    return said or _best_last(store, [t for t in models if t.recipe_hash == newest])


def _best_last(store: Store, models: Sequence[TeacherRecord]) -> list[TeacherRecord]:
    """Return the models of a run, the best by validation last; of equals, the earliest."""
    where = pc.field("name") == "validation_accuracy"
    rows = store.table("runs").read(columns=["run", "value"], where=where).to_pylist()
    measured = {row["run"]: row["value"] for row in rows}

    def worth(model: TeacherRecord) -> tuple[float, bool, int]:
        value = measured.get(model.teacher_id)
        if value is None:  # then the last student
            return -1.0, model.role != "control", model.iteration
        return value, model.role != "control", -model.iteration

    return sorted(models, key=worth)


def _teacher(store: Store, teacher_id: str | None) -> TeacherRecord:
    models = [t for t in list_teachers(store) if t.checkpoint]  # a fusion has none of its own
    found = models
    if teacher_id is None:
        found = _of_last_run(store, [t for t in models if t.is_trained])
    else:
        found = [t for t in models if t.teacher_id == teacher_id]
    if not found:
        raise InputError(
            f"{store.root} has no teacher {teacher_id or 'yet'} with a model; it has "
            f"{', '.join(t.teacher_id for t in models) or 'none: plstore run trains them'}"
        )
    return found[-1]
