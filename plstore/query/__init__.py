"""Opens a snapshot as DuckDB views, runs saved or typed SQL, plans selections."""

from typing import TYPE_CHECKING

from plstore.query.balance import Balance, Policy
from plstore.query.compare import diff
from plstore.query.library import Parameter, SavedQuery, list_queries, saved_query
from plstore.query.rules import Rule
from plstore.query.selection import Selection, preview, select, select_labeled
from plstore.query.session import Limits, connect, run_query, run_sql

if TYPE_CHECKING:
    from plstore.query.isolated import run_isolated

__all__ = [
    "Balance",
    "Limits",
    "Parameter",
    "Policy",
    "Rule",
    "SavedQuery",
    "Selection",
    "connect",
    "diff",
    "list_queries",
    "preview",
    "run_isolated",
    "run_query",
    "run_sql",
    "saved_query",
    "select",
    "select_labeled",
]


def __getattr__(name: str) -> object:
    """Import what starts processes when it is asked for: the command line does without."""
    if name == "run_isolated":
        from plstore.query.isolated import run_isolated

        return run_isolated
    raise AttributeError(f"module 'plstore.query' has no attribute {name!r}")
