"""A store: a folder of tables, opened, created and asked for its versions."""

import html
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake.exceptions import DeltaError

from plstore import buckets, storage
from plstore.errors import InputError, StoreError, StoreNotFoundError
from plstore.schema import ACCEPTED, FORMAT_VERSION, TABLES, Profile
from plstore.store.shard import Commit
from plstore.store.table import SAMPLE_IDS, Table

_MARKER = "plstore.json"
_WORK = "_plstore"
_MARKS = "%#?"  # delta-rs takes a place for a URL and reads these as parts of one
_CHECKPOINTS = "checkpoints"
_CAME_LATER = (
    *("embeddings", "view_labels"),  # with 0.5, 0.6
    *("perturbed_labels", "accepted_classes"),  # with 0.7
)
_COMMIT_POINTS = ("runs", "views", "teachers")


class Store:
    """A pseudo-label store. Make one with `plstore.open` or `plstore.create`."""

    def __init__(
        self, root: Path, profile: Profile = "compact", without: Collection[str] = ()
    ) -> None:
        """Name the place; `plstore.open` also checks that it is a store."""
        self.root = root
        self.profile = profile
        names = [name for name in TABLES if name not in without]
        self._tables = {name: Table(root, TABLES[name], profile) for name in names}

    def __repr__(self) -> str:
        """Name the place."""
        return f"Store({str(self.root)!r})"

    def _repr_html_(self) -> str:
        """Show a notebook what the tables hold."""
        rows = []
        for name in self.versions():
            shards = self.table(name).shards()
            count = sum(shard.num_rows for shard in shards)
            rows.append(f"<tr><td>{name}</td><td>{count:,}</td><td>{len(shards):,}</td></tr>")
        head = "<tr><th>table</th><th>rows</th><th>files</th></tr>"
        return f"<p>{html.escape(repr(self))}</p><table>{head}{''.join(rows)}</table>"

    @property
    def tables(self) -> Mapping[str, Table]:
        """The tables, by name."""
        return self._tables

    def table(self, name: str) -> Table:
        """Return one table.

        Raises:
            InputError: If there is no table of that name.
        """
        if name not in self._tables:
            why = f" of {self.root}, which an older plstore made" if name in TABLES else ""
            raise InputError(
                f"no table {name!r}{why}; the tables are {', '.join(self._tables)}"
            )
        return self._tables[name]

    def versions(self, names: Iterable[str] | None = None) -> dict[str, int]:
        """Return the newest version of every table, or of some: a snapshot to pin.

        Tables whose rows name rows of others are looked at first: what they name is there.
        """
        wanted = list(self._tables if names is None else names)
        found = {n: self.table(n).version() for n in _COMMIT_POINTS if n in wanted}
        return {n: found[n] if n in found else self.table(n).version() for n in wanted}

    def history_by_table(self) -> dict[str, list[Commit]]:
        """Return the commits of each table, newest first."""
        return {name: list(table.history()) for name, table in self._tables.items()}

    def history(self) -> list[Commit]:
        """Return the commits of all tables, newest first."""
        commits = [c for commits in self.history_by_table().values() for c in commits]
        return sorted(commits, key=lambda c: (c.time, c.table, c.version), reverse=True)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The label space: names by class id.

        Raises:
            StoreError: If nothing has been imported yet.
        """
        rows = self.table("classes").read()
        if not rows.num_rows:
            raise StoreError(
                f"{self.root} has no classes yet; 'plstore import images' brings them"
            )
        return tuple(rows.sort_by("class_id")["name"].to_pylist())

    def ensure_classes(self, names: Sequence[str]) -> dict[str, int]:
        """Fix the label space, or check that it holds these classes; return ids by name.

        Names are compared and kept in Unicode's composed form (NFC). The ids are the store's,
        whatever the order of `names`: another process may have been first to fix it.

        Raises:
            InputError: If names repeat, or the store's label space lacks one.
        """
        composed = [unicodedata.normalize("NFC", name) for name in names]
        if len(set(composed)) != len(names):
            raise InputError(f"class names repeat: {', '.join(names)}")
        table = self.table("classes")
        rows = table.read()
        if not rows.num_rows and names:
            ids = pa.array(range(len(names)), pa.int32())
            rows = pa.table({"class_id": ids, "name": pa.array(composed, pa.string())})
            lineage = {"step": "import", "classes": len(names)}
            table.append(rows, lineage=lineage, transaction="classes")
            rows = table.read()
        class_ids: dict[str, int] = {}
        for row in rows.sort_by("class_id").to_pylist():
            class_ids.setdefault(unicodedata.normalize("NFC", row["name"]), row["class_id"])
        _check_known(composed, class_ids)
        return class_ids

    def next_sample_id(self) -> int:
        """Return the number of the next image to come."""
        return self.table("images").sequence(SAMPLE_IDS)

    def count_images(self, split: str, *, version: int | None = None) -> int:
        """Return the number of accepted images of a split."""
        where = (pc.field("split") == split) & (pc.field("verdict") == ACCEPTED)
        return int(self.table("images").dataset(version).count_rows(filter=where))

    def append(
        self,
        table: str,
        rows: Iterable[Mapping[str, Any]],
        *,
        identity: str,
        step: str,
        notes: Mapping[str, Any] | None = None,
    ) -> int:
        """Append rows to an unpartitioned table.

        Args:
            table: Table name.
            rows: One mapping per row; missing columns are null.
            identity: Of these rows: appended twice, they are there once.
            step: Who writes; kept in the commit's lineage.
            notes: More for the lineage.
        """
        content = pa.Table.from_pylist(list(rows), schema=TABLES[table].columns)
        return self.table(table).append(
            content, lineage={"step": step, **(notes or {})}, transaction=f"{table}-{identity}"
        )

    def work_folder(self, *names: str) -> Path:
        """Return a place below the store for what is no table: steps, tags, erasures."""
        return self.root.joinpath(_WORK, *names)

    def cache_folder(self, *names: str) -> Path:
        """Return a local folder for what can be made again: mapped images, partial models."""
        return storage.cache_folder(self.root).joinpath(*names)

    def checkpoint(self, name: str) -> Path:
        """Return the place of a teacher's checkpoint, by what its row says."""
        return self.root.joinpath(*Path(name).parts)

    def size_bytes(self) -> dict[str, int]:
        """Return bytes kept by table, then `checkpoints` and `work`."""
        sizes = {name: storage.folder_bytes(table.root) for name, table in self._tables.items()}
        sizes[_CHECKPOINTS] = storage.folder_bytes(self.root / _CHECKPOINTS)
        sizes["work"] = storage.folder_bytes(self.root / _WORK)
        return sizes


