"""A snapshot of a store as read-only SQL.

Tables are registered Arrow datasets over the files of the pinned versions: DuckDB never sees
a path, so SQL can neither read another file nor write one, even inside the store.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import duckdb
import pyarrow as pa

from plstore.errors import QueryError
from plstore.query.library import saved_query
from plstore.schema import TABLES
from plstore.store import AsOf, Store, resolve


def connect(store: Store, *, as_of: AsOf = None) -> duckdb.DuckDBPyConnection:
    """Open a snapshot of a store in DuckDB: one view per table of `plstore.schema`.

    The connection can reach no file, no network and no extension, and cannot be unlocked.

    Args:
        store: The store.
        as_of: A tag, commit number, time, ``view@version`` or version by table; see
            `plstore.store.AsOf`. The newest snapshot unless given.
    """
    pins = resolve(store, as_of)
    connection = duckdb.connect(":memory:")
    _register(connection, store, pins, TABLES)
    lock(connection)
    return connection


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
        "set python_enable_replacements = false",
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
) -> pa.Table:
    """Run one SELECT over a snapshot and return its rows.

    Raises:
        QueryError: If it is not one SELECT, or DuckDB refuses it.
    """
    check_read_only(sql)
    with closing(duckdb.connect(":memory:")) as connection:
        # Only the tables that the text names: opening one costs milliseconds.
        names = [name for name in TABLES if name in sql.lower()] or list(TABLES)
        _register(connection, store, _pins(store, as_of, names), names)
        lock(connection)
        return fetch(connection, sql, parameters)


def fetch(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Mapping[str, Any] | None = None
) -> pa.Table:
    """Run a query on an open connection and return its rows; an interrupt stops it."""

    def work() -> pa.Table:
        return connection.sql(sql, params=dict(parameters or {})).to_arrow_table()

    # In a thread of its own: DuckDB swallows what a signal's handler raises, and goes on.
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(work)
        try:
            return running.result()
        except duckdb.Error as error:
            tables = ", ".join(TABLES)
            raise QueryError(f"{error}\nThe tables are {tables}") from error
        except BaseException:
            connection.interrupt()
            raise


def run_query(store: Store, name: str, *, as_of: AsOf = None, **parameters: object) -> pa.Table:
    """Run a saved query over a snapshot and return its rows.

    Args:
        store: The store.
        name: Such as "coverage/labels_per_class"; `plstore query list` shows all.
        as_of: Snapshot to read; see `plstore.store.AsOf`. The newest unless given.
        **parameters: The query's own.

    Raises:
        InputError: If there is no such query.
        QueryError: If parameters are missing, unknown or of the wrong type.
    """
    query = saved_query(name)
    return run_sql(store, query.sql, query.check_parameters(parameters), as_of=as_of)
