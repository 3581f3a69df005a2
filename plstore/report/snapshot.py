"""What every page looks at: one snapshot of a store, opened once, asked by all of its pages."""

from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, Final, TypeVar

import pyarrow as pa
from deltalake.exceptions import DeltaError

from plstore.errors import PlstoreError
from plstore.labels import LabelSet, label_sets, labels_in_order
from plstore.query import Limits, connect, fetch
from plstore.store import Store

FAILURES: Final = (PlstoreError, OSError, pa.ArrowException, DeltaError)
"""What a store may answer that is gone, damaged or being written: said, and tried again."""

_SECONDS: Final = 120.0
_MOST_HELD: Final = 10_000_000
"""Rows that a snapshot keeps in memory, of 12 to 44 bytes each."""
_T = TypeVar("_T")


class Snapshot:
    """The newest versions of all tables as they were at one moment."""

    def __init__(self, store: Store) -> None:
        """Pin the versions and open SQL over them."""
        self.store = store
        self.pins = store.versions()
        self.num_labels = label_sets(store, self.pins["soft_labels"])
        self.sets = tuple(self.num_labels)
        names = store.table("classes").read(version=self.pins["classes"])
        self.class_names: tuple[str, ...] = tuple(names.sort_by("class_id")["name"].to_pylist())
        self._connection = connect(store, as_of=self.pins, limits=Limits(seconds=_SECONDS))
        self._lock = Lock()
        self._once: dict[object, Any] = {}
        self._once_lock = Lock()
        self._making: dict[object, Lock] = {}
        self._num_held = 0

    def table(
        self,
        sql: str,
        parameters: Mapping[str, Any] | None = None,
        tables: Mapping[str, pa.Table] | None = None,
    ) -> pa.Table:
        """Return the rows of a SELECT of this program's own; the user's goes elsewhere.

        Args:
            sql: One SELECT.
            parameters: Its own.
            tables: More tables that it reads, by name.
        """
        with self._lock:
            for name, rows in (tables or {}).items():
                self._connection.register(name, rows)
            return fetch(self._connection, sql, parameters, seconds=_SECONDS)

    def rows(
        self,
        sql: str,
        parameters: Mapping[str, Any] | None = None,
        tables: Mapping[str, pa.Table] | None = None,
    ) -> list[dict[str, Any]]:
        """Return the rows of a SELECT as Python has them."""
        found: list[dict[str, Any]] = self.table(sql, parameters, tables).to_pylist()
        return found

    def once(self, key: object, make: Callable[[], _T]) -> _T:
        """Return what a snapshot needs to find out only once."""
        with self._once_lock:  # one key waits for no other
            being_made = self._making.setdefault(key, Lock())
        with being_made:
            if key not in self._once:
                self._once[key] = make()
            found: _T = self._once[key]
            return found

    def hold(self, key: object, num_rows: int, rows: Callable[[], pa.Table]) -> str | None:
        """Return the name of a table in memory, for SQL; None where it would be too much.

        Args:
            key: Of what it holds; made once.
            num_rows: How many there will be.
            rows: Returns them.
        """

        def make() -> str | None:
            if self._num_held + num_rows > _MOST_HELD:
                return None
            given = rows()
            with self._lock:
                name = f"held_{self._num_held}_{len(self._once)}"
                self._connection.register("given", given)
                self._connection.execute(f"create table {name} as from given")
                self._connection.unregister("given")
                self._num_held += given.num_rows
            return name

        return self.once(("held", key), make)

    @property
    def number(self) -> int:
        """The number of the newest commit in it, as `plstore log` has it."""
        return sum(self.pins.values())

    def is_old(self) -> bool:
        """Return whether somebody wrote to the store since."""
        return self.store.versions() != self.pins

    def labels(self, split: str = "") -> list[LabelSet]:
        """Return the label sets of a split, or all, the newest last."""
        return [found for found in self.sets if split in {"", found.split}]

    def class_id(self, name: str) -> int | None:
        """Return the class of a name, or of a number written out; None if there is none."""
        by_name: dict[str, int] = self.once(
            "class_ids", lambda: {n: i for i, n in enumerate(self.class_names)}
        )
        if name in by_name:
            return by_name[name]
        number = int(name) if name.isascii() and name.isdigit() else -1
        return number if 0 <= number < len(self.class_names) else None

    def class_name(self, class_id: int | None) -> str | None:
        """Return the name of a class; its number where it has none."""
        if class_id is None:
            return None
        if 0 <= class_id < len(self.class_names):
            return self.class_names[class_id]
        return f"class {class_id}"


def find_labels(snapshot: Snapshot, name: str, split: str = "unlabeled") -> LabelSet | None:
    """Return the label set that ``TEACHER@ITERATION`` names; the newest for no name."""
    known = snapshot.labels(split)
    if not name:
        return newest_labels(snapshot, split)
    return next((found for found in known if labels_name(found) == name), None)


def newest_labels(snapshot: Snapshot, split: str = "unlabeled") -> LabelSet | None:
    """Return the labels of the last iteration, by the teacher that labeled last in it."""

    def find() -> LabelSet | None:
        known = labels_in_order(snapshot.store, snapshot.pins["soft_labels"], [split])
        if not known:
            return None
        teacher_id, iteration = known[-1]
        return LabelSet(teacher_id=teacher_id, iteration=iteration, split=split)

    return snapshot.once(("newest", split), find)


def labels_name(labels: LabelSet) -> str:
    """Return what the app calls labels: ``TEACHER@ITERATION``, as `plstore select` takes it."""
    return f"{labels.teacher_id}@{labels.iteration}"
