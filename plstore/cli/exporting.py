"""The verb that writes for other tools: export."""

from pathlib import Path
from typing import Annotated

import typer

from plstore.cli.options import AsOfOption, FormatOption, StoreOption, print_rows
from plstore.errors import InputError, MissingExtraError

_KIND = "parquet"
_SPLIT = "unlabeled"


def export(
    store: StoreOption,
    what: Annotated[
        str, typer.Argument(help="VIEW[@VERSION], TEACHER[@ITERATION], or TEACHER.")
    ],
    folder: Annotated[Path, typer.Argument(help="New folder.")],
    kind: Annotated[
        str, typer.Option("--to", help="datasets, parquet, webdataset or folder.")
    ] = _KIND,
    model: Annotated[
        str | None,
        typer.Option(
            "--as",
            help="The teacher's model itself: timm (a folder), onnx or torch (torch.export).",
        ),
    ] = None,
    data_licence: Annotated[
        str | None,
        typer.Option(help="With --as: licence of the images, for the model card."),
    ] = None,
    split: Annotated[str, typer.Option(help="Of a teacher's labels.")] = _SPLIT,
    as_of: AsOfOption = None,
    format_: FormatOption = "table",
) -> None:
    """Write a view, a teacher's labels with their images, or its model, for other tools.

    A model comes with a model card, README.md. onnx and torch are one network each from uint8
    images to probabilities, checked against the model before the folder appears: the largest
    difference of a probability is printed, and kept in export.json.

    Examples:
      plstore export fashion_mnist-3 out --to datasets --store demo/store
      plstore export t0-1a2b3c4d@1 out --to webdataset --store demo/store
      plstore export t3-1a2b3c4d out --as onnx --data-licence MIT --store demo/store
    """
    if model is not None:
        if (kind, split, as_of) != (_KIND, _SPLIT, None):
            raise InputError(
                f"--as {model} with --to, --split or --as-of, which are for labels and views; "
                "leave them out"
            )
        _export_model(store, what, folder, model, data_licence, format_)
        return
    if data_licence is not None:
        raise InputError("--data-licence without --as; it is for the card of a model")
    from plstore.exchange import export as write
    from plstore.report.progress import Display
    from plstore.store import open as open_store

    with Display().task(f"export as {kind}", None) as advance:
        done = write(
            open_store(store),
            what,
            folder,
            kind=kind,  # type: ignore[arg-type]  # checked there
            split=split,
            as_of=as_of,
            on_images=advance,
        )
    print_rows(
        [{"folder": str(done.folder), "images": done.num_images, "files": done.files}], format_
    )


def _export_model(
    store: str, teacher: str, folder: Path, kind: str, data_licence: str | None, format_: str
) -> None:
    try:
        from trainers.exporting import export_model
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train", "exporting a model") from error
    from plstore.store import open as open_store

    done = export_model(
        open_store(store),
        teacher,
        folder,
        kind=kind,  # type: ignore[arg-type]  # checked there
        data_licence=data_licence,
    )
    row = {
        "folder": str(done.folder),
        "file": done.file.name,
        "bytes": done.num_bytes,
        "largest difference": done.largest_difference,
    }
    print_rows([row], format_)
