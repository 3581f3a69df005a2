"""A fusion as a recorded step: its labels, and a teacher of its own that names its members."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from plstore.codec import Codec
from plstore.errors import InputError
from plstore.fingerprint import value_hash
from plstore.labels.fusion import Member, Method, fusion_lineage, write_fused
from plstore.labels.label_sets import LabelSet, check_teacher_id, find_label_sets, label_sets
from plstore.labels.teachers import TeacherRecord, add_teacher, find_teacher
from plstore.labels.writing import commit_labels

if TYPE_CHECKING:
    from plstore.store import Store

_DEFAULT_CODEC = Codec()


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """What a fusion made.

    Attributes:
        teacher_id: Of the fusion.
        iteration: Of its labels.
        images: Fused labels by split.
        incomplete: Images that not every member had labeled, by split: left out.
        version: Of `soft_labels`.
    """

    teacher_id: str
    iteration: int
    images: dict[str, int]
    incomplete: dict[str, int]
    version: int


def make_ensemble(
    store: "Store",
    teacher_id: str,
    members: Sequence[Member | str],
    *,
    iteration: int | None = None,
    method: Method = "arithmetic",
    codec: Codec = _DEFAULT_CODEC,
    notes: dict[str, Any] | None = None,
    on_images: Callable[[int], None] = lambda _: None,
) -> Ensemble:
    """Fuse teachers on every split that all of them labeled; keep the result as a teacher.

    Done again with the same members and settings it adds nothing.

    Args:
        store: The store.
        teacher_id: Of the fusion: a new one.
        members: Two or more teachers; text names one as ``TEACHER[@ITERATION][*WEIGHT]``.
        iteration: Of the fused labels; the members' last unless given.
        method: `arithmetic` or `geometric`, see `plstore.labels.fuse`.
        codec: How the fused labels are kept.
        notes: More for the teacher's metrics, such as calibration errors.
        on_images: Called with the number of images just fused.

    Raises:
        InputError: If a member has no labels, they share no split, or the id is another
            teacher's.
    """
    check_teacher_id(teacher_id)
    named = [member_of(store, m) if isinstance(m, str) else m for m in members]
    if iteration is None:
        iteration = max((member.iteration for member in named), default=1)
    table = store.table("soft_labels")
    version, newest = table.newest()
    lineage = fusion_lineage(named, method, codec)
    identity = value_hash({"fusion": lineage, "teacher": teacher_id, "iteration": iteration})
    _check_free(store, teacher_id, identity)
    splits = _common_splits(store, named, version)
    shards, images, incomplete = [], {}, {}
    for split in splits:
        fused = write_fused(
            store,
            LabelSet(iteration=iteration, teacher_id=teacher_id, split=split),
            named,
            method=method,
            codec=codec,
            identity=identity,
            version=version,
            on_images=on_images,
        )
        shards += fused.shards
        images[split], incomplete[split] = fused.num_images, fused.num_incomplete
    read = {"soft_labels_version": version, **lineage}
    own = {"teacher_id": teacher_id, "iteration": str(iteration)}.items()
    there = [shard for shard in newest if own <= shard.partition.items()]
    new, old = [s.path for s in shards], [s.path for s in there]
    # The version too: members' labels may come back that were fused before.
    made = value_hash({"version": version, "new": new, "there": old})
    committed = version
    if set(new) != set(old):  # else they are there already
        committed = commit_labels(
            store,
            shards,
            lineage={"step": "fuse", **read},
            transaction=f"fuse-{identity}-{made}",
            instead_of=there,
        )
    record = TeacherRecord(
        teacher_id=teacher_id,
        iteration=iteration,
        role="ensemble",
        architecture=f"{method} mean of {len(named)} teachers",
        checkpoint_hash=identity,
        metrics=notes or {},
        members=lineage,
    )
    add_teacher(store, record, identity=f"fusion-{identity}", step="fuse")
    return Ensemble(
        teacher_id=teacher_id,
        iteration=iteration,
        images=images,
        incomplete=incomplete,
        version=committed,
    )


def member_of(store: "Store", text: str) -> Member:
    """Read a member as people write it: ``TEACHER[@ITERATION][*WEIGHT]``.

    Raises:
        InputError: If it is not that, or the teacher has no labels.
    """
    name, star, weight = text.partition("*")
    teacher_id, at, iteration = name.partition("@")
    try:
        parsed = float(weight) if star else 1.0
        wanted = int(iteration) if at else None
    except ValueError as error:
        raise InputError(
            f"member {text!r}; wanted TEACHER[@ITERATION][*WEIGHT], such as t1-ab12@2*0.5"
        ) from error
    found = find_label_sets(store, teacher_id, iteration=wanted)
    return Member(teacher_id=teacher_id, iteration=found[0].iteration, weight=parsed)


def _check_free(store: "Store", teacher_id: str, identity: str) -> None:
    known = find_teacher(store, teacher_id)
    if known is not None and known.checkpoint_hash != identity:
        raise InputError(
            f"{store.root} has a teacher {teacher_id!r} already, made otherwise; name the "
            "fusion differently"
        )


def _common_splits(store: "Store", members: Sequence[Member], version: int) -> list[str]:
    known = label_sets(store, version)
    by_member = [
        {s.split for s in known if (s.teacher_id, s.iteration) == (m.teacher_id, m.iteration)}
        for m in members
    ]
    splits = sorted(set.intersection(*by_member)) if by_member else []
    if not splits:
        raise InputError(
            f"the teachers {', '.join(m.teacher_id for m in members)} have labeled no split "
            "together"
        )
    return splits
