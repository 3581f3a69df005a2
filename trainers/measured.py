"""Images that teachers are measured on: of a split, or a test set by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow.compute as pc

from plstore.errors import InputError
from plstore.query import run_query
from plstore.schema import ACCEPTED, EVALUATION, Split
from plstore.store import Store
from trainers.imagenet import PROTOCOLS, Among
from trainers.named import teacher_named

METRICS: Final = "evaluation/metrics"
ACCEPTED_BY: Final = "evaluation/accepted"
_SHARES: Final = ("accuracy", "low", "high", "top5_accuracy")

Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images that teachers are measured on.

    Attributes:
        split: Theirs.
        dataset: Name of a test set; empty for a whole split.
        among: Which classes a teacher may say.
    """

    split: Split
    dataset: str = ""
    among: Among = "all"

    @property
    def name(self) -> str:
        """Of the test set, or else of the split."""
        return self.dataset or self.split

    @property
    def columns(self) -> dict[str, str]:
        """What a row says of the images."""
        of_set = {"dataset": self.dataset, "among": self.among} if self.dataset else {}
        return {"split": self.split, **of_set}

    def metrics(self, store: Store, pins: Mapping[str, int]) -> Rows:
        """Return rows of `evaluation/metrics`; of `accepted` if the set says what is right."""
        if self.dataset and (own := self.accepted(store, pins, self.dataset)):
            return own
        rows: Rows = run_query(
            store,
            METRICS,
            as_of=pins,
            split=self.split,
            dataset=self.dataset,
            among=self.among,
        ).to_pylist()
        return rows

    def accepted(self, store: Store, pins: Mapping[str, int], source: str = "") -> Rows:
        """Return rows of `evaluation/accepted`; of all sources unless one is named."""
        rows: Rows = run_query(
            store,
            ACCEPTED_BY,
            as_of=pins,
            split=self.split,
            dataset=self.dataset,
            source=source,
        ).to_pylist()
        return rows


def images_of(
    splits: Sequence[Split], sets: Sequence[str], among: Among | None = None
) -> list[Images]:
    """Return images of splits and test sets; of a set, among what its authors ask for."""
    found = [Images(split=split) for split in splits]
    for name in sets:
        own = PROTOCOLS[name].among if name in PROTOCOLS else "all"
        found.append(Images(split=EVALUATION, dataset=name, among=among or own))
    return found


def named_sets(store: Store, sets: Sequence[str]) -> list[str]:
    """Return the names of test sets of a store: those that are asked for, or all.

    Raises:
        InputError: If there is no such set.
    """
    if not sets:
        return []
    where = (pc.field("split") == EVALUATION) & (pc.field("verdict") == ACCEPTED)
    rows = store.table("images").read(columns=["dataset"], where=where)
    there = sorted(rows["dataset"].unique().to_pylist())
    if unknown := [name for name in sets if name not in {"all", *there}]:
        raise InputError(
            f"{store.root} has no test set {', '.join(unknown)}; it has "
            f"{', '.join(there) or 'none'}. 'plstore import test-set' brings one"
        )
    return there if "all" in sets else list(dict.fromkeys(sets))


def answers(
    store: Store,
    teacher_ids: Sequence[str],
    *,
    splits: Sequence[Split],
    sets: Sequence[str] = (),
) -> Rows:
    """Return what teachers are worth by sources that accept several classes, such as ReaL.

    They are rows of the saved query `evaluation/accepted`, in percent, of labels that
    `evaluate` made; none where no source says anything of them (`plstore import answers`).

    Raises:
        InputError: If there is no such teacher or test set.
    """
    teachers = [teacher_named(store, name) for name in teacher_ids]
    asked = {(t.teacher_id, t.iteration + 1) for t in teachers if t.checkpoint}
    pins, rows = store.versions(), []
    for images in images_of(splits, named_sets(store, sets)):
        for row in images.accepted(store, pins):
            is_asked = (row["teacher_id"], row["iteration"]) in asked
            if is_asked and row["source"] != images.dataset:
                percent = {key: 100 * row[key] for key in _SHARES if row[key] is not None}
                rows.append({"images": images.name, **row, **percent})
    return rows
