"""Verbs that keep a store in order: tag, pins, gc, compact, verify, delete, decisions."""

import getpass
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any

import typer

from plstore.cli.child import in_child
from plstore.cli.options import (
    AsOfOption,
    FormatOption,
    IdsFileOption,
    IdsOption,
    IdsQueryOption,
    StoreOption,
    chosen_rows,
    print_rows,
    rows_source,
)
from plstore.errors import InputError

FOUND_WRONG = 1

WhoOption = Annotated[str | None, typer.Option(help="Who decided; you unless given.")]


def tag(
    store: StoreOption,
    name: Annotated[str | None, typer.Argument(help="Such as iteration-2; none: list.")] = None,
    as_of: AsOfOption = None,
    message: Annotated[str, typer.Option("--message", "-m", help="Why it has a name.")] = "",
    delete: Annotated[str | None, typer.Option(help="Take this tag away.")] = None,
    format_: FormatOption = "table",
) -> None:
    """Name a snapshot, which plstore gc then keeps; or list the names.

    Examples:
      plstore tag iteration-2 --store pets/store
      plstore tag before-cleanup --as-of 41 -m "as in the paper"
      plstore tag
    """
    from plstore.store import add_tag, delete_tag, tags
    from plstore.store import open as open_store

    if (name is None and (as_of is not None or message)) or (name and delete):
        raise InputError("name one tag to make (with --as-of and -m), or one to --delete")
    opened = open_store(store)
    if delete is not None:
        delete_tag(opened, delete)
    elif name is not None:
        add_tag(opened, name, as_of=as_of, message=message)
    rows = [
        {
            "tag": tag.name,
            "number": sum(tag.versions.values()),
            "made": tag.created_at.strftime("%Y-%m-%d %H:%M:%S"),
            "message": tag.message,
        }
        for tag in tags(opened)
    ]
    print_rows(rows, format_, columns=["tag", "number", "made", "message"])


def pins(
    store: StoreOption,
    drop: Annotated[
        str | None, typer.Option(help="Give this one up: its run will not go on.")
    ] = None,
    format_: FormatOption = "table",
) -> None:
    """List the snapshots that unfinished runs still need, and plstore gc keeps; or drop one.

    Examples:
      plstore pins --store pets/store
      plstore pins --drop 1f0e2d3c4b5a6978
    """
    from plstore.store import drop_pin
    from plstore.store import open as open_store
    from plstore.store import pins as list_pins

    opened = open_store(store)
    if drop is not None:
        drop_pin(opened, drop)
    rows = [
        {
            "pin": pin.name,
            "made": pin.created_at and pin.created_at.strftime("%Y-%m-%d %H:%M:%S"),
            "of": pin.why or None,
            "tables": ", ".join(f"{name} {n}" for name, n in sorted(pin.versions.items())),
        }
        for pin in list_pins(opened)
    ]
    print_rows(rows, format_, columns=["pin", "made", "of", "tables"])


def gc(
    store: StoreOption,
    delete: Annotated[bool, typer.Option("--delete", help="Do it; else only list.")] = False,
    grace_hours: Annotated[
        float, typer.Option(help="Leave alone what is younger: writers may be at work.")
    ] = 24.0,
    format_: FormatOption = "table",
) -> None:
    """List, or delete, files that no snapshot, tag or view needs. Deletes nothing by default.

    Files of deleted images go whatever pins them; all others stay while something names them.

    Example:
      plstore gc --store pets/store && plstore gc --delete --store pets/store
    """
    from plstore.report.progress import Display
    from plstore.store import open as open_store
    from plstore.upkeep import collect, collectable

    if grace_hours < 0:
        raise InputError(f"--grace-hours is {grace_hours}; wanted 0 or more")
    opened, display = open_store(store), Display()
    grace = timedelta(hours=grace_hours)
    if delete:
        with display.task("delete files", None) as advance:
            found = collect(opened, grace=grace, on_files=advance)
    else:
        found = collectable(opened, grace=grace)
    size = sum(item.size_bytes for item in found)
    display.say(
        f"{len(found)} files, {size} bytes: "
        + ("deleted" if delete else "nothing needs them; --delete deletes them")
    )
    print_rows(
        [vars(item) for item in found],
        format_,
        columns=["path", "reason", "size_bytes"],
        whole=True,
    )


def compact(store: StoreOption, format_: FormatOption = "table") -> None:
    """Merge small files; rows, tags and views stay as they are.

    Example:
      plstore compact --store pets/store
    """
    from plstore.report.progress import Display
    from plstore.store import open as open_store
    from plstore.upkeep import compact as merge

    with Display().task("compact", None) as advance:
        rows = [vars(result) for result in merge(open_store(store), on_tables=advance)]
    print_rows(rows, format_)


def verify(store: StoreOption, format_: FormatOption = "table") -> None:
    """Check every file, row, number and pin of a store; exit with 1 if anything is wrong.

    Example:
      plstore verify --store pets/store
    """
    from plstore.report.progress import Display
    from plstore.store import open as open_store
    from plstore.upkeep import count_files
    from plstore.upkeep import verify as check

    opened, display = open_store(store), Display()
    with display.task("verify files", count_files(opened)) as advance:
        problems = check(opened, on_files=advance)
    print_rows(
        [vars(p) for p in problems], format_, columns=["where", "what", "detail"], whole=True
    )
    display.say(f"{len(problems)} problems" if problems else "all is well")
    if problems:
        raise typer.Exit(FOUND_WRONG)


