"""The process that `plstore.query.isolated` asks: it loads DuckDB once and forks for each SQL.

It runs nothing itself and has no threads but those of memory allocators, which are made for it,
so that to fork it is safe. A child takes one request from the socket that came for it, is held
to the limits by the system, answers, and ends; it ends at once when whoever asked closes the
socket.

A request is a line of JSON, and its parameters, if any, as Arrow; an answer is a byte with a
line of JSON, or with the rows as Arrow.
"""

import json
import os
import signal
import socket
import sys
import threading
from typing import Any, Final

import pyarrow as pa

import plstore.store
from plstore.containment import become_expendable
from plstore.errors import PlstoreError
from plstore.query.session import Limits, run_sql

ROWS: Final = b"R"
ERROR: Final = b"E"


def main() -> None:
    """Fork for every socket that comes through standard input, until that is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are not waited for
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's is for whoever asks
    with socket.socket(fileno=sys.stdin.fileno()) as control:
        while True:
            message, handles, _, _ = socket.recv_fds(control, 1, 1)
            if not message:
                return
            if os.fork() == 0:
                control.close()
                _answer(socket.socket(fileno=handles[0]))
                os._exit(0)
            os.close(handles[0])


def _answer(asked: socket.socket) -> None:
    with asked.makefile("rb") as incoming, asked.makefile("wb") as outgoing:
        request = json.loads(incoming.readline())
        given = read_table(incoming).to_pylist()[0] if request["has_parameters"] else None
        threading.Thread(target=_end_when_closed, args=(asked,), daemon=True).start()
        become_expendable()
        limits = Limits(memory=request["memory"], seconds=request["seconds"])
        try:
            store = plstore.store.open(request["store"])
            rows = run_sql(store, request["sql"], given, as_of=request["pins"], limits=limits)
        except PlstoreError as error:
            told = {"type": type(error).__name__, "message": str(error)}
            outgoing.write(ERROR + json.dumps(told).encode() + b"\n")
        else:
            outgoing.write(ROWS)
            write_table(outgoing, rows)


def _end_when_closed(asked: socket.socket) -> None:
    if not asked.recv(1):
        os._exit(1)


def write_table(file: Any, table: pa.Table) -> None:  # noqa: ANN401  the same
    """Write rows as an Arrow stream."""
    with pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def read_table(file: Any) -> pa.Table:  # noqa: ANN401  what a socket's file is
    """Return the rows of an Arrow stream."""
    with pa.ipc.open_stream(file) as reader:
        found: Any = reader.read_all()
    return found


if __name__ == "__main__":
    main()
