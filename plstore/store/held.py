"""The snapshots of a table that were looked at last, held so that the next look reads less.

Opening a table reads its last checkpoint and every commit after it: seconds of a table of a
hundred thousand files, and in a bucket a hundred requests. A snapshot that is held asks for new
commits alone.
"""

import threading
from datetime import datetime
from pathlib import Path
from typing import Final

from deltalake import DeltaTable

from plstore import storage

_NAME: Final = "{:020d}.json"


class Held:
    """A snapshot for the thread that looked first.

    Others open their own: who compares a snapshot with what comes later must not see it move.
    """

    def __init__(self, log: Path) -> None:
        """Hold nothing yet, of the table whose log is in this folder."""
        self._log = log
        self._fixed: tuple[DeltaTable | None, datetime | None] = (None, None)
        self._forget()

    def __reduce__(self) -> tuple[type["Held"], tuple[Path]]:
        """Leave what is held: another process looks for itself."""
        return Held, (self._log,)

    def _forget(self) -> None:
        self._delta: DeltaTable | None = None
        self._written: datetime | None = None
        self._transactions: dict[str, int | None] = {}  # of this version
        self._thread = 0

    @property
    def _is_ours(self) -> bool:
        return self._thread == threading.get_ident()

    def newest(self) -> DeltaTable | None:
        """Return the snapshot, brought up to date; None where it is to be opened."""
        delta = self._same()
        if delta is None or self._entry(delta.version() + 1) is None:
            return delta
        try:
            delta.update_incremental()
        except Exception:  # noqa: BLE001  entries are gone: opening says what is wrong
            self._forget()
            return None
        self._note(delta)
        return delta

    def of(self, version: int) -> DeltaTable | None:
        """Return a version, if it is held, without looking for newer ones.

        One that was asked for by its number never moves, so it is for every thread.
        """
        if self._is_ours and self._delta is not None and self._delta.version() == version:
            return self._same()
        fixed, written = self._fixed
        if fixed is None or fixed.version() != version or self._entry(version) != written:
            return None
        return fixed

    def fix(self, delta: DeltaTable) -> None:
        """Hold a version that was asked for by its number, in place of the one before."""
        self._fixed = delta, self._entry(delta.version())

    def keep(self, delta: DeltaTable) -> None:
        """Hold a snapshot that was just opened, unless another thread holds one."""
        if self._delta is None or self._is_ours:
            self._delta, self._thread = delta, threading.get_ident()
            self._note(delta)

    def transaction(self, delta: DeltaTable, identity: str) -> int | None:
        """Return the number of a transaction in a snapshot, None where there is none."""
        is_held = self._is_ours and delta is self._delta
        if is_held and identity in self._transactions:
            return self._transactions[identity]
        found = delta.transaction_version(identity)
        number = None if found is None else int(found)
        if is_held:
            self._transactions[identity] = number
        return number

    def _note(self, delta: DeltaTable) -> None:
        self._written = self._entry(delta.version())
        self._transactions = {}

    def _same(self) -> DeltaTable | None:
        """Return what is held, unless the log in its place is another one by now."""
        if not self._is_ours or self._delta is None:
            return None
        if self._written is None or self._entry(self._delta.version()) != self._written:
            self._forget()
        return self._delta

    def _entry(self, version: int) -> datetime | None:
        """Return when a commit's entry was written; None where there is none."""
        return storage.modified(self._log / _NAME.format(version))
