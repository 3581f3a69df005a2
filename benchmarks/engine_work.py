"""What `engines` measures with: a store of many ranges, and workers that are killed."""

import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plstore.store import Claim, Store
from plstore.store.table import SAMPLE_IDS
from trainers.engines import Ray, Work
from trainers.engines.work import OnImages


def skip_to(store: Store, sample_id: int) -> None:
    """Take sample ids for no image, as an import that fails does."""
    start = store.next_sample_id()
    if start < sample_id:
        claim = Claim(name=SAMPLE_IDS, start=start, end=sample_id)
        store.table("images").commit(
            [], lineage={"step": "skip"}, transaction=f"skip-{sample_id}", claim=claim
        )


@dataclass(frozen=True, kw_only=True)
class KilledOnce:
    """Work whose worker is killed, by SIGKILL, the first time that it is a task's turn.

    Attributes:
        inner: The work.
        at: The task; None kills no one.
        marker: A file that is there once a worker was killed.
        when: "before" the task is done, "during" it, or "after" its files are written.
        pause: Seconds that each task takes longer.
    """

    inner: Work[Any, Any]
    marker: Path
    at: object = None
    when: str = "after"
    pause: float = 0.0

    @property
    def device(self) -> str:
        """Where the work computes."""
        return self.inner.device

    def open(self, on_images: OnImages) -> Callable[[object], object]:
        """Open the work."""
        do = self.inner.open(on_images)

        def done(task: object) -> object:
            time.sleep(self.pause)
            if task != self.at or self.marker.exists():
                return do(task)
            self.marker.touch()
            if self.when == "during":
                threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGKILL)).start()
                while True:
                    do(task)
            if self.when == "after":
                do(task)
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError("a killed process goes on")

        return done


@dataclass(frozen=True, kw_only=True)
class Troubled(Ray):
    """Ray with a worker that is killed, and with what happens after so many results.

    Attributes:
        at: The task at which it is killed.
        marker: See `KilledOnce`; so are `when` and `pause`.
        after: So many results; -1 for never.
        happens: What then happens, in this process.
    """

    at: object = None
    marker: Path = Path("/nowhere")
    when: str = "after"
    pause: float = 0.0
    after: int = -1
    happens: Callable[[], None] = lambda: None

    def run(
        self, work: Work[Any, Any], tasks: Sequence[Any], on_images: OnImages
    ) -> Generator[Any]:
        """Yield what comes of each task, whoever is killed."""
        killed = KilledOnce(
            inner=work, at=self.at, marker=self.marker, when=self.when, pause=self.pause
        )
        for number, result in enumerate(super().run(killed, tasks, on_images), 1):
            yield result
            if number == self.after:
                self.happens()


def files(store: Store, table: str = "soft_labels") -> dict[str, bytes]:
    """Return the files of a table that its newest snapshot names, with their bytes."""
    found = store.table(table)
    return {shard.path: (found.root / shard.path).read_bytes() for shard in found.shards()}


def committed(store: Store) -> Iterator[int]:
    """Yield the rows of soft labels that are there, again and again, ten times a second."""
    while True:
        yield store.table("soft_labels").dataset().count_rows()
        time.sleep(0.1)
