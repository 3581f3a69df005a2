"""A snapshot as DuckDB views: saved and typed SQL, label functions, differences."""

from typing import TYPE_CHECKING

from plstore.query.audits import Audit, audit
from plstore.query.compare import diff
from plstore.query.differences import diff_labels, pair_shards
from plstore.query.exact import holds_numbers
from plstore.query.functions import create_functions
from plstore.query.library import SavedQuery, find_query, list_queries, saved_query
from plstore.query.macros import BUCKET_SQL, SELECTION_MACROS, TICKETS, create_macros
from plstore.query.missing import what_is_missing
from plstore.query.newest import with_labels
from plstore.query.running import run_query
from plstore.query.session import (
    Limits,
    check_read_only,
    connect,
    fetch,
    fetch_within,
    lock,
    run_sql,
    stream,
)

if TYPE_CHECKING:
    from plstore.query.isolated import run_isolated

__all__ = [
    "BUCKET_SQL",
    "SELECTION_MACROS",
    "TICKETS",
    "Audit",
    "Limits",
    "SavedQuery",
    "audit",
    "check_read_only",
    "connect",
    "create_functions",
    "create_macros",
    "diff",
    "diff_labels",
    "fetch",
    "fetch_within",
    "find_query",
    "holds_numbers",
    "list_queries",
    "lock",
    "pair_shards",
    "run_isolated",
    "run_query",
    "run_sql",
    "saved_query",
    "stream",
    "what_is_missing",
    "with_labels",
]


def __getattr__(name: str) -> object:
    """Import what starts processes when it is asked for: the command line does without."""
    if name == "run_isolated":
        from plstore.query.isolated import run_isolated

        return run_isolated
    raise AttributeError(f"module 'plstore.query' has no attribute {name!r}")
