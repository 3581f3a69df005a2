"""plstore: a pseudo-label store and toolkit for Noisy Student training.

``plstore.open(path)`` gives a `Store`: tables, commits, versions.
``plstore.connect(store)`` gives a read-only DuckDB session over a snapshot of it.
``plstore.select(store, ...)`` chooses what a student trains on and writes a view.
``plstore.load(view, ...)`` feeds a view to a training loop.

Everything is imported on first use, so that ``import plstore`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plstore.errors import PlstoreError
    from plstore.loaders import load
    from plstore.query import Balance, Rule, Selection, connect, select
    from plstore.store import Store, create, open, open_view  # noqa: A004  plstore.open is the door

__version__ = "0.3.0"

__all__ = [
    "Balance",
    "PlstoreError",
    "Rule",
    "Selection",
    "Store",
    "connect",
    "create",
    "load",
    "open",
    "open_view",
    "select",
]

_HOMES = {
    "Balance": "plstore.query",
    "PlstoreError": "plstore.errors",
    "Rule": "plstore.query",
    "Selection": "plstore.query",
    "Store": "plstore.store",
    "connect": "plstore.query",
    "create": "plstore.store",
    "load": "plstore.loaders",
    "open": "plstore.store",
    "open_view": "plstore.store",
    "select": "plstore.query",
}


def __getattr__(name: str) -> object:
    """Import a public name from its home on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'plstore' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
