"""A snapshot of a store as read-only SQL.

Tables are registered Arrow datasets over the files of the pinned versions: DuckDB never sees
a path, so SQL can neither read another file nor write one, even inside the store.
"""

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from plstore.errors import InputError, QueryError
from plstore.query.functions import create_functions
from plstore.query.library import saved_query
from plstore.schema import TABLES
from plstore.store import AsOf, Store, resolve

_STREAM_ROWS = 16_384
_WATCH_SECONDS = 0.25
_EXITING = threading.Event()
_WATCHERS: "weakref.WeakSet[threading.Thread]" = weakref.WeakSet()


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What SQL over a store may take.

    Attributes:
        memory: As DuckDB takes it, such as "8GB"; half of the machine's unless given. SQL that
            needs more fails: it has no folder to spill to.
        seconds: Of one statement; it is stopped then. None for no limit.
    """

    memory: str | None = None
    seconds: float | None = 600.0

    def __post_init__(self) -> None:
        """Refuse a time that is none."""
        if self.seconds is not None and self.seconds <= 0:
            raise InputError(f"a time limit of {self.seconds} s; wanted more than 0, or None")

    @property
    def memory_limit(self) -> str:
        """The limit in DuckDB's words."""
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return self.memory or f"{pages // 2 >> 20}MiB"


def connect(
    store: Store, *, as_of: AsOf = None, limits: Limits | None = None
) -> duckdb.DuckDBPyConnection:
    """Open a snapshot of a store in DuckDB: one view per table of `plstore.schema`.

    The connection has the functions of `plstore.query.functions`. It can reach no file, no
    network and no extension, and cannot be unlocked. Results go wherever DuckDB's go:
    ``.df()``, ``.pl()``, ``.to_arrow_table()``, ``.fetchall()``.

    Args:
        store: The store.
        as_of: A tag, commit number, time, ``view@version`` or version by table; see
            `plstore.store.AsOf`. The newest snapshot unless given.
        limits: Of memory and time; see `Limits`. A statement is seen to run by its progress;
            the few that have none, such as endless recursion, are not stopped.
    """
    limits = Limits() if limits is None else limits
    pins = resolve(store, as_of)
    connection = _open(limits)
    _register(connection, store, pins, TABLES)
    create_functions(connection, _num_classes(store, pins))
    lock(connection)
    if limits.seconds is not None:
        _watch(connection, limits.seconds)
    return connection


def _open(limits: Limits) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(":memory:", config={"memory_limit": limits.memory_limit})
    except duckdb.Error as error:
        raise InputError(
            f"memory limit {limits.memory!r}; wanted a size such as 8GB or 500MB"
        ) from error


def _num_classes(store: Store, pins: Mapping[str, int]) -> int:
    return int(store.table("classes").dataset(pins["classes"]).count_rows())


def _watch(connection: duckdb.DuckDBPyConnection, seconds: float) -> None:
    """Stop every statement of a connection that runs longer, for as long as it is open."""
    watched = weakref.ref(connection)

    def watch() -> None:
        started: float | None = None
        last = 0.0
        while not _EXITING.wait(min(_WATCH_SECONDS, seconds / 4)):
            connection = watched()
            if connection is None:
                return
            try:
                progress = connection.query_progress()
            except duckdb.ConnectionException:  # closed
                return
            now = time.monotonic()
            if progress < last:  # another statement
                started = None
            last = progress
            started = (started or now) if progress >= 0 else None
            if started is not None and now - started > seconds:
                connection.interrupt()
                started = None
            del connection

    thread = threading.Thread(target=watch, name="plstore-sql-limit", daemon=True)
    _WATCHERS.add(thread)
    thread.start()


@atexit.register
def _stop_watching() -> None:
    _EXITING.set()
    for thread in list(_WATCHERS):
        thread.join()


def _pins(store: Store, as_of: AsOf, names: Sequence[str]) -> Mapping[str, int]:
    if as_of is None:
        return store.versions(names)
    if isinstance(as_of, Mapping):
        return store.versions([name for name in names if name not in as_of]) | dict(as_of)
    return resolve(store, as_of)


def _register(
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    pins: Mapping[str, int],
    names: Iterable[str],
) -> None:
    for name in names:
        connection.register(name, store.table(name).dataset(pins[name]))


def lock(connection: duckdb.DuckDBPyConnection) -> None:
    """Take files, network, extensions and further settings from a connection, for good."""
    for setting in (
        "set temp_directory = ''",  # DuckDB lets SQL read and write files there
        "set enable_progress_bar = true",  # what runs is seen by its progress
        "set enable_progress_bar_print = false",
        "set progress_bar_time = 1",
        "set python_enable_replacements = false",
        "set allow_persistent_secrets = false",
        "set autoinstall_known_extensions = false",
        "set autoload_known_extensions = false",
        "set enable_external_access = false",
        "set lock_configuration = true",
    ):
        connection.execute(setting)


