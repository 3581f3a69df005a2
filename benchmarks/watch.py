"""What a contender takes, with the processes that it starts."""

import os
import threading
from pathlib import Path
from typing import Self


def peak_kilobytes(pid: int) -> int:
    """Return the peak memory of a process; unlike `getrusage`, not that of who started it."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1])
    return 0


def cpu_seconds(pid: int) -> float:
    """Return the seconds that a process has had of the processors."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Descendants:
    """Watches the processes that a contender starts, such as Spark's Java."""

    def __init__(self, of: int | None = None) -> None:
        """Watch nothing yet.

        Args:
            of: The process whose they are; this one unless given.
        """
        self._of = os.getpid() if of is None else of
        self.peak_kb: dict[int, int] = {}
        self.cpu_s: dict[int, float] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.2):
            family = {self._of}
            for path in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
                pid = int(path.name)
                try:
                    fields = (path / "stat").read_text().rpartition(")")[2].split()
                    if int(fields[1]) not in family:
                        continue
                    family.add(pid)
                    # Of one that has ended and is not waited for yet nothing is known.
                    known = self.peak_kb.get(pid, 0)
                    self.peak_kb[pid] = max(peak_kilobytes(pid), known)
                    self.cpu_s[pid] = cpu_seconds(pid)
                except OSError:  # it has just ended
                    continue
