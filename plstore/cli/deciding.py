"""Verbs by which people decide on images: exclude, correct, delete, duplicates."""

import getpass
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plstore.cli.child import in_child
from plstore.cli.options import FormatOption, StoreOption, print_rows, say
from plstore.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from plstore.store import Store

IdsOption = Annotated[
    str | None, typer.Option("--ids", help="Sample ids, by commas: 17,18,40.")
]
FileOption = Annotated[
    Path | None,
    typer.Option(
        "--file",
        help="CSV, Parquet or JSON with a column that names images: sample_id, key, path or "
        "file.",
    ),
]
QueryOption = Annotated[
    str | None, typer.Option("--query", help="A SELECT with such a column.")
]
DatasetOption = Annotated[
    str | None,
    typer.Option(help="Of the images, where the same names are in several data sets."),
]
WhoOption = Annotated[str | None, typer.Option(help="Who decided; you unless given.")]


@dataclass(frozen=True, kw_only=True)
class _Named:
    """Rows that name images.

    Attributes:
        rows: With a column that names them.
        source: Where they are from, in messages.
        asked: The same in full, for people who got none.
    """

    rows: "pa.Table"
    source: str
    asked: str

    def say_if_none(self, what: str) -> None:
        """Say so where no image was named, and that nothing came of it."""
        if not self.rows.num_rows:
            say(f"{self.asked} has no rows, so nothing was {what}")


@in_child
def exclude(
    store: StoreOption,
    ids: IdsOption = None,
    file: FileOption = None,
    query: QueryOption = None,
    dataset: DatasetOption = None,
    reason: Annotated[str, typer.Option(help="For the record.")] = "excluded",
    who: WhoOption = None,
    format_: FormatOption = "table",
) -> None:
    """Keep images from selection and training.

    A name is a key, or a path that ends as one image's does. One that is of no image, or may
    be of two, stops all of it.

    Examples:
      plstore exclude --query "select sample_id from images where width < 32" --reason tiny
      plstore exclude --file blurred.csv --reason blurred      (a column file, key or path)
    """
    from plstore.exchange import images_in
    from plstore.store import open as open_store
    from plstore.upkeep import exclude as keep_out

    opened = open_store(store)
    named = _named(opened, ids=ids, file=file, query=query)
    found = images_in(opened, named.rows, named.source, dataset=dataset)
    count = keep_out(opened, found, reason=reason, who=who or getpass.getuser())
    print_rows([{"named": len(found), "newly excluded": count}], format_)
    named.say_if_none("excluded")


@in_child
def correct(
    store: StoreOption,
    ids: IdsOption = None,
    file: FileOption = None,
    query: QueryOption = None,
    label: Annotated[
        str | None, typer.Option(help="Class of all of them, where there is no label column.")
    ] = None,
    dataset: DatasetOption = None,
    who: WhoOption = None,
    format_: FormatOption = "table",
) -> None:
    """Give images the class that a person saw; training takes it.

    A file has a column that names images and a column label with their class. Where the label
    is empty nobody looked: such rows are counted, and change nothing. So a list of all files
    can be printed, filled in here and there in a spreadsheet, and given back whole. What other
    columns say, such as class_name, is the teacher's, and is not read.

    A name is a key, or a path that ends as one image's does. One that is of no image, or may
    be of two, stops all of it.

    Examples:
      plstore correct --ids 17 --label cat --store pets/store
      plstore query run coverage/labels_by_file --format csv > labels.csv
      plstore correct --file labels.csv       (after filling in label where a class is wrong)
      plstore correct --file reviewed.csv     (columns file,label or sample_id,label)
    """
    from plstore.exchange import read_corrections
    from plstore.store import open as open_store
    from plstore.upkeep import correct as put_right

    if ids is not None and label is None:
        raise InputError("--ids without --label: what is their class?")
    opened = open_store(store)
    named = _named(opened, ids=ids, file=file, query=query)
    found = read_corrections(
        opened, named.rows, label=label, dataset=dataset, source=named.source
    )
    count = put_right(opened, found.labels, who=who or getpass.getuser())
    done = {
        "named": len(found.labels),
        "newly corrected": count,
        "without a label": found.num_empty,
    }
    print_rows([done], format_)
    named.say_if_none("corrected")
    if found.num_empty and not found.labels:
        say(
            f"no row of {named.source} has anything in its column label, so nothing was "
            "corrected: fill in the class where you looked"
        )


