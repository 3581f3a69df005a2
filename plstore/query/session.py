"""A snapshot of a store as read-only SQL.

Tables are registered Arrow datasets over the files of the pinned versions: DuckDB never sees
a path, so SQL can neither read another file nor write one, even inside the store.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from plstore.containment import held
from plstore.errors import InputError, QueryError
from plstore.machine import memory_bytes
from plstore.query.exact import exact, mark_numbers
from plstore.query.functions import create_functions
from plstore.query.table_macros import create_table_macros, named_in
from plstore.query.tables import snapshot_of
from plstore.schema import TABLES
from plstore.store import AsOf, Store, resolve

_STREAM_ROWS = 16_384
_OVER_TIME = "exceeded maximum execution time"
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What SQL over a store may take.

    Attributes:
        memory: As DuckDB takes it, such as "8GB"; half of what this process can have unless
            given, which in a container is less than the machine's. SQL that needs more fails:
            it has no folder to spill to. On the command line, and in `run_isolated`, the system
            holds the process to it: all that comes on top of what it had before the SQL, with
            a hundred megabytes to spare for the stacks of threads.
        seconds: Of one statement, with the reading of its rows; it is stopped then. None for no
            limit.
    """

    memory: str | None = None
    seconds: float | None = 600.0

    def __post_init__(self) -> None:
        """Refuse a time that is none."""
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise InputError(f"a time limit of {self.seconds} s; wanted more than 0, or None")

    @property
    def memory_limit(self) -> str:
        """The limit in DuckDB's words."""
        return self.memory or f"{memory_bytes() // 2 >> 20}MiB"

    def open(self) -> duckdb.DuckDBPyConnection:
        """Open an empty DuckDB whose every statement, of cursors too, is held to them.

        Raises:
            InputError: If the memory is no size.
        """
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": self.memory_limit
        }
        if self.seconds is not None:
            config["max_execution_time"] = math.ceil(self.seconds * 1000)
        try:
            return duckdb.connect(":memory:", config=config)
        except duckdb.Error as error:
            raise InputError(
                f"memory limit {self.memory!r}; wanted a size such as 8GB or 500MB"
            ) from error


def connect(
    store: Store, *, as_of: AsOf = None, limits: Limits | None = None
) -> duckdb.DuckDBPyConnection:
    """Open a snapshot of a store in DuckDB: one view per table of `plstore.schema`.

    The connection has the functions of `plstore.query.functions` and the tables of
    `plstore.query.table_macros`. It can reach no file, no network and no extension, and cannot
    be unlocked. Results go wherever DuckDB's go: ``.df()``, ``.pl()``, ``.to_arrow_table()``,
    ``.fetchall()``. A cursor of it has the functions and the limits, and no tables.

    What it can't stop: DuckDB looks at the clock between two batches of rows, and counts the
    memory of its operators. One call of a function runs to its end, whatever it takes
    (``md5(repeat('x', 1000000000))``, ``list_sort(range(300000000))``, ``pg_sleep(60)``), and
    results count for nothing once they are Python's. It runs in your process: an SQL text that
    you do not trust belongs in `plstore.query.run_isolated`, whose process can be ended.

    Args:
        store: The store.
        as_of: A tag, commit number, time, ``view@version`` or version by table; see
            `plstore.store.AsOf`. The newest snapshot unless given.
        limits: Of memory and of the time of each statement alone; see `Limits`.
    """
    limits = Limits() if limits is None else limits
    pins = resolve(store, as_of)
    connection = limits.open()
    _register(connection, store, pins, TABLES)
    create_functions(connection, _num_classes(store, pins))
    create_table_macros(connection)
    lock(connection)
    return connection


def _num_classes(store: Store, pins: Mapping[str, int]) -> int:
    return int(store.table("classes").dataset(pins["classes"]).count_rows())


def _register(
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    pins: Mapping[str, int],
    names: Iterable[str],
) -> None:
    for name in names:
        there = name in store.tables  # a store of an older plstore may lack one
        rows = store.table(name).dataset(pins[name]) if there else _empty(name)
        connection.register(name, rows)


