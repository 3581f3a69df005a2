"""Files of an import are written one by one and committed some at a time.

A commit looks through the log since its last checkpoint and goes through the list of files, so
one a file would be most of a large import's time. What a killed import had written and not
committed is done again, into the same files; no one sees it before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from plstore.fingerprint import value_hash
from plstore.schema import TABLES
from plstore.store import SAMPLE_IDS, Claim, Shard

if TYPE_CHECKING:
    from plstore.store import Store

COMMIT_SECONDS = 30.0
COMMIT_FILES = 256


@dataclass(frozen=True, kw_only=True)
class _File:
    """A file that is written; its identity, and the first and last number in it."""

    shard: Shard
    identity: str
    first: int
    last: int


class Portion:
    """Files of images and of their truth that wait for their commit."""

    def __init__(self, store: "Store", dataset: str) -> None:
        """Begin with none."""
        self._store, self._dataset = store, dataset
        self._files: dict[str, list[_File]] = {"images": [], "truth": []}
        self._since = monotonic()

    @property
    def is_due(self) -> bool:
        """Whether half a minute has passed since the last commit, or there are many files."""
        count = max(map(len, self._files.values()))
        return count >= COMMIT_FILES or monotonic() - self._since >= COMMIT_SECONDS

    def write(self, table: str, rows: Sequence[Mapping[str, Any]], identity: str) -> None:
        """Write a file of rows that ascend by `sample_id`."""
        content = pa.Table.from_pylist(list(rows), schema=TABLES[table].columns)
        shard = self._store.table(table).write_shard(f"part-{table}-{identity}", content)
        first, last = rows[0]["sample_id"], rows[-1]["sample_id"]
        self._files[table].append(_File(shard=shard, identity=identity, first=first, last=last))

    def commit(self) -> None:
        """Commit the images, then their truth: numbers are sure once the images are in.

        Raises:
            CommitConflictError: If another import took the same numbers.
        """
        files = self._files
        self._files = {"images": [], "truth": []}
        for table, written in files.items():
            if written:
                self._commit(table, written)
        self._since = monotonic()

    def _commit(self, table: str, written: Sequence[_File]) -> None:
        first, last = written[0].first, written[-1].last
        identity = written[0].identity
        if len(written) > 1:
            identity = f"{first:012d}-{value_hash({'files': [f.identity for f in written]})}"
        claim = Claim(name=SAMPLE_IDS, start=first, end=last + 1)
        self._store.table(table).commit(
            [each.shard for each in written],
            lineage={"step": "import", "dataset": self._dataset, "sample_ids": [first, last]},
            transaction=f"{table}-{identity}",
            claim=claim if table == "images" else None,
        )
