"""A queue of images to look at, and what a person decides of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from plstore.errors import InputError
from plstore.report.snapshot import Snapshot
from plstore.store import Store
from plstore.ui.asking import ask_saved
from plstore.upkeep import correct, exclude, take_back

QUERY: Final = "review/worth_a_look"
LONGEST: Final = 300

Verb = Literal["accept", "correct", "exclude"]

SIGNS: Final = {
    "disagreement": "disagreement",
    "torn": "torn",
    "label_error": "label error",
    "near_cut": "near a cut",
    "copied": "copied",
}
"""Columns of the query that say why, with what people call them."""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """An image of the queue.

    Attributes:
        sample_id: The image.
        key: Its name.
        split: Its split.
        class_name: What the teacher says; accepted, the image's class.
        label_name: What it is filed as.
        other_name: What others say.
        score: How much it is worth a look, 0 to 1.
        why: The strongest sign.
        signs: All of them, 0 to 1.
    """

    sample_id: int
    key: str
    split: str
    class_name: str
    label_name: str | None
    other_name: str | None
    score: float
    why: str
    signs: Mapping[str, float]

    @property
    def accepted_name(self) -> str:
        """The class that accepting it says: as it is filed, else what the label says."""
        return self.class_name if self.label_name is None else self.label_name


def queue(snapshot: Snapshot, most: int = LONGEST) -> list[Waiting]:
    """Return what is worth a look, the most first; what was decided is not in it."""

    def find() -> list[Waiting]:
        return [_waiting(row) for row in ask_saved(snapshot, QUERY, values).rows.to_pylist()]

    values = {"num_images": most}
    if not snapshot.labels("unlabeled"):
        return []
    return snapshot.once(("queue", most), find)


def decided_now(store: Store, waiting: Sequence[Waiting]) -> set[int]:
    """Return the images of a queue that somebody has decided on by now, here or elsewhere."""
    ids = {one.sample_id for one in waiting}
    found: set[int] = set()
    for table in ("exclusions", "corrections"):
        found |= set(store.table(table).read(columns=["sample_id"])["sample_id"].to_pylist())
    return ids & found


def class_named(class_names: Sequence[str], typed: str) -> str | None:
    """Return the class that was typed: its name, or the only one that begins so."""
    if typed in class_names:
        return typed
    begun = [name for name in class_names if name.casefold().startswith(typed.casefold())]
    return begun[0] if typed and len(begun) == 1 else None


def _waiting(row: Mapping[str, Any]) -> Waiting:
    return Waiting(
        sample_id=row["sample_id"],
        key=row["key"],
        split=row["split"],
        class_name=row["class_name"],
        label_name=row["label_name"],
        other_name=row["other_name"],
        score=row["score"],
        why=row["why"],
        signs={name: row[name] for name in SIGNS},
    )


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was decided of some images, to be said and to be undone.

    Attributes:
        verb: Which decision.
        sample_ids: Of which images.
        detail: The class, or the reason.
        num_written: Decisions that were new.
    """

    verb: Verb
    sample_ids: tuple[int, ...]
    detail: str
    num_written: int

    @property
    def said(self) -> str:
        """The decision in a line."""
        images = "1 image" if len(self.sample_ids) == 1 else f"{len(self.sample_ids)} images"
        verb = {"accept": "accepted", "correct": "corrected", "exclude": "excluded"}[self.verb]
        return f"{images} {verb}: {self.detail}"


def accept(store: Store, images: Sequence[Waiting], *, who: str) -> Decision:
    """Confirm what the labels say: students are trained on it as on a label of a person."""
    names = {one.sample_id: one.accepted_name for one in images}
    detail = ", ".join(dict.fromkeys(names.values()))
    written = correct(store, names, who=who)
    return _decision("accept", images, detail, written)


def correct_to(store: Store, images: Sequence[Waiting], name: str, *, who: str) -> Decision:
    """Give images another class.

    Raises:
        InputError: If there is no such class.
    """
    written = correct(store, {one.sample_id: name for one in images}, who=who)
    return _decision("correct", images, name, written)


def leave_out(
    store: Store, images: Sequence[Waiting], reason: str = "review", *, who: str
) -> Decision:
    """Keep images from selection and training."""
    written = exclude(store, [one.sample_id for one in images], reason=reason, who=who)
    return _decision("exclude", images, reason, written)


def _decision(verb: Verb, images: Sequence[Waiting], detail: str, written: int) -> Decision:
    ids = tuple(one.sample_id for one in images)
    return Decision(verb=verb, sample_ids=ids, detail=detail, num_written=written)


def undo(store: Store, decision: Decision, *, who: str) -> int:
    """Take a decision back; return how many images it was of.

    Raises:
        InputError: If it is not there any more.
    """
    table: Literal["exclusions", "corrections"] = (
        "exclusions" if decision.verb == "exclude" else "corrections"
    )
    if not decision.num_written:
        return 0
    taken = take_back(store, table, decision.sample_ids, who=who)
    if not taken:
        raise InputError(f"nothing to take back: {decision.said} is not in {store.root} now")
    return taken
