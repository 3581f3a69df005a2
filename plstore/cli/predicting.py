"""What a model sees in files that are in no store: predict."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from plstore.cli.labeling import BackendOption, BatchOption, batch_of
from plstore.cli.training import DeviceOption
from plstore.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from plstore.exchange import Paths
    from plstore.report.output import StreamFormat
    from trainers.prediction.predict import Predicted, Prediction

_FORMATS = ("table", "json", "jsonl", "csv")


def _check_format(format_: str) -> str:
    if format_ not in _FORMATS:
        raise typer.BadParameter(f"--format is {format_!r}; wanted {', '.join(_FORMATS)}")
    return format_


def predict(
    images: Annotated[
        str | None,
        typer.Argument(help="A folder, an image, or - for paths from stdin, one a line."),
    ] = None,
    list_: Annotated[
        Path | None,
        typer.Option(
            "--list", help="A text of paths, one a line, absolute or below its folder."
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            envvar="PLSTORE_STORE",
            help="Folder or s3:// URL of the store of the teacher.",
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(help="Teacher id; the best of the last run by validation unless given."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a model in place of a store: config.json, model.safetensors."
        ),
    ] = None,
    top_k: Annotated[
        int, typer.Option(help="Columns top1_class, top1_confidence, ... of so many classes.")
    ] = 0,
    probabilities: Annotated[
        bool,
        typer.Option("--probabilities", help="Also a column prob_CLASS for each class."),
    ] = False,
    embeddings: Annotated[
        bool,
        typer.Option("--embeddings", help="Also a column embedding: pooled features."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="File for the rows: .csv, .json, .jsonl or .parquet; goes on."),
    ] = None,
    sort_into: Annotated[
        Path | None, typer.Option(help="Folder for copies of the images, a folder a class.")
    ] = None,
    min_confidence: Annotated[
        float | None,
        typer.Option(help="Copies of images that are not above it go to _unsure."),
    ] = None,
    batch: BatchOption = "auto",
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            callback=_check_format,
            help="How rows are printed, as they come: table, json, jsonl (a line a row), csv.",
        ),
    ] = "table",
) -> None:
    """Say what a trained model sees in images that are in no store.

    Columns: path, as it was given or below the folder; class; confidence, 0 to 1; and verdict:
    accepted, or why there is no class. plstore import predictions takes them.

    With --out, a run that was stopped goes on: rows are kept in .FILE.partial, and FILE appears
    when it is whole. What is printed is how many rows there are by verdict. In Parquet,
    probabilities and embedding are lists.

    With --sort-into, images are copied, never moved, and never over others: where a name is
    taken by another image, part of the hash of its bytes is put behind it.

    Examples:
      plstore predict new-photos --store pets/store --format csv > predictions.csv
      plstore predict new-photos --checkpoint my-model --top-k 5 --out found.parquet
      plstore predict --list paths.txt --store pets/store --embeddings --out found.parquet
      find . -name "*.jpg" | plstore predict - --store pets/store --format jsonl
      plstore predict new-photos --store pets/store --sort-into sorted --min-confidence 0.8
    """
    try:
        from trainers.prediction.predict import Prediction
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train", "prediction") from error
    prediction = Prediction(
        teacher_id=teacher,
        checkpoint=checkpoint,
        device=device,
        backend=backend,  # type: ignore[arg-type]  # checked there
        batch=batch_of(batch),  # type: ignore[arg-type]  # checked there
        top_k=top_k,
        with_probabilities=probabilities,
        with_embeddings=embeddings,
        sort_into=sort_into,
        min_confidence=min_confidence,
    )
    if store is None and checkpoint is None:
        raise InputError("no model is named; wanted --store (or PLSTORE_STORE) or --checkpoint")
    _predict(None if checkpoint else store, _paths(images, list_), prediction, out, format_)


def _predict(
    store: str | None,
    paths: "Paths",
    prediction: "Prediction",
    out: Path | None,
    format_: str,
) -> None:
    from plstore.images import large_images_are_verdicts
    from plstore.report.output import stream
    from plstore.report.progress import Display
    from plstore.store import open as open_store
    from trainers.events import Shown
    from trainers.prediction.predict import prediction_blocks, write_predictions

    opened = None if store is None else open_store(store)
    shown, kind = Shown(Display()), cast("StreamFormat", format_)
    if out is not None:
        rows = _summary(write_predictions(opened, paths, out, prediction, on_event=shown))
        sys.stdout.write("".join(stream([rows], kind, ["what", "n"])))
        return
    with large_images_are_verdicts(), _read_by_another():
        columns, blocks = prediction_blocks(opened, paths, prediction, on_event=shown)
        for text in stream(blocks, kind, columns):
            sys.stdout.write(text)
            sys.stdout.flush()


def _summary(done: "Predicted") -> list[dict[str, object]]:
    rows: list[dict[str, object]] = [{"what": f"rows of {done.file}", "n": done.num_rows}]
    rows += [{"what": verdict, "n": n} for verdict, n in done.verdicts.items()]
    return rows + [{"what": f"copied into {name}", "n": n} for name, n in done.copied.items()]


def _paths(images: str | None, list_: Path | None) -> "Paths":
    from plstore.exchange import path_list

    if (images is None) == (list_ is None):
        raise InputError(
            "name the images once: a folder, an image, - for paths from stdin, or --list FILE"
        )
    if list_ is not None:
        return path_list(list_)
    return _lines_of_stdin() if images == "-" else str(images)


def _lines_of_stdin() -> Iterator[str]:
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            path = line.rstrip(b"\r\n").decode()
        except UnicodeDecodeError as error:
            raise InputError(f"line {number} of stdin is not UTF-8: {line!r}") from error
        if path.strip():
            yield path


@contextmanager
def _read_by_another() -> Iterator[None]:
    """End in silence where whoever reads the rows wants no more of them, as head does."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit from None
