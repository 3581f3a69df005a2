"""From labels to a view: pool, rules, balance, cuts; the engines DuckDB and Spark."""

from plstore.selection.balance import Balance
from plstore.selection.cuts import find_cuts
from plstore.selection.engine import DuckDBEngine, scratch_connection, scratch_folder
from plstore.selection.into_view import preview, select, select_labeled
from plstore.selection.pool import Pool, pool_of_labels
from plstore.selection.rules import Rule
from plstore.selection.selection import Selection
from plstore.selection.spark import SparkEngine
from plstore.selection.standing import find_standing

__all__ = [
    "Balance",
    "DuckDBEngine",
    "Pool",
    "Rule",
    "Selection",
    "SparkEngine",
    "find_cuts",
    "find_standing",
    "pool_of_labels",
    "preview",
    "scratch_connection",
    "scratch_folder",
    "select",
    "select_labeled",
]
