"""Verbs that keep a store in order: tag, pins, gc, compact, verify."""

from datetime import timedelta
from typing import Annotated

import typer

from plstore.cli.options import AsOfOption, FormatOption, StoreOption, print_rows
from plstore.errors import InputError

FOUND_WRONG = 1


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
