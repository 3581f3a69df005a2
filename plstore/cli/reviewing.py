"""Verbs of a review in another tool: out to it, and back."""

from pathlib import Path
from typing import Annotated

import typer

from plstore.cli.options import FormatOption, StoreOption, print_rows, say


def review(
    store: StoreOption,
    folder: Annotated[Path, typer.Argument(help="New folder.")],
    tool: Annotated[str, typer.Option("--to", help="label-studio or cvat.")] = "label-studio",
    query: Annotated[
        str, typer.Option(help="Saved query with sample_id, the most worth a look first.")
    ] = "review/worth_a_look",
    num_images: Annotated[int, typer.Option(min=1, help="At most.")] = 200,
    url: Annotated[
        str | None,
        typer.Option(
            help="Of Label Studio: where it will find the images, written beside the tasks "
            "then; within the tasks unless given."
        ),
    ] = None,
    format_: FormatOption = "table",
) -> None:
    """Write images that are worth a look as tasks for Label Studio or CVAT.

    Each has the class of the newest labels, to confirm or to change, and a choice more,
    (exclude). 'plstore import review' takes over what people said, and 'plstore run' trains on
    it. 'plstore ui --review' needs no other tool.

    Label Studio: paste config.xml as labeling interface, import tasks.json; export JSON.
    CVAT: paste labels.json as raw labels of a task, give it the images, upload
    annotations.xml as CVAT 1.1; export "CVAT for images 1.1".

    Examples:
      plstore review to-review --store pets/store
      plstore review to-review --to cvat --num-images 500 --store pets/store
      plstore review to-review --query calibration/likely_label_errors --store pets/store
      plstore import review project-1.json --store pets/store
    """
    from plstore.exchange import export_review
    from plstore.report.progress import Display
    from plstore.store import open as open_store

    with Display().task("write tasks", None) as advance:
        done = export_review(
            open_store(store),
            folder,
            tool=tool,  # type: ignore[arg-type]  # checked there
            query=query,
            num_images=num_images,
            url=url,
            on_images=advance,
            on_note=say,
        )
    row = {"folder": str(done.folder), "images": done.num_images}
    print_rows([row | {"that cannot be had": done.num_gone}], format_)


def import_review(
    store: StoreOption,
    file: Annotated[
        Path,
        typer.Argument(help="JSON of Label Studio; annotations.xml of CVAT, or a zip with it."),
    ],
    who: Annotated[
        str | None, typer.Option(help="Who decided; whom the tool names unless given.")
    ] = None,
    unchanged: Annotated[
        bool,
        typer.Option(
            "--unchanged-is-confirmed",
            help="Of CVAT: tags that are as they were brought in count as seen. After all "
            "images were looked at.",
        ),
    ] = False,
    dataset: Annotated[
        str | None,
        typer.Option(help="Of the images, where the same names are in several data sets."),
    ] = None,
    format_: FormatOption = "table",
) -> None:
    """Take over what people said of images in Label Studio or CVAT.

    Classes become corrections, (exclude) exclusions; what was skipped or left empty changes
    nothing. Tasks of one's own are known by the path of their image.

    Examples:
      plstore import review project-1.json --store pets/store
      plstore import review annotations.xml --unchanged-is-confirmed --store pets/store
    """
    from plstore.exchange import import_review as take
    from plstore.store import open as open_store

    done = take(
        open_store(store),
        file,
        who=who,
        unchanged_is_confirmed=unchanged,
        dataset=dataset,
    )
    row = {
        "newly corrected": done.corrected,
        "newly excluded": done.excluded,
        "unchanged": done.unchanged,
        "without a label": done.without_label,
    }
    print_rows([row], format_)
