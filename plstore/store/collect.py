"""Garbage collection: what no snapshot, tag, view or running writer needs is deleted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from plstore import storage
from plstore.store.histograms import stale_counts
from plstore.store.log import read_log
from plstore.store.versions import pinned

if TYPE_CHECKING:
    from plstore.store.store import Store
    from plstore.store.table import Table

DEFAULT_GRACE = timedelta(days=1)
"""Younger files are left alone: a writer may be about to commit them, a reader reading them."""

_LOG = "_delta_log/"
_LONGEST_WRITE = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True, order=True)
class Collectable:
    """One file that nothing needs.

    Attributes:
        path: Below the store.
        reason: superseded (by newer files, and pinned by nothing), never_committed, erased, or
            temporary (of a writer that was killed).
        size_bytes: What deleting it frees.
    """

    path: str
    reason: str
    size_bytes: int


def collectable(store: "Store", *, grace: timedelta = DEFAULT_GRACE) -> list[Collectable]:
    """Return what `collect` would delete; nothing is deleted.

    Kept are the files of the newest snapshot, of every snapshot that a tag, a view or a step
    pins, and of the snapshot of `grace` ago; and whatever was written since. Files that an
    erasure wrote anew are never kept: their images are to be gone.
    """
    young = datetime.now(UTC) - grace
    pins = pinned(store)
    found: list[Collectable] = []
    for name in store.versions():
        table = store.table(name)
        kept = _kept(table, pins, young)
        ever: set[str] | None = None
        gone = table.erasures.by_path()
        for entry in storage.files_below(table.root):
            if entry.path in kept or entry.path.startswith(_LOG):
                continue
            if ever is None:
                ever = {path for _, added, _ in read_log(table.root) for path in added}
            erased = entry.path in gone
            if erased or entry.modified < _limit(entry.path, young):
                reason = "erased" if erased else _reason(entry.path, ever)
                found.append(_collectable(f"{name}/{entry.path}", reason, entry))
    found += [
        _collectable(entry.path, "superseded", entry)
        for entry in stale_counts(store)
        if entry.modified < young
    ]
    return sorted(found + _stale_work(store, young))


def collect(
    store: "Store",
    *,
    grace: timedelta = DEFAULT_GRACE,
    on_files: Callable[[int], None] = lambda _: None,
) -> list[Collectable]:
    """Delete what `collectable` returns, and return it."""
    young = datetime.now(UTC) - grace
    deleted = []
    for item in collectable(store, grace=grace):
        if _is_still_unneeded(store, item, young):
            storage.delete_file(store.root.joinpath(*item.path.split("/")))
            deleted.append(item)
        on_files(1)
    return deleted


def _is_still_unneeded(store: "Store", item: Collectable, young: datetime) -> bool:
    """Look again just before a file is deleted: a writer may have come back for it."""
    table, _, path = item.path.partition("/")
    if item.reason == "never_committed":
        modified = storage.modified(store.root.joinpath(*item.path.split("/")))
        if modified is None or modified >= young:
            return False
        return path not in {shard.path for shard in store.table(table).shards()}
    return True


def _limit(path: str, young: datetime) -> datetime:
    """Return the age limit of a file: a temporary one lives for one write alone."""
    if path.rpartition("/")[2].startswith("."):
        return max(young, datetime.now(UTC) - _LONGEST_WRITE)
    return young


def _kept(table: "Table", pins: list[Mapping[str, int]], young: datetime) -> set[str]:
    """Return the files that the newest snapshot, a pinned or a young one needs."""
    wanted = {versions[table.spec.name] for versions in pins if table.spec.name in versions}
    before = [commit.version for commit in table.history() if commit.time < young]
    entries = read_log(table.root)
    wanted |= {max(before, default=0), entries[-1][0]}
    kept: set[str] = set()
    live: set[str] = set()
    for version, added, removed in entries:
        live = (live - removed) | added
        if version in wanted:
            kept |= live
    erased = table.erasures.by_path()
    newest = live
    for path in kept - newest:
        now: str | None = path
        while now is not None and now in erased:
            new = erased[now]
            now = None if new is None else str(new["path"])
        kept.discard(path)
        kept |= set() if now is None else {now}
    return kept


def _reason(path: str, ever_committed: set[str]) -> str:
    if path.rpartition("/")[2].startswith("."):
        return "temporary"
    return "superseded" if path in ever_committed else "never_committed"


def _stale_work(store: "Store", young: datetime) -> list[Collectable]:
    """Return temporary files of killed writers, beside what is kept below the store."""
    found = []
    for folder in ("_plstore", "checkpoints"):
        for entry in storage.files_below(store.root / folder):
            parts = entry.path.split("/")
            hidden = any(part.startswith(".") for part in parts)
            if hidden and entry.modified < young:
                found.append(_collectable(f"{folder}/{entry.path}", "temporary", entry))
    return found


def _collectable(path: str, reason: str, entry: storage.FileEntry) -> Collectable:
    return Collectable(path=path, reason=reason, size_bytes=entry.size_bytes)
