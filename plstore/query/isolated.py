"""SQL in a process of its own, asked for from any process: a server, threads, a notebook.

One worker process is started for a process at its first SQL, in a third of a second; from then
on each statement costs a fork, some milliseconds. See `plstore.query.worker`.
"""

import atexit
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

import plstore.errors
from plstore.errors import PlstoreError, QueryError, StoreError
from plstore.query.session import Limits
from plstore.query.worker import ERROR, ROWS, read_table, write_table
from plstore.store import AsOf, Store, resolve

_START = "import sys; sys.path[:] = sys.argv[1:]; from plstore.query.worker import main; main()"
# One thread in it, whatever numpy's library of matrices would start; no gigabyte set aside.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}


class _Worker:
    """The one worker of this process, started when it is first asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self) -> socket.socket:
        """Return a socket that a new child of the worker listens to.

        Raises:
            StoreError: If no worker can be started.
        """
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            for _ in range(2):
                control = self._running()
                try:
                    socket.send_fds(control, [b"+"], [theirs.fileno()])
                except OSError:  # it was ended: by a system without memory, say
                    self.end()
                else:
                    return ours
        ours.close()
        raise StoreError("cannot start a process for SQL; is there memory for one more?")

    def _running(self) -> socket.socket:
        if self._control is not None and self._owner == os.getpid():
            return self._control
        self.end()
        self._control, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  this very Python
                [sys.executable, "-c", _START, *sys.path],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={**os.environ, **_ENVIRONMENT},
            )
        self._owner = os.getpid()
        return self._control

    def end(self) -> None:
        """End the worker, if it is this process's own; forget it, if another's."""
        if self._control is not None:
            self._control.close()
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()  # it holds nothing; what it forked ends with who asked for it
            self._process.wait()
        elif self._process is not None:  # before a fork: the parent waits for it
            self._process.returncode = 0
        self._control = self._process = None


_worker = _Worker()
atexit.register(_worker.end)


def run_isolated(
    store: Store,
    sql: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    as_of: AsOf = None,
    limits: Limits | None = None,
) -> pa.Table:
    """Run one SELECT over a snapshot in a process that is ended at a limit; return its rows.

    As `plstore.query.run_sql`, for SQL of others: nothing that it does outlives its time, takes
    more than its memory or harms this process. Safe with threads around. Credentials of an
    object store are those of the environment at the first call.

    Raises:
        QueryError: If it is not one SELECT, DuckDB refuses it, or it reaches a limit.
    """
    limits = Limits() if limits is None else limits
    request = {
        "store": str(store.root),
        "sql": sql,
        "pins": None if as_of is None else dict(resolve(store, as_of)),
        "memory": limits.memory,
        "seconds": limits.seconds,
        "has_parameters": bool(parameters),
    }
    with _worker.ask() as asked, asked.makefile("rwb") as file:
        started = time.monotonic()
        file.write(json.dumps(request).encode() + b"\n")
        if parameters:
            write_table(file, pa.table({name: [value] for name, value in parameters.items()}))
        file.flush()
        try:
            return _read_answer(file)
        except (OSError, EOFError, pa.ArrowInvalid, ValueError) as error:
            if isinstance(error, PlstoreError):
                raise
            raise _ended(time.monotonic() - started, limits) from error


def _read_answer(file: Any) -> pa.Table:  # noqa: ANN401  what a socket's file is
    kind = file.read(1)
    if kind == ROWS:
        return read_table(file)
    if kind == ERROR:
        told = json.loads(file.readline())
        raise getattr(plstore.errors, told["type"])(told["message"])
    raise EOFError


def _ended(after: float, limits: Limits) -> QueryError:
    if limits.seconds is not None and after >= limits.seconds:
        return QueryError(
            f"the SQL ran longer than {limits.seconds:g} s and was stopped; ask for less, or "
            "raise the time limit"
        )
    return QueryError(
        "the SQL ended its process: most likely it needs more memory than there is, or is "
        "nested too deeply; ask for less, or raise the memory limit"
    )