def check_read_only(sql: str) -> None:
    """Raise QueryError unless the text is exactly one SELECT."""
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise QueryError(f"cannot parse the SQL: {error}") from error
    kinds = [statement.type for statement in statements]
    if kinds != [duckdb.StatementType.SELECT]:
        found = ", ".join(kind.name for kind in kinds) or "nothing"
        raise QueryError(
            f"found {found}; wanted exactly one SELECT: a store is read-only in SQL"
        )


def run_sql(
    store: Store,
    sql: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    as_of: AsOf = None,
    limits: Limits | None = None,
) -> pa.Table:
    """Run one SELECT over a snapshot and return its rows.

    Raises:
        QueryError: If it is not one SELECT, DuckDB refuses it, or it reaches a limit.
    """
    check_read_only(sql)
    limits = Limits() if limits is None else limits
    with closing(_open(limits)) as connection:
        # Only the tables that the text names: opening one costs milliseconds.
        names = {name for name in TABLES if name in sql.lower()} or set(TABLES)
        names.add("classes")  # functions need them
        pins = _pins(store, as_of, [name for name in TABLES if name in names])
        _register(connection, store, pins, names)
        create_functions(connection, _num_classes(store, pins))
        lock(connection)
        return _within(connection, sql, parameters, limits)


def _within(
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    parameters: Mapping[str, Any] | None,
    limits: Limits,
) -> pa.Table:
    """Run a query and return its rows, if they too fit into the limit of memory."""
    (limit,) = connection.execute("select current_setting('memory_limit')").fetchall()[0]
    number, unit = limit.split()
    most = float(number) * 1024 ** ("bytes", "KiB", "MiB", "GiB", "TiB").index(unit)

    def work() -> pa.Table:
        reader = connection.sql(sql, params=dict(parameters or {})).to_arrow_reader(
            _STREAM_ROWS
        )
        batches, num_bytes = [], 0
        for batch in reader:
            batches.append(batch)
            num_bytes += batch.nbytes
            if num_bytes > most:
                raise QueryError(
                    f"the result is larger than the limit of {limit}; ask for less, or raise "
                    "the memory limit"
                )
        return pa.Table.from_batches(batches, reader.schema)

    with ThreadPoolExecutor(1) as pool:
        found: pa.Table = _interruptible(connection, work, pool=pool, seconds=limits.seconds)
    return found


def fetch(
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    seconds: float | None = None,
) -> pa.Table:
    """Run a query on an open connection and return its rows; an interrupt stops it."""

    def work() -> pa.Table:
        return connection.sql(sql, params=dict(parameters or {})).to_arrow_table()

    with ThreadPoolExecutor(1) as pool:
        return _interruptible(connection, work, pool=pool, seconds=seconds)


def stream(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Mapping[str, Any]
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a query, some at a time, in memory that does not grow with them."""
    with ThreadPoolExecutor(1) as pool:
        reader = _interruptible(
            connection,
            lambda: connection.sql(sql, params=dict(parameters)).to_arrow_reader(_STREAM_ROWS),
            pool=pool,
        )
        while True:
            batch = _interruptible(connection, lambda: next(reader, None), pool=pool)
            if batch is None:
                return
            yield batch


def _interruptible(
    connection: duckdb.DuckDBPyConnection,
    work: Callable[[], Any],
    *,
    pool: ThreadPoolExecutor,
    seconds: float | None = None,
) -> Any:  # noqa: ANN401  what the work returns
    # In another thread: DuckDB swallows what a signal's handler raises, and goes on.
    running = pool.submit(work)
    try:
        return running.result(seconds)
    except TimeoutError as error:
        connection.interrupt()
        raise QueryError(
            f"the SQL ran longer than {seconds:g} s and was stopped; ask for less, or raise "
            "the time limit"
        ) from error
    except duckdb.OutOfMemoryException as error:
        raise QueryError(f"{error}\nAsk for less, or raise the memory limit") from error
    except (duckdb.Error, OSError) as error:
        raise QueryError(f"{error}\nThe tables are {', '.join(TABLES)}") from error
    except BaseException:
        connection.interrupt()
        raise


def run_query(
    store: Store,
    name: str,
    *,
    as_of: AsOf = None,
    limits: Limits | None = None,
    **parameters: object,
) -> pa.Table:
    """Run a saved query over a snapshot and return its rows.

    Args:
        store: The store.
        name: Such as "coverage/labels_per_class"; `plstore query list` shows all.
        as_of: Snapshot to read; see `plstore.store.AsOf`. The newest unless given.
        limits: Of memory and time; see `Limits`.
        **parameters: The query's own.

    Raises:
        InputError: If there is no such query.
        QueryError: If parameters are missing, unknown or of the wrong type, or a limit is met.
    """
    query = saved_query(name)
    values = query.check_parameters(parameters)
    return run_sql(store, query.sql, values, as_of=as_of, limits=limits)
