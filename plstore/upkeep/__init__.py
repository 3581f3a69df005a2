"""A store in order: decisions of people, deletion, collection, compaction, verification."""

from plstore.labels import corrected_labels
from plstore.upkeep.collection import collect, collectable
from plstore.upkeep.compaction import compact
from plstore.upkeep.decisions import correct, exclude, take_back
from plstore.upkeep.deletion import erase
from plstore.upkeep.verification import count_files, verify

__all__ = [
    "collect",
    "collectable",
    "compact",
    "correct",
    "corrected_labels",
    "count_files",
    "erase",
    "exclude",
    "take_back",
    "verify",
]
