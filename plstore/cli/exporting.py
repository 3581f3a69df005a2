"""The verb that writes for other tools: export."""

from pathlib import Path
from typing import Annotated

import typer

from plstore.cli.options import AsOfOption, FormatOption, StoreOption, print_rows


def export(
    store: StoreOption,
    what: Annotated[str, typer.Argument(help="VIEW[@VERSION], or TEACHER[@ITERATION].")],
    folder: Annotated[Path, typer.Argument(help="New folder.")],
    kind: Annotated[
        str, typer.Option("--to", help="datasets, parquet, webdataset or folder.")
    ] = "parquet",
    split: Annotated[str, typer.Option(help="Of a teacher's labels.")] = "unlabeled",
    as_of: AsOfOption = None,
    format_: FormatOption = "table",
) -> None:
    """Write a view, or a teacher's labels with their images, for other tools.

    Examples:
      plstore export fashion_mnist-3 out --to datasets --store demo/store
      plstore export t0-1a2b3c4d@1 out --to webdataset --store demo/store
    """
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
