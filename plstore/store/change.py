"""What one commit does to a table, and how it is tried again when another was first."""

import json
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.transaction import AddAction, RemoveAction

from plstore.store.conditions import check_beside, check_claim, removed_by
from plstore.store.shard import (
    LINEAGE,
    TRANSACTION,
    Claim,
    Shard,
    add_action,
    locks,
    remove_action,
)
from plstore.store.snapshot import Snapshots

_CONFLICT_SECONDS = 60.0
_LONGEST_WAIT = 1.0


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a commit is to do; see `Table.commit`."""

    shards: tuple[Shard, ...]
    lineage: Mapping[str, Any]
    transaction: str
    claim: Claim | None
    replace: bool
    remove: tuple[Shard, ...]
    beside: tuple[Shard, ...] | None
    data_change: bool

    def against(
        self, table: Snapshots, delta: DeltaTable
    ) -> tuple[list[AddAction | RemoveAction], CommitProperties]:
        """Return what the change does to a snapshot, and what the log is to say of it.

        Raises:
            CommitConflictError: If the snapshot is no longer what the change rests on.
        """
        name, claim = table.spec.name, self.claim
        transactions = [Transaction(self.transaction, 1 if claim is None else claim.end)]
        if claim is not None:
            check_claim(table, delta, claim)
            transactions.append(Transaction(f"sequence-{claim.name}", claim.end))
        removed = removed_by(delta, name, self.shards, self.remove, replace=self.replace)
        if self.beside is not None:
            check_beside(delta, name, self.shards, self.beside)
        if self.replace or removed or self.beside is not None:
            transactions += locks([*self.shards, *removed], whole=self.replace)
        actions: list[AddAction | RemoveAction] = [
            *(add_action(shard, data_change=self.data_change) for shard in self.shards),
            *(remove_action(shard, data_change=self.data_change) for shard in removed),
        ]
        metadata = {
            LINEAGE: json.dumps(self.lineage, sort_keys=True),
            TRANSACTION: self.transaction,
        }
        properties = CommitProperties(custom_metadata=metadata, app_transactions=transactions)
        return actions, properties


def waits() -> Iterator[float]:
    """Yield how long to wait after each conflict, in seconds, for a minute in all."""
    end = time.monotonic() + _CONFLICT_SECONDS
    longest = 0.01
    while time.monotonic() < end:
        yield random.uniform(0, longest)  # noqa: S311  so that writers do not meet again
        longest = min(2 * longest, _LONGEST_WAIT)