def _empty(name: str) -> pa.Table:
    return TABLES[name].columns.empty_table()


def lock(connection: duckdb.DuckDBPyConnection) -> None:
    """Take files, network, extensions and further settings from a connection, for good."""
    for setting in (
        "set temp_directory = ''",  # DuckDB lets SQL read and write files there
        "set python_enable_replacements = false",
        "set allow_persistent_secrets = false",
        "set autoinstall_known_extensions = false",
        "set autoload_known_extensions = false",
        "set enable_external_access = false",
        "set lock_configuration = true",
    ):
        connection.execute(setting)


def _kind(statement: duckdb.Statement) -> str:
    try:
        return str(statement.type.name)
    except ValueError:  # DuckDB's Python has no name for each of them
        return "a statement of another kind"


def check_read_only(sql: str) -> None:
    """Raise QueryError unless the text is exactly one SELECT."""
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise QueryError(f"cannot parse the SQL: {error}") from error
    kinds = [_kind(statement) for statement in statements]
    if kinds != ["SELECT"]:
        found = ", ".join(kinds) or "nothing"
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

    It runs in this process, as in `connect`: one call of a function is not stopped. See
    `plstore.query.run_isolated` for SQL of others.

    Raises:
        QueryError: If it is not one SELECT, DuckDB refuses it, or it reaches a limit.
    """
    check_read_only(sql)
    limits = Limits() if limits is None else limits
    with closing(limits.open()) as connection:
        # Only the tables that the text names: opening one costs milliseconds.
        names = {name for name in TABLES if name in sql.lower()} or set(TABLES)
        names.add("classes")  # functions need them
        macros = named_in(sql)
        names |= {name for macro in macros for name in macro.reads}
        pins = snapshot_of(store, as_of, sorted(names))
        _register(connection, store, pins, names)
        create_functions(connection, _num_classes(store, pins))
        create_table_macros(connection, macros)
        lock(connection)
        return fetch_within(connection, sql, parameters, limits)


def fetch_within(
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    parameters: Mapping[str, Any] | None,
    limits: Limits,
) -> pa.Table:
    """Run a query and return its rows exactly, if they too fit into the limit of memory.

    Args:
        connection: Of `Limits.open`, locked.
        sql: One SELECT.
        parameters: Its own.
        limits: Those of the connection.

    Raises:
        QueryError: If DuckDB refuses it, or it reaches a limit.
    """
    (limit,) = connection.execute("select current_setting('memory_limit')").fetchall()[0]
    number, unit = limit.split()
    most = int(float(number) * 1024 ** _UNITS.index(unit))

    def work() -> pa.Table:
        relation, numbers = exact(connection.sql(sql, params=dict(parameters or {})))
        reader = relation.to_arrow_reader(_STREAM_ROWS)
        batches, num_bytes = [], 0
        for batch in reader:
            batches.append(batch)
            num_bytes += batch.nbytes
            if num_bytes > most:
                raise QueryError(
                    f"the result is larger than the limit of {limit}; ask for less, or raise "
                    "the memory limit"
                )
        return mark_numbers(pa.Table.from_batches(batches, reader.schema), numbers)

    with held(most, limits.seconds), ThreadPoolExecutor(1) as pool:
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
        raise _too_long(seconds) from error
    except (duckdb.OutOfMemoryException, MemoryError, pa.ArrowMemoryError) as error:
        found = str(error).partition("\n")[0] or "out of memory"  # then settings: all locked
        raise QueryError(f"{found}\nAsk for less, or raise the memory limit") from error
    except (duckdb.Error, OSError) as error:
        if _OVER_TIME in str(error):
            raise _too_long(seconds) from error
        raise QueryError(f"{error}\nThe tables are {', '.join(TABLES)}") from error
    except BaseException:
        connection.interrupt()
        raise


def _too_long(seconds: float | None) -> QueryError:
    after = "its limit" if seconds is None else f"{seconds:g} s"
    return QueryError(
        f"the SQL ran longer than {after} and was stopped; ask for less, or raise the time "
        "limit"
    )
