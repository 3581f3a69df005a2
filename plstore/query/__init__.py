"""Opens a snapshot as DuckDB views, runs saved or typed SQL, plans selections."""

from plstore.query.compare import diff
from plstore.query.library import Parameter, SavedQuery, list_queries, saved_query
from plstore.query.selection import Selection, select, select_labeled
from plstore.query.session import connect, run_query, run_sql

__all__ = [
    "Parameter",
    "SavedQuery",
    "Selection",
    "connect",
    "diff",
    "list_queries",
    "run_query",
    "run_sql",
    "saved_query",
    "select",
    "select_labeled",
]