def create(path: str | Path, *, profile: Profile = "compact") -> Store:
    """Make a store in a folder or object store, or open the one that is there.

    Args:
        path: A folder, or a URL such as ``s3://bucket/store``.
        profile: Of the Parquet files, for a new store: `compact`, or `portable`.

    Raises:
        StoreError: If it cannot be written there, or the folder holds something else.
    """
    root = _place(path)
    if storage.read_json(root / _MARKER) is not None:
        return open(root)
    _check_free(root)
    store = Store(root, profile)
    marker = {
        "format_version": FORMAT_VERSION,
        "profile": profile,
        "created_at": datetime.now(UTC).isoformat(),
    }
    try:
        for name in TABLES:
            store.table(name).create()
    except Exception as error:
        what = f"cannot make a store in {root}"
        raise buckets.stopped(what, error) or StoreError(f"{what}: {error}") from error
    if not storage.create_json(root / _MARKER, marker):  # another process was first
        return open(root)
    return store


def _place(path: str | Path) -> Path:
    root = storage.location(path)
    if any(mark in str(root) for mark in _MARKS):
        raise InputError(
            f"a store in {str(root)!r}: its commit log cannot be kept below a folder with one "
            f"of {_MARKS} in its name; name another"
        )
    return root


def _check_free(root: Path) -> None:
    if not root.exists():
        return
    names = [path.name for path in root.iterdir()] if root.is_dir() else [""]
    if any(name not in TABLES and not name.startswith(f".{_MARKER}.") for name in names):
        raise StoreError(
            f"{root} is not empty and is no plstore store; name a new or empty folder"
        )


def open(path: str | Path) -> Store:  # noqa: A001  plstore.open is the door
    """Open a store in a folder or object store.

    Raises:
        StoreNotFoundError: If there is no store at the path.
        StoreError: If its format is newer than this plstore reads.
    """
    root = _place(path)
    marker = storage.read_json(root / _MARKER)
    if marker is None:
        raise StoreNotFoundError(
            f"no plstore store at {root}; make one with 'plstore init --store {root}'"
        )
    if not isinstance(marker.get("format_version"), int):
        raise StoreError(f"{root / _MARKER} has no format_version; restore it from a copy")
    if marker["format_version"] > FORMAT_VERSION:
        raise StoreError(
            f"{root} has format version {marker['format_version']}, and this plstore reads up "
            f"to {FORMAT_VERSION}; upgrade plstore"
        )
    profile: Profile = marker.get("profile", "compact")
    lacks = [name for name in _CAME_LATER if not _is_there(root, name, profile)]
    return Store(root, profile, lacks)


def _is_there(root: Path, name: str, profile: Profile) -> bool:
    """Return whether a store has a table, made now where an older plstore made none."""
    first = root / name / "_delta_log" / f"{0:020d}.json"
    if storage.modified(first) is None and not (root / name).exists():
        try:
            Table(root, TABLES[name], profile).create()
        except (OSError, DeltaError):  # the store can only be read
            return False
    return True


def _check_known(names: Sequence[str], class_ids: Mapping[str, int]) -> None:
    if missing := [name for name in names if name not in class_ids]:
        raise InputError(
            f"classes {', '.join(missing)} are not in the store, which has "
            f"{', '.join(class_ids)}: a store has one label space, fixed by its first "
            "import. Make another store, or import all classes first"
        )