@in_child
def delete(
    store: StoreOption,
    ids: IdsOption = None,
    file: FileOption = None,
    query: QueryOption = None,
    dataset: DatasetOption = None,
    reason: Annotated[str, typer.Option(help="For the record.")] = "deleted",
    who: WhoOption = None,
    format_: FormatOption = "table",
) -> None:
    """Delete images from every table and version; their bytes go with plstore gc --delete.

    A name is a key, or a path that ends as one image's does. One that is of no image, deleted
    or not, or may be of two, stops all of it.

    Examples:
      plstore delete --ids 17,18 --reason "asked by the person shown" --store pets/store
      plstore delete --file withdrawn.csv --reason "asked for"      (a column file, key or path)
    """
    from plstore.exchange import images_in
    from plstore.store import open as open_store

    opened = open_store(store)
    named = _named(opened, ids=ids, file=file, query=query)
    found = images_in(opened, named.rows, named.source, dataset=dataset, with_deleted=True)
    if found:
        _erase(opened, found, reason, who or getpass.getuser(), format_)
    else:
        print_rows([{"what": "images deleted", "n": 0}], format_)
        named.say_if_none("deleted")


def _erase(store: "Store", ids: Sequence[int], reason: str, who: str, format_: str) -> None:
    from plstore.report.progress import Display
    from plstore.upkeep import erase

    display = Display()
    with display.task("delete images", None) as advance:
        erased = erase(store, ids, reason=reason, who=who, on_files=advance)
    table: list[dict[str, Any]] = [{"what": "images deleted", "n": erased.num_images}]
    table += [{"what": f"rows of {name}", "n": n} for name, n in erased.rows_by_table.items()]
    table += [{"what": "files written anew", "n": erased.files}]
    table += [{"what": f"view {name} held some", "n": None} for name in erased.views]
    print_rows(table, format_)
    display.say("plstore gc --delete removes the old files, with the bytes")


def _named(store: "Store", *, ids: str | None, file: Path | None, query: str | None) -> _Named:
    """Return the rows that name images, by whichever of three options was given.

    Raises:
        InputError: If not exactly one was given, or it cannot be read.
    """
    import pyarrow as pa

    from plstore.exchange.tables import read_table
    from plstore.query import run_sql

    if sum(option is not None for option in (ids, file, query)) != 1:
        raise InputError("name the images by exactly one of --ids, --file and --query")
    if file is not None:
        return _Named(rows=read_table(file), source=str(file), asked=str(file))
    if query is not None:
        rows = run_sql(store, query)
        return _Named(rows=rows, source="the query", asked=f"the query {query!r}")
    try:
        numbers = [int(word) for word in str(ids).split(",")]
    except ValueError as error:
        raise InputError(f"--ids is {ids!r}; wanted numbers such as 17,18,40") from error
    rows = pa.table({"sample_id": pa.array(numbers, pa.int64())})
    return _Named(rows=rows, source="--ids", asked="--ids")


def duplicates(
    store: StoreOption,
    max_distance: Annotated[
        int, typer.Option(help="Bits of 64 that perceptual hashes may differ in, 0 to 8.")
    ] = 4,
    exclude_them: Annotated[
        bool, typer.Option("--exclude", help="Keep them from selection and training.")
    ] = False,
    format_: FormatOption = "table",
) -> None:
    """List training images that are also held out, exactly or nearly.

    Example:
      plstore duplicates --max-distance 2 --store pets/store
    """
    from plstore.exchange.duplicates import find_duplicates
    from plstore.report.progress import Display
    from plstore.schema import ACCEPTED, SPLITS
    from plstore.store import open as open_store
    from plstore.upkeep import exclude as keep_out

    opened, display = open_store(store), Display()
    total = sum(opened.count_images(split) for split in SPLITS)
    with display.task(f"hash {ACCEPTED} images", total) as advance:
        rows = find_duplicates(opened, max_distance=max_distance, on_images=advance)
    if exclude_them and rows:
        ids = [row["sample_id"] for row in rows]
        count = keep_out(
            opened, ids, reason="duplicate of a held-out image", who=getpass.getuser()
        )
        display.say(f"{count} images excluded")
    columns = ["sample_id", "split", "kind", "duplicate_of", "held_out_split", "distance"]
    print_rows(rows, format_, columns=columns)