@in_child
def delete(
    store: StoreOption,
    ids: IdsOption = None,
    file: IdsFileOption = None,
    query: IdsQueryOption = None,
    reason: Annotated[str, typer.Option(help="For the record.")] = "deleted",
    who: WhoOption = None,
    format_: FormatOption = "table",
) -> None:
    """Delete images from every table and version; their bytes go with plstore gc --delete.

    Example:
      plstore delete --ids 17,18 --reason "asked by the person shown" --store pets/store
    """
    from plstore.report.progress import Display
    from plstore.store import open as open_store
    from plstore.upkeep import erase

    opened, display = open_store(store), Display()
    rows = chosen_rows(opened, ids=ids, file=file, query=query)
    with display.task("delete images", None) as advance:
        erased = erase(
            opened,
            [row["sample_id"] for row in rows],
            reason=reason,
            who=who or getpass.getuser(),
            on_files=advance,
        )
    table: list[dict[str, Any]] = [{"what": "images deleted", "n": erased.num_images}]
    table += [{"what": f"rows of {name}", "n": n} for name, n in erased.rows_by_table.items()]
    table += [{"what": "files written anew", "n": erased.files}]
    table += [{"what": f"view {name} held some", "n": None} for name in erased.views]
    print_rows(table, format_)
    display.say("plstore gc --delete removes the old files, with the bytes")


@in_child
def exclude(
    store: StoreOption,
    ids: IdsOption = None,
    file: IdsFileOption = None,
    query: IdsQueryOption = None,
    reason: Annotated[str, typer.Option(help="For the record.")] = "excluded",
    who: WhoOption = None,
    format_: FormatOption = "table",
) -> None:
    """Keep images from selection and training.

    Example:
      plstore exclude --query "select sample_id from images where width < 32" --reason tiny
    """
    from plstore.store import open as open_store
    from plstore.upkeep import exclude as keep_out

    opened = open_store(store)
    rows = chosen_rows(opened, ids=ids, file=file, query=query)
    count = keep_out(
        opened,
        [row["sample_id"] for row in rows],
        reason=reason,
        who=who or getpass.getuser(),
    )
    done = [{"named": len(rows), "newly excluded": count}]
    print_rows(done, format_)


@in_child
def correct(
    store: StoreOption,
    ids: IdsOption = None,
    file: IdsFileOption = None,
    query: IdsQueryOption = None,
    label: Annotated[
        str | None, typer.Option(help="Class of all of them, where there is no label column.")
    ] = None,
    who: WhoOption = None,
    format_: FormatOption = "table",
) -> None:
    """Give images the class that a person saw; training takes it.

    Examples:
      plstore correct --ids 17 --label cat --store pets/store
      plstore correct --file reviewed.csv --store pets/store      (sample_id, label)
    """
    from plstore.store import open as open_store
    from plstore.upkeep import correct as put_right

    opened = open_store(store)
    rows = chosen_rows(opened, ids=ids, file=file, query=query)
    if label is None and any("label" not in row for row in rows):
        raise InputError("no --label and no column of that name: what is their class?")
    if label is not None and any("label" in row for row in rows):
        raise InputError("a --label and a column of that name: which is it?")
    labels = _right_labels(rows, label, opened.class_names, rows_source(file))
    if len(labels) != len(rows):
        raise InputError(f"{len(rows)} rows for {len(labels)} images; wanted one row an image")
    count = put_right(opened, labels, who=who or getpass.getuser())
    print_rows([{"named": len(labels), "newly corrected": count}], format_)


def _right_labels(
    rows: Sequence[dict[str, Any]],
    label: str | None,
    class_names: Sequence[str],
    source: str,
) -> dict[int, str]:
    """Return the class of each image, as the store spells it."""
    from plstore.exchange.hard_labels import classes_of

    names = classes_of([row.get("label", label) for row in rows], class_names)
    for number, (row, name) in enumerate(zip(rows, names, strict=True), start=1):
        if name is None and label is not None:
            raise InputError(f"--label is {label!r}; wanted a class of the store")
        if name is None:
            raise InputError(
                f"{source}, row {number} (sample_id {row['sample_id']}) has the label "
                f"{row['label']!r}, which says nothing; wanted a class in every row"
            )
    return {row["sample_id"]: str(name) for row, name in zip(rows, names, strict=True)}


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
    """List training images that are also in validation or test, exactly or nearly.

    Example:
      plstore duplicates --max-distance 2 --store pets/store
    """
    from plstore.exchange.duplicates import find_duplicates
    from plstore.report.progress import Display
    from plstore.schema import ACCEPTED
    from plstore.store import open as open_store
    from plstore.upkeep import exclude as keep_out

    opened, display = open_store(store), Display()
    total = sum(opened.count_images(s) for s in ("labeled", "unlabeled", "validation", "test"))
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
