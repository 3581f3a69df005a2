"""What the log of a table and the records of deletions say of its files."""

import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from plstore import storage
from plstore.errors import CommitConflictError, StoreError
from plstore.fingerprint import content_hash
from plstore.store.shard import Shard

_LISTINGS = 3
_ENTRY = re.compile(r"\d{20}\.json")

Replaced = Mapping[str, dict[str, Any] | None]
"""Path, size and statistics of the file in place of an old one, by its path; or None."""


Entry = tuple[int, set[str], set[str]]
"""A version, and the files that it put into and took from the snapshot."""


def read_log(table: Path, known: Sequence[Entry] = ()) -> list[Entry]:
    """Return the files that each version put into and took from the snapshot, oldest first.

    From the log's own entries: asking Delta for each of many versions takes far longer.

    Args:
        table: The table's folder.
        known: What was read before, from the first entry on: entries never change.

    Raises:
        StoreError: If entries are gone.
    """
    folder = table / "_delta_log"
    names = _entries(folder)[len(known) :]
    entries = list(known)
    with ThreadPoolExecutor() as pool:
        contents = pool.map(lambda name: (folder / name).read_bytes(), names)
        for number, data in enumerate(contents, start=len(known)):
            actions = [json.loads(line) for line in data.splitlines()]
            added, removed = (
                {unquote(action[kind]["path"]) for action in actions if kind in action}
                for kind in ("add", "remove")
            )
            entries.append((number, added, removed))
    return entries


def _entries(folder: Path) -> list[str]:
    """Return the names of all entries, in order.

    A folder that is written to while it is listed may show an entry and not the one before.
    """
    numbers: list[int] = []
    for _ in range(_LISTINGS):
        found = sorted(e.path for e in storage.files_below(folder) if _ENTRY.fullmatch(e.path))
        numbers = [int(name.partition(".")[0]) for name in found]
        if numbers == list(range(len(numbers))):
            return found
    lost = next(n for n, number in enumerate(numbers) if n != number)
    raise StoreError(
        f"{folder} lacks entry {lost}: the log was cut, and what old versions need is not "
        "known. Restore it from a copy"
    )


class Erasures:
    """The records of which file took the place of which when images were deleted."""

    def __init__(self, store: Path, table: str) -> None:
        """Name the folder; nothing is read until it is needed."""
        self._folder = store.joinpath("_plstore", "erasures", table)
        self._table = table
        self._records: dict[str, dict[str, Any]] = {}

    def by_path(self) -> Replaced:
        """Return all of them, by old path.

        Asked anew each time: whoever has a store open must not read what was deleted since.
        """
        for name in storage.names_in(self._folder):
            if not name.startswith(".") and name not in self._records:
                self._records[name] = storage.read_json(self._folder / name) or {}
        return {record["old"]: record["new"] for record in self._records.values()}

    def record(self, old: str, new: Shard | None, *, again: bool = False) -> None:
        """Say which file takes the place of an old one, once and for all.

        Args:
            old: Path of the old one.
            new: The new one; None where nothing is left.
            again: Whether what was said before is void, because that file is gone.

        Raises:
            CommitConflictError: If another deletion has said so already.
        """
        value = None
        if new is not None:
            value = {"path": new.path, "size_bytes": new.size_bytes, "stats": dict(new.stats)}
        name = f"{content_hash(old.encode())}.json"
        if again:
            self._records.pop(name, None)
            storage.write_json(self._folder / name, {"old": old, "new": value})
        elif not storage.create_json(self._folder / name, {"old": old, "new": value}):
            raise CommitConflictError(
                f"another deletion rewrote {old} of {self._table!r} at the same time; run the "
                "same command again"
            )


def after_erasure(shard: Shard, erased: Replaced) -> Shard | None:
    """Return the shard that took a shard's place, itself, or None if nothing is left."""
    now: dict[str, Any] | None = vars(shard)
    while now is not None and now["path"] in erased:
        new = erased[now["path"]]
        now = None if new is None else {**now, **new}
    return None if now is None else Shard(**now)
