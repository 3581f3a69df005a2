"""Garbage collection: what no snapshot, tag, view or running writer needs is deleted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from plstore import storage
from plstore.labels import list_teachers, stale_counts
from plstore.store import Entry, pinned, read_log

if TYPE_CHECKING:
    from plstore.store import Store, Table

DEFAULT_GRACE = timedelta(days=1)
"""Younger files are left alone: a writer may be about to commit them, a reader reading them."""

_LOG = "_delta_log/"
_WORK = "_plstore"
_CHECKPOINTS = "checkpoints"
_LONGEST_WRITE = timedelta(hours=1)
_FILES_AT_ONCE = 1000


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
        entries = read_log(table.root)
        kept = _kept(table, pins, young, entries)
        ever: set[str] | None = None
        gone = table.erasures.by_path()
        for entry in storage.files_below(table.root):
            if entry.path in kept or entry.path.startswith(_LOG):
                continue
            if ever is None:
                ever = {path for _, added, _ in entries for path in added}
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
    """Delete what `collectable` returns, less what a writer came back for; return it.

    Files of tables are looked at once more while no one commits: a writer makes its files young
    before it commits them, and one that is in the snapshot by then stays.
    """
    young = datetime.now(UTC) - grace
    by_table: dict[str, list[Collectable]] = {}
    for item in collectable(store, grace=grace):
        by_table.setdefault(item.path.partition("/")[0], []).append(item)
    deleted = []
    for name, items in by_table.items():
        entries: list[Entry] = []  # of the log; each is read once
        for start in range(0, len(items), _FILES_AT_ONCE):
            part = items[start : start + _FILES_AT_ONCE]
            deleted += _delete(store, name, part, young, entries)
            on_files(len(part))
    return deleted


def _delete(
    store: "Store",
    name: str,
    items: list[Collectable],
    young: datetime,
    entries: list[Entry],
) -> list[Collectable]:
    """Delete those of some files that are still unneeded."""
    places = {item.path: store.root.joinpath(*item.path.split("/")) for item in items}
    if name in {_WORK, _CHECKPOINTS}:
        named = _named_checkpoints(store)
        gone = [
            i for i in items if i.path.rpartition("/")[0] not in named or _is_hidden(i.path)
        ]
        for item in gone:
            storage.delete_file(places[item.path])
        return gone
    deleted = []
    with storage.held(store.table(name).lock_file):
        entries[:] = read_log(store.table(name).root, entries)
        kept = _kept(store.table(name), pinned(store), young, entries)
        for item in items:
            modified = storage.modified(places[item.path])
            came_back = item.reason != "erased" and (modified is None or modified >= young)
            if item.path.partition("/")[2] not in kept and not came_back:
                storage.delete_file(places[item.path])
                deleted.append(item)
    return deleted


def _limit(path: str, young: datetime) -> datetime:
    """Return the age limit of a file: a temporary one lives for one write alone."""
    if path.rpartition("/")[2].startswith("."):
        return max(young, datetime.now(UTC) - _LONGEST_WRITE)
    return young


def _kept(
    table: "Table", pins: list[Mapping[str, int]], young: datetime, entries: Sequence[Entry]
) -> set[str]:
    """Return the files that the newest snapshot, a pinned or a young one needs."""
    wanted = {versions[table.spec.name] for versions in pins if table.spec.name in versions}
    before = [commit.version for commit in table.history() if commit.time < young]
    wanted |= {max(before, default=0), entries[-1][0]}
    kept: set[str] = set()
    live: set[str] = set()
    for version, added, removed in entries:  # in place: a copy a version would be quadratic
        live -= removed
        live |= added
        if version in wanted:
            kept |= live
    return _after_erasures(table, kept, live)


def _after_erasures(table: "Table", kept: set[str], newest: set[str]) -> set[str]:
    """Return kept files as deletions left them: old versions are read with the new files.

    A deletion that was stopped has rewritten files that the newest snapshot still names: both
    stay, the old one until the deletion is completed.
    """
    erased = table.erasures.by_path()
    found = kept & newest
    for path in kept:
        now: str | None = path
        while now is not None and now in erased:
            new = erased[now]
            now = None if new is None else str(new["path"])
        found |= set() if now is None else {now}
    return found


def _reason(path: str, ever_committed: set[str]) -> str:
    if path.rpartition("/")[2].startswith("."):
        return "temporary"
    return "superseded" if path in ever_committed else "never_committed"


def _stale_work(store: "Store", young: datetime) -> list[Collectable]:
    """Return what killed writers left beside the tables: temporary files, models of no one."""
    found = []
    named = _named_checkpoints(store)
    for folder in (_WORK, _CHECKPOINTS):
        for entry in storage.files_below(store.root / folder):
            path = f"{folder}/{entry.path}"
            hidden = _is_hidden(path)
            unnamed = folder == _CHECKPOINTS and path.rpartition("/")[0] not in named
            if (hidden or unnamed) and entry.modified < young:
                reason = "temporary" if hidden else "never_committed"
                found.append(_collectable(path, reason, entry))
    return found


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def _named_checkpoints(store: "Store") -> set[str]:
    """Return the folders of models that rows of `teachers` name, below the store."""
    return {teacher.checkpoint for teacher in list_teachers(store) if teacher.checkpoint}


def _collectable(path: str, reason: str, entry: storage.FileEntry) -> Collectable:
    return Collectable(path=path, reason=reason, size_bytes=entry.size_bytes)
