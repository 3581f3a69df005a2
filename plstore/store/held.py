"""The newest snapshot of a table, held so that the next look reads what was committed since.

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
        self._forget()

    def __reduce__(self) -> tuple[type["Held"], tuple[Path]]:
        """Leave what is held: another process looks for itself."""
        return Held, (self._log,)

    def _forget(self) -> None:
        self._delta: DeltaTable | None = None
        self._written: datetime | None = None
        self._thread = 0

    @property
    def _is_ours(self) -> bool:
        return self._thread == threading.get_ident()

    def newest(self) -> DeltaTable | None:
        """Return the snapshot, brought up to date; None where it is to be opened."""
        delta = self._same()
        if delta is None:
            return None
        before = delta.version()
        try:
            delta.update_incremental()
        except Exception:  # noqa: BLE001  entries are gone: opening says what is wrong
            self._forget()
            return None
        if delta.version() != before:
            self._written = self._last_written(delta)
        return delta

    def of(self, version: int) -> DeltaTable | None:
        """Return the snapshot if it is this version, without looking for newer ones."""
        if not self._is_ours or self._delta is None or self._delta.version() != version:
            return None
        return self._same()

    def keep(self, delta: DeltaTable) -> None:
        """Hold a snapshot that was just opened, unless another thread holds one."""
        if self._delta is None or self._is_ours:
            self._delta, self._thread = delta, threading.get_ident()
            self._written = self._last_written(delta)

    def _same(self) -> DeltaTable | None:
        """Return what is held, unless the log in its place is another one by now."""
        if not self._is_ours or self._delta is None:
            return None
        if self._written is None or self._last_written(self._delta) != self._written:
            self._forget()
        return self._delta

    def _last_written(self, delta: DeltaTable) -> datetime | None:
        return storage.modified(self._log / _NAME.format(delta.version()))
