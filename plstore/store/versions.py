"""Which snapshot is meant: tags, timestamps, views and numbers of commits."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from plstore import storage
from plstore.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from plstore.store.shard import Commit
    from plstore.store.store import Store

AsOf = str | int | datetime | Mapping[str, int] | None
"""A snapshot: a tag, the number of a commit in `plstore log`, a UTC time in ISO form,
``view@version`` (what that view read), or a version by table (newest where not named). None is
the newest."""

_TAG = re.compile(r"[a-z0-9][a-z0-9._-]*[a-z][a-z0-9._-]*|[a-z][a-z0-9._-]*")


@dataclass(frozen=True, kw_only=True)
class Tag:
    """A name for a snapshot, kept by `plstore gc`."""

    name: str
    versions: Mapping[str, int]
    created_at: datetime
    message: str


def add_tag(store: "Store", name: str, *, as_of: AsOf = None, message: str = "") -> Tag:
    """Name a snapshot.

    Raises:
        InputError: If the name is taken, or cannot be one.
    """
    if not _TAG.fullmatch(name):
        raise InputError(
            f"tag {name!r}: wanted lower-case letters, digits, '.', '_' and '-', with at least "
            "one letter, so that it is no version number"
        )
    now = datetime.now(UTC)
    versions = resolve(store, as_of)
    record = {
        "versions": versions,
        "created_at": now.isoformat(),
        "message": message,
    }
    if not storage.create_json(_tags(store) / f"{name}.json", record):
        raise InputError(
            f"{store.root} has a tag {name!r} already: tags do not move. Take another name, or "
            f"'plstore tag --delete {name}' first"
        )
    if as_of is not None and (gone := _collected(store, versions)):  # from here on it is kept
        storage.delete_file(_tags(store) / f"{name}.json")
        raise InputError(
            f"the snapshot {as_of!r} of {store.root} lacks files that 'plstore gc' collected, "
            f"such as {gone}: it cannot be tagged any more"
        )
    return Tag(name=name, versions=versions, created_at=now, message=message)


def _collected(store: "Store", versions: Mapping[str, int]) -> str | None:
    """Return a file that a snapshot needs and that is not there, if there is one."""
    for name, version in versions.items():
        table = store.table(name)
        there = {entry.path for entry in storage.files_below(table.root)}
        for shard in table.shards(version):
            if shard.path not in there:
                return f"{name}/{shard.path}"
    return None


def delete_tag(store: "Store", name: str) -> None:
    """Take a name from its snapshot; what nothing else keeps is then collectable.

    Raises:
        InputError: If there is no such tag.
    """
    if name not in {tag.name for tag in tags(store)}:
        raise InputError(f"{store.root} has no tag {name!r}")
    storage.delete_file(_tags(store) / f"{name}.json")


def tags(store: "Store") -> list[Tag]:
    """Return all tags, oldest first."""
    found = []
    for entry in storage.files_below(_tags(store)):
        name = entry.path.removesuffix(".json")
        if entry.path.startswith(".") or name == entry.path:
            continue
        record = storage.read_json(_tags(store) / entry.path)
        if record is not None:
            created = datetime.fromisoformat(record["created_at"])
            found.append(Tag(name=name, **{**record, "created_at": created}))
    return sorted(found, key=lambda tag: (tag.created_at, tag.name))


def _tags(store: "Store") -> "Path":
    return store.work_folder("tags")


@dataclass(frozen=True, kw_only=True)
class Pin:
    """A snapshot that a step of a run still needs: kept by `plstore gc` until it is dropped.

    Attributes:
        name: Of the pin: the key of the step.
        versions: Version by table; only the tables that the step reads.
        created_at: None where an older plstore made it.
        why: Which run and step.
    """

    name: str
    versions: Mapping[str, int]
    created_at: datetime | None = None
    why: str = ""


def pin(store: "Store", name: str, versions: Mapping[str, int], *, why: str = "") -> None:
    """Keep a snapshot from being collected until `unpin`: a step is going to read it."""
    record = {
        "versions": dict(versions),
        "created_at": datetime.now(UTC).isoformat(),
        "why": why,
    }
    storage.write_json(_pins(store) / f"{name}.json", record)


def unpin(store: "Store", name: str) -> None:
    """Give up a pin, once what needed it is recorded or pins the same itself."""
    storage.delete_file(_pins(store) / f"{name}.json")


def drop_pin(store: "Store", name: str) -> None:
    """Give up the pin of a run that will not go on; what it kept is then collectable.

    Raises:
        InputError: If there is no such pin.
    """
    known = [found.name for found in pins(store)]
    if name not in known:
        raise InputError(
            f"{store.root} has no pin {name!r}; it has {', '.join(known) or 'none'}"
        )
    unpin(store, name)


def pins(store: "Store") -> list[Pin]:
    """Return the pins of steps, oldest first."""
    found = []
    for entry in storage.files_below(_pins(store)):
        name = entry.path.removesuffix(".json")
        if entry.path.startswith(".") or name == entry.path:
            continue
        record = storage.read_json(_pins(store) / entry.path)
        if record is not None:
            made = record.get("created_at")
            found.append(
                Pin(
                    name=name,
                    versions=record["versions"],
                    created_at=None if made is None else datetime.fromisoformat(made),
                    why=record.get("why", ""),
                )
            )
    return sorted(
        found, key=lambda p: (p.created_at or datetime.min.replace(tzinfo=UTC), p.name)
    )


def step_pins(store: "Store") -> dict[str, Mapping[str, int]]:
    """Return the snapshots that steps still need, by pin."""
    return {found.name: found.versions for found in pins(store)}


def _pins(store: "Store") -> "Path":
    return store.work_folder("pins")


def pinned(store: "Store") -> list[Mapping[str, int]]:
    """Return the snapshots that tags, steps and views keep from being collected."""
    found = [tag.versions for tag in tags(store)] + list(step_pins(store).values())
    return found + [view_pins(row) for row in store.table("views").read().to_pylist()]


def view_pins(row: Mapping[str, Any]) -> Mapping[str, int]:
    """Return the versions that a row of `views` says it read."""
    pins: dict[str, int] = json.loads(row["pins"])
    return pins


def numbered(store: "Store") -> list[tuple[int, "Commit"]]:
    """Return the commits of all tables with their numbers, oldest first.

    Commit n is the n-th that changed the store after its making; with several writers, commits
    of the last moments may still change places. A tag never does.
    """
    commits = []
    for place, table in enumerate(store.history_by_table().values()):
        latest = datetime.min.replace(tzinfo=UTC)
        for commit in sorted(table, key=lambda c: c.version):
            latest = max(latest, commit.time)  # a table's versions are in order, clocks are not
            if commit.version:
                commits.append((latest, place, commit.version, commit))
    commits.sort(key=lambda entry: entry[:3])
    return [(number, entry[3]) for number, entry in enumerate(commits, start=1)]


def resolve(store: "Store", as_of: AsOf = None) -> dict[str, int]:
    """Return the version of every table in a snapshot.

    Raises:
        InputError: If there is no such snapshot.
    """
    if as_of is None:
        return store.versions()
    if isinstance(as_of, Mapping):
        return store.versions() | dict(as_of)
    if isinstance(as_of, int) or (isinstance(as_of, str) and as_of.isdigit()):
        return _at_number(store, int(as_of))
    if isinstance(as_of, datetime):
        return _at_time(store, as_of)
    return _at_name(store, as_of)


def _at_name(store: "Store", name: str) -> dict[str, int]:
    known = {tag.name: dict(tag.versions) for tag in tags(store)}
    if name in known:
        return store.versions() | known[name]
    view, at, version = name.partition("@")
    if at and version.isdigit():
        return store.versions() | dict(_read_by_view(store, view, int(version)))
    try:
        moment = datetime.fromisoformat(name)
    except ValueError as error:
        raise InputError(
            f"{name!r} is no snapshot of {store.root}; wanted a tag "
            f"({', '.join(known) or 'there are none'}), a number of 'plstore log', a time such "
            "as 2026-01-31T12:00, or VIEW@VERSION"
        ) from error
    return _at_time(store, moment)


def _read_by_view(store: "Store", view: str, version: int) -> Mapping[str, int]:
    where = (pc.field("view") == view) & (pc.field("version") == version)
    rows = store.table("views").read(where=where).to_pylist()
    if not rows:
        raise InputError(f"no view {view!r} of version {version} in {store.root}")
    return view_pins(rows[0])


def _at_number(store: "Store", number: int) -> dict[str, int]:
    commits = numbered(store)
    if not 0 <= number <= len(commits):
        raise InputError(f"{store.root} has commits 1 to {len(commits)}; found {number}")
    versions = dict.fromkeys(store.versions(), 0)
    return versions | {commit.table: commit.version for n, commit in commits if n <= number}


def _at_time(store: "Store", moment: datetime) -> dict[str, int]:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)  # as 'plstore log' prints it
    tables = store.history_by_table()
    made = min(commit.time for commits in tables.values() for commit in commits)
    if moment < made:
        raise InputError(f"{store.root} was made at {made.isoformat()}; found {moment}")
    return {
        name: max((c.version for c in commits if c.time <= moment), default=0)
        for name, commits in tables.items()
    }
