"""A store: a folder of tables, opened, created and asked for its versions."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from plstore.errors import InputError, StoreError, StoreNotFoundError
from plstore.schema import ACCEPTED, FORMAT_VERSION, TABLES
from plstore.storage import folder_bytes, read_json, write_json
from plstore.store.table import SAMPLE_IDS, Commit, Table

_MARKER = "plstore.json"
_WORK = "_plstore"


class Store:
    """A pseudo-label store in a folder. Make one with `plstore.open` or `plstore.create`."""

    def __init__(self, root: Path) -> None:
        """Name the folder; `plstore.open` also checks that it is a store."""
        self.root = root
        self._tables = {name: Table(root, spec) for name, spec in TABLES.items()}

    def __repr__(self) -> str:
        """Name the folder."""
        return f"Store({str(self.root)!r})"

    def table(self, name: str) -> Table:
        """Return one table.

        Raises:
            InputError: If there is no table of that name.
        """
        if name not in self._tables:
            raise InputError(f"no table {name!r}; the tables are {', '.join(self._tables)}")
        return self._tables[name]

    def versions(self) -> dict[str, int]:
        """Return the newest version of every table: a snapshot to pin."""
        return {name: table.version() for name, table in self._tables.items()}

    def history(self) -> list[Commit]:
        """Return the commits of all tables, newest first."""
        commits = [commit for table in self._tables.values() for commit in table.history()]
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

        Raises:
            InputError: If names repeat, or the store's label space lacks one.
        """
        if len(set(names)) != len(names):
            raise InputError(f"class names repeat: {', '.join(names)}")
        table = self.table("classes")
        rows = table.read()
        if not rows.num_rows and names:
            ids = pa.array(range(len(names)), pa.int32())
            rows = pa.table({"class_id": ids, "name": pa.array(names, pa.string())})
            lineage = {"step": "import", "classes": len(names)}
            table.append(rows, lineage=lineage, transaction="classes")
            rows = table.read()
        class_ids: dict[str, int] = dict(
            zip(rows["name"].to_pylist(), rows["class_id"].to_pylist(), strict=True)
        )
        missing = [name for name in names if name not in class_ids]
        if missing:
            raise InputError(
                f"classes {', '.join(missing)} are not in the store, which has "
                f"{', '.join(class_ids)}: a store has one label space, fixed by its first "
                "import. Make another store, or import all classes first"
            )
        return class_ids

    def next_sample_id(self) -> int:
        """Return the number of the next image to come."""
        return self.table("images").sequence(SAMPLE_IDS)

    def count_images(self, split: str, *, version: int | None = None) -> int:
        """Return the number of accepted images of a split."""
        where = (pc.field("split") == split) & (pc.field("verdict") == ACCEPTED)
        return int(self.table("images").dataset(version).count_rows(filter=where))

    def append(
        self, table: str, rows: Iterable[Mapping[str, Any]], *, identity: str, step: str
    ) -> int:
        """Append rows to an unpartitioned table.

        Args:
            table: Table name.
            rows: One mapping per row; missing columns are null.
            identity: Of these rows: appended twice, they are there once.
            step: Who writes; kept in the commit's lineage.
        """
        content = pa.Table.from_pylist(list(rows), schema=TABLES[table].columns)
        return self.table(table).append(
            content, lineage={"step": step}, transaction=f"{table}-{identity}"
        )

    def work_folder(self, *names: str) -> Path:
        """Return a folder below the store for what is not a table: steps, caches, partials."""
        return self.root.joinpath(_WORK, *names)

    def size_bytes(self) -> dict[str, int]:
        """Return bytes on disk by table, then `checkpoints` and `work`."""
        sizes = {name: folder_bytes(table.root) for name, table in self._tables.items()}
        sizes["checkpoints"] = folder_bytes(self.root / "checkpoints")
        sizes["work"] = folder_bytes(self.root / _WORK)
        return sizes


def _local(path: str | Path) -> Path:
    if re.match(r"[a-z0-9+]+:/", str(path)):
        raise InputError(
            f"a store at {str(path)!r}: this version keeps stores in local folders only"
        )
    return Path(path).resolve()


def create(path: str | Path) -> Store:
    """Make a store in a folder, or open the one that is there.

    Raises:
        StoreError: If the folder cannot be written, or holds something else.
    """
    root = _local(path)
    if (root / _MARKER).is_file():
        return open(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        partial = root.is_dir() and all(
            path.name in TABLES or path.name.startswith(f".{_MARKER}.")
            for path in root.iterdir()
        )
        if not partial:
            raise StoreError(
                f"{root} is not empty and is no plstore store; name a new or empty folder"
            )
    store = Store(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        for name in TABLES:
            store.table(name).create()
    except OSError as error:
        raise StoreError(f"cannot make a store in {root}: {error}") from error
    marker = {"format_version": FORMAT_VERSION, "created_at": datetime.now(UTC).isoformat()}
    write_json(root / _MARKER, marker)
    return store


def open(path: str | Path) -> Store:  # noqa: A001  plstore.open is the door
    """Open a store.

    Raises:
        StoreNotFoundError: If there is no store at the path.
        StoreError: If its format is newer than this plstore reads.
    """
    root = _local(path)
    marker = read_json(root / _MARKER)
    if marker is None:
        raise StoreNotFoundError(
            f"no plstore store at {root}; make one with 'plstore init --store {root}'"
        )
    if marker["format_version"] > FORMAT_VERSION:
        raise StoreError(
            f"{root} has format version {marker['format_version']}, and this plstore reads up "
            f"to {FORMAT_VERSION}; upgrade plstore"
        )
    return Store(root)
