"""Which tables a query reads, and which versions of them are meant."""

import re
from collections.abc import Mapping, Sequence

from plstore.query.table_macros import named_in
from plstore.schema import TABLES
from plstore.store import AsOf, Store, resolve


def tables_in(sql: str) -> list[str]:
    """Return the tables that a text names, itself or by a table of `table_macros`.

    Comments name none.
    """
    text = re.sub(r"--[^\n]*", "", sql)
    words = set(re.findall(r"\w+", text.lower()))
    called = {name for macro in named_in(text) for name in macro.reads}
    return [name for name in TABLES if name in words or name in called]


def snapshot_of(store: Store, as_of: AsOf, names: Sequence[str]) -> dict[str, int]:
    """Return the versions of a snapshot: of these tables, as far as the store has them.

    Opening a table costs milliseconds, so of the newest snapshot no other is looked at.
    """
    there = [name for name in names if name in store.tables]
    if as_of is None:
        return store.versions(there)
    if isinstance(as_of, Mapping):
        return store.versions([name for name in there if name not in as_of]) | dict(as_of)
    return resolve(store, as_of)
