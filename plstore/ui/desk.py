"""The store that the app is opened on, and the snapshot of it that its pages look at."""

from threading import Lock
from typing import Any

from plstore.errors import InputError
from plstore.report.snapshot import FAILURES, Snapshot
from plstore.store import Store
from plstore.store import open as open_store


class Desk:
    """The store that the app is opened on, with its snapshot of the moment."""

    def __init__(self, path: str, *, is_review: bool = False, who: str = "") -> None:
        """Open the store.

        Args:
            path: Folder or URL.
            is_review: Whether decisions may be written.
            who: Makes them.
        """
        self.path = path
        self.is_review = is_review
        self.who = who
        self.decisions: list[Any] = []  # of this app, the last one last, to be undone
        self._lock = Lock()
        self._snapshot: Snapshot | None = Snapshot(open_store(path))

    def snapshot(self) -> Snapshot:
        """Return the snapshot; it is opened anew where the store went away and is back."""
        with self._lock:
            if self._snapshot is None:
                self._snapshot = Snapshot(open_store(self.path))
            return self._snapshot

    def refresh(self) -> Snapshot:
        """Look at the newest versions from now on, and return them."""
        with self._lock:
            self._snapshot = None
            self._snapshot = Snapshot(open_store(self.path))
            return self._snapshot

    def recover(self) -> None:
        """Let go of a snapshot that failed and is not the newest: its files may be gone."""
        with self._lock:
            try:
                is_old = self._snapshot is None or self._snapshot.is_old()
            except FAILURES:
                is_old = True
            if is_old:
                self._snapshot = None

    def for_review(self) -> Store:
        """Return the store to write decisions to.

        Raises:
            InputError: If the app was opened to look only.
        """
        if not self.is_review:
            raise InputError("this app only reads: start it with 'plstore ui --review'")
        return self.snapshot().store
