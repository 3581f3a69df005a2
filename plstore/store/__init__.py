"""The table format alone: tables, shards, commits, versions and the names of snapshots."""

from plstore.store.conditions import TABLES_OF_IMAGES, may_hold
from plstore.store.log import Entry, after_erasure, read_log
from plstore.store.parquet import parquet_bytes, statistics
from plstore.store.shard import Claim, Shard
from plstore.store.snapshot import PartitionValues
from plstore.store.store import Store, create, open  # noqa: A004  plstore.open is the door
from plstore.store.table import SAMPLE_IDS, Table
from plstore.store.versions import (
    AsOf,
    add_tag,
    delete_tag,
    drop_pin,
    numbered,
    pin,
    pinned,
    pins,
    resolve,
    step_pins,
    tags,
    unpin,
    view_pins,
)

__all__ = [
    "SAMPLE_IDS",
    "TABLES_OF_IMAGES",
    "AsOf",
    "Claim",
    "Entry",
    "PartitionValues",
    "Shard",
    "Store",
    "Table",
    "add_tag",
    "after_erasure",
    "create",
    "delete_tag",
    "drop_pin",
    "may_hold",
    "numbered",
    "open",
    "parquet_bytes",
    "pin",
    "pinned",
    "pins",
    "read_log",
    "resolve",
    "statistics",
    "step_pins",
    "tags",
    "unpin",
    "view_pins",
]
