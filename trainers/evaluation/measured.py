"""Images that teachers are measured on: of a split, or a test set by name."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow.compute as pc

from plstore.errors import InputError
from plstore.labels import TeacherRecord
from plstore.query import run_query
from plstore.schema import ACCEPTED, EVALUATION, Split
from plstore.store import Store
from trainers.evaluation.imagenet import PROTOCOLS, Among
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
    def metric(self) -> str:
        """What names of metrics begin with: says so where a set is asked in another way."""
        usual = not self.dataset or self.among == _usual(self.dataset)
        return self.name if usual else f"{self.name}-among-{self.among}"

    @property
    def columns(self) -> dict[str, str]:
        """What a row says of the images."""
        of_set = {"dataset": self.dataset, "among": self.among} if self.dataset else {}
        return {"split": self.split, **of_set}

    def metrics(self, store: Store, pins: Mapping[str, int]) -> Rows:
        """Return rows of `evaluation/metrics`; of `accepted` if the set says what is right."""
        if self.dataset and (own := self.accepted(store, pins, self.dataset)):
            self._check_whole(store, own)
            return own
        if self.dataset in PROTOCOLS and PROTOCOLS[self.dataset].accepts_several:
            self._check_whole(store, [])
        rows: Rows = run_query(
            store,
            METRICS,
            as_of=pins,
            split=self.split,
            dataset=self.dataset,
            among=self.among,
        ).to_pylist()
        return rows

    def _check_whole(self, store: Store, rows: Rows) -> None:
        """Stop where it is not noted of every image which classes are right."""
        count = (
            store.table("images")
            .dataset()
            .count_rows(filter=_of_set(self.dataset) & (pc.field("verdict") == ACCEPTED))
        )
        noted = max((row["num_images"] for row in rows), default=0)
        if noted < count:
            raise InputError(
                f"of {count - noted} of {count} images of {self.dataset} it is not noted which "
                "classes are right: its import was stopped, or it grew. Import it again"
            )

    def accepted(self, store: Store, pins: Mapping[str, int], source: str = "") -> Rows:
        """Return rows of `evaluation/accepted`; of all sources unless one is named."""
        rows: Rows = run_query(
            store,
            ACCEPTED_BY,
            as_of=pins,
            split=self.split,
            dataset=self.dataset,
            source=source,
            among=self.among,
        ).to_pylist()
        return rows


def images_of(
    splits: Sequence[Split], sets: Sequence[str], among: Among | None = None
) -> list[Images]:
    """Return images of splits and test sets; of a set, among what its authors ask for."""
    found = [Images(split=split) for split in splits]
    return found + [
        Images(split=EVALUATION, dataset=name, among=among or _usual(name)) for name in sets
    ]


def _usual(name: str) -> Among:
    return PROTOCOLS[name].among if name in PROTOCOLS else "all"


def _of_set(name: str) -> pc.Expression:
    return (pc.field("split") == EVALUATION) & (pc.field("dataset") == name)


def remarks(store: Store, images: Sequence[Images]) -> Iterator[str]:
    """Yield what is to know of official sets that are not here whole."""
    for these in images:
        wanted = PROTOCOLS[these.dataset].num_classes if these.dataset in PROTOCOLS else None
        if wanted is None or these.among != "own":
            continue
        where = _of_set(these.dataset) & (pc.field("verdict") == ACCEPTED)
        labels = store.table("images").read(columns=["label"], where=where)["label"]
        if (count := len(labels.unique())) < wanted:
            yield (
                f"{these.dataset} has images of {count} of its {wanted} classes here: among "
                "fewer classes it is easier than as it is published"
            )


def labeled_as(teacher: TeacherRecord, there: Iterable[tuple[str, int]]) -> int:
    """Return the iteration of a teacher's labels: after a model's own, else the last."""
    if teacher.checkpoint:
        return teacher.iteration + 1
    return max((number for name, number in there if name == teacher.teacher_id), default=-1)


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
            f"{store.root} has no test set {', '.join(unknown)} with images that can be read; "
            f"it has {', '.join(there) or 'none'}. 'plstore import test-set' brings one, and "
            "'plstore query run coverage/verdicts' says what became of its images"
        )
    return there if "all" in sets else list(dict.fromkeys(sets))


def answers(
    store: Store,
    teacher_ids: Sequence[str],
    *,
    splits: Sequence[Split],
    sets: Sequence[str] = (),
    among: Among | None = None,
) -> Rows:
    """Return what teachers are worth by sources that accept several classes, such as ReaL.

    They are rows of the saved query `evaluation/accepted`, in percent, of labels that
    `evaluate` made; none where no source says anything of them (`plstore import answers`).

    Raises:
        InputError: If there is no such teacher or test set.
    """
    teachers = [teacher_named(store, name) for name in teacher_ids]
    pins, rows = store.versions(), []
    for images in images_of(splits, named_sets(store, sets), among):
        found = [r for r in images.accepted(store, pins) if r["source"] != images.dataset]
        there = {(row["teacher_id"], row["iteration"]) for row in found}
        asked = {(teacher.teacher_id, labeled_as(teacher, there)) for teacher in teachers}
        for row in found:
            if (row["teacher_id"], row["iteration"]) in asked:
                percent = {key: 100 * row[key] for key in _SHARES if row[key] is not None}
                rows.append({**images.columns, **row, **percent})
    return rows
