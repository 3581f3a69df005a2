"""What a store knows of one image: labels, decisions, the views that hold it or do not."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from plstore.errors import InputError
from plstore.report.lineage import label_names
from plstore.report.snapshot import Snapshot
from plstore.ui.asking import ask_saved
from plstore.ui.grid import Filters, find_images

_TOP: Final = 5

_IMAGE: Final = """
select sample_id, dataset, key, split, label, width, height, num_bytes, verdict, conversion,
    image.path as path
from images where sample_id = $sample_id
"""
_LABELS: Final = """
select iteration, teacher_id, class_id, confidence, entropy, label.class_ids as class_ids,
    label.probs as probs, label.residual as residual
from soft_labels where sample_id = $sample_id order by iteration desc, teacher_id
"""
_DECISIONS: Final = """
select decided_at, who, 'excluded' as what, reason as detail, null::int as label
from exclusions where sample_id = $sample_id
union all
select decided_at, who, 'corrected' as what, null as detail, label
from corrections where sample_id = $sample_id
order by decided_at desc
"""
_IN_VIEWS: Final = """
select view, version, kind, class_id, confidence, copies, weight from view_rows
where sample_id = $sample_id
"""
_VIEWS: Final = """
select view, version, query, parameters, counts, pins, created_at
from views order by created_at desc, view
"""


@dataclass(frozen=True, kw_only=True)
class Said:
    """What one teacher says of an image.

    Attributes:
        teacher_id: Whose label.
        iteration: Of it.
        top: The first classes with their probabilities.
        rest: Probability of all others.
        entropy: In nats.
    """

    teacher_id: str
    iteration: int
    top: Sequence[tuple[str, float]]
    rest: float
    entropy: float


@dataclass(frozen=True, kw_only=True)
class Decided:
    """One decision of a person: when, who, what, and the reason or the class."""

    time: datetime
    who: str
    what: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Held:
    """What became of an image in one view.

    Attributes:
        key: ``NAME@VERSION``.
        is_in: Whether it is there.
        class_name: With which class.
        copies: How often a student sees it in one pass.
        why: Why it is not there.
    """

    key: str
    is_in: bool
    class_name: str | None = None
    copies: int = 0
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """One image, with all that is known of it."""

    sample_id: int
    row: Mapping[str, Any]
    label_name: str | None
    corrected_name: str | None
    is_excluded: bool
    said: Sequence[Said]
    decisions: Sequence[Decided]
    views: Sequence[Held]


def image_facts(snapshot: Snapshot, sample_id: int) -> ImageFacts:
    """Return what is known of an image.

    Raises:
        InputError: If there is none of that number.
    """
    of = {"sample_id": sample_id}
    found = snapshot.rows(_IMAGE, of)
    if not found:
        raise InputError(
            f"no image {sample_id} in {snapshot.store.root}: it was deleted, or the number is "
            f"wrong; there are {snapshot.store.next_sample_id():,}, from 0"
        )
    labels = snapshot.rows(_LABELS, of)
    decided = snapshot.rows(_DECISIONS, of)
    right = next((row["label"] for row in decided if row["what"] == "corrected"), None)
    is_excluded = any(row["what"] == "excluded" for row in decided)
    return ImageFacts(
        sample_id=sample_id,
        row=found[0],
        label_name=snapshot.class_name(found[0]["label"]),
        corrected_name=snapshot.class_name(right),
        is_excluded=is_excluded,
        said=[_said(snapshot, row) for row in labels],
        decisions=[_decided(snapshot, row) for row in decided],
        views=_views(snapshot, found[0], labels, decided),
    )


def _said(snapshot: Snapshot, row: Mapping[str, Any]) -> Said:
    pairs = list(zip(row["class_ids"], row["probs"], strict=True))[:_TOP]
    return Said(
        teacher_id=row["teacher_id"],
        iteration=row["iteration"],
        top=[(snapshot.class_name(class_id) or "", p) for class_id, p in pairs],
        rest=max(1 - sum(p for _, p in pairs), 0.0),
        entropy=row["entropy"],
    )


def _decided(snapshot: Snapshot, row: Mapping[str, Any]) -> Decided:
    detail = row["detail"] if row["label"] is None else snapshot.class_name(row["label"])
    return Decided(
        time=row["decided_at"], who=row["who"] or "", what=row["what"], detail=detail or ""
    )


def _views(
    snapshot: Snapshot,
    image: Mapping[str, Any],
    labels: Sequence[Mapping[str, Any]],
    decided: Sequence[Mapping[str, Any]],
) -> list[Held]:
    rows = snapshot.rows(_IN_VIEWS, {"sample_id": image["sample_id"]})
    inside = {(row["view"], row["version"]): row for row in rows}
    found = []
    for view in snapshot.rows(_VIEWS):
        key = f"{view['view']}@{view['version']}"
        row = inside.get((view["view"], view["version"]))
        if row is None:
            found.append(Held(key=key, is_in=False, why=why_not(view, image, labels, decided)))
            continue
        name = snapshot.class_name(row["class_id"])
        found.append(Held(key=key, is_in=True, class_name=name, copies=row["copies"]))
    return found


def why_not(
    view: Mapping[str, Any],
    image: Mapping[str, Any],
    labels: Sequence[Mapping[str, Any]],
    decided: Sequence[Mapping[str, Any]],
) -> str:
    """Return why a view does not hold an image, as far as its record tells.

    Args:
        view: Row of `views`.
        image: Row of `images`.
        labels: Of the image.
        decided: Decisions on it, also those since the view was made.
    """
    if image["verdict"] != "accepted":
        return f"refused at import: {image['verdict']}"
    if image["split"] not in {"unlabeled", "labeled"}:
        return f"held out: {image['split']}"
    before = [row for row in decided if row["decided_at"] <= view["created_at"]]
    if any(row["what"] == "excluded" for row in before):
        return "excluded by a person"
    if view["query"] == "labeled" and image["split"] == "unlabeled":
        return "only labeled images"
    if image["split"] == "labeled":
        return "its bytes are held out too, or it came later"
    return _why_not_chosen(json.loads(view["parameters"]), view, labels)


def _why_not_chosen(
    given: Mapping[str, Any],
    view: Mapping[str, Any],
    labels: Sequence[Mapping[str, Any]],
) -> str:
    names = set(label_names(given))
    own = [row for row in labels if f"{row['teacher_id']}@{row['iteration']}" in names]
    floor = float(given.get("min_confidence", 0.0))
    counted: dict[str, int] = json.loads(view["counts"]).get("dropped", {})
    if not own:
        return "not labeled by its teachers"
    for rule, why in (("agree", "its teachers do not agree"), ("where", "not in the rule")):
        if given.get(rule) is not None:
            return f"{why}, under the floor, or over the quota"
    if not str(view["query"]).startswith("balance/"):
        return f"dropped by {view['query']}: {', '.join(counted) or 'no reason is recorded'}"
    if own[0]["confidence"] <= floor:
        return f"low confidence: {own[0]['confidence']:.3f}, wanted above {floor:g}"
    return "over the quota of its class" if "over_quota" in counted else "not chosen"


@dataclass(frozen=True, kw_only=True)
class Beside:
    """The images before and after one in a list, None at its ends; its place there, from 1."""

    before: int | None = None
    after: int | None = None
    place: int | None = None
    total: int = 0


def beside(snapshot: Snapshot, filters: Filters, sample_id: int) -> Beside:
    """Return the neighbours of an image on a page of a grid."""
    found = find_images(snapshot, filters)
    if sample_id not in found.sample_ids:
        return Beside()
    at = found.sample_ids.index(sample_id)
    ids = found.sample_ids
    return Beside(
        before=ids[at - 1] if at else None,
        after=ids[at + 1] if at + 1 < len(ids) else None,
        place=found.first + at + 1,
        total=found.total,
    )


def nearest(snapshot: Snapshot, sample_id: int, most: int = 12) -> list[tuple[int, float]]:
    """Return the images most similar to one, with the cosine; none without an embedding."""
    models = snapshot.rows(
        "select model from embeddings where sample_id = $id group by model order by model",
        {"id": sample_id},
    )
    if not models:
        return []
    values = {"sample_id": sample_id, "num_images": most, "model": models[-1]["model"]}
    rows = ask_saved(snapshot, "neighbors/nearest", values).rows.to_pylist()
    return [(row["sample_id"], row["similarity"]) for row in rows]
