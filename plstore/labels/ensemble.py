"""A fusion as a recorded step: its labels, and a teacher of its own that names its members."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from plstore.codec import Codec
from plstore.errors import InputError
from plstore.fingerprint import value_hash
from plstore.labels.fusion import (
    Fused,
    FuseRanges,
    Member,
    Method,
    Spread,
    check_members,
    fusion_lineage,
    write_fused,
)
from plstore.labels.label_sets import LabelSet, check_teacher_id, find_label_sets, label_sets
from plstore.labels.teachers import TeacherRecord, add_teacher, find_teacher
from plstore.labels.truth import read_validation
from plstore.labels.weighting import Weighting, fit_weights
from plstore.labels.writing import commit_labels

if TYPE_CHECKING:
    from plstore.store import Store

Weights = Literal["given", "fitted"]

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
        members: As they were fused, with their weights.
        weighting: How the weights were found; None where they were given.
    """

    teacher_id: str
    iteration: int
    images: dict[str, int]
    incomplete: dict[str, int]
    version: int
    members: tuple[Member, ...]
    weighting: Weighting | None = None


def make_ensemble(  # noqa: PLR0913  one keyword per choice of the user
    store: "Store",
    teacher_id: str,
    members: Sequence[Member | str],
    *,
    iteration: int | None = None,
    method: Method = "arithmetic",
    weights: Weights = "given",
    codec: Codec = _DEFAULT_CODEC,
    notes: dict[str, Any] | None = None,
    spread: Spread | None = None,
    on_images: Callable[[int], None] = lambda _: None,
) -> Ensemble:
    """Fuse teachers on every split that all of them labeled; keep the result as a teacher.

    Done again with the same members and settings it adds nothing.

    Args:
        store: The store.
        teacher_id: Of the fusion: a new one.
        members: Two or more teachers; text names one as ``TEACHER[@ITERATION][*WEIGHT]``.
        iteration: Of the fused labels; the members' last unless given.
        method: `arithmetic`, `geometric` or `votes`, see `plstore.labels.fusion.fuse`.
        weights: Those of the members, or `fitted` on the validation images that all of them
            labeled, see `plstore.labels.weighting.fit_weights`. The teacher's record and the
            commit keep what was found.
        codec: How the fused labels are kept.
        notes: More for the teacher's metrics, such as calibration errors.
        spread: Who fuses the ranges of ids: `run` of an engine, such as `plstore.Ray().run`;
            this process unless given.
        on_images: Called with the number of images just fused.

    Raises:
        InputError: If there are fewer than two members, one has no labels, they share no split,
            a setting is impossible, the id is another teacher's, or weights are to be fitted
            and a member did not label the validation images, or has a weight.
        MissingExtraError: If weights are to be fitted, and scipy is not installed.
    """
    check_teacher_id(teacher_id)
    named = [member_of(store, m) if isinstance(m, str) else m for m in members]
    check_members(named, method)
    if iteration is None:
        iteration = max(member.iteration for member in named)
    weighting = _weighting(store, named, method, weights)
    if weighting is not None:
        pairs = zip(named, weighting.weights, strict=True)
        named = [replace(member, weight=weight) for member, weight in pairs]
    fusion = _Fusion(
        teacher_id=teacher_id,
        iteration=iteration,
        members=named,
        method=method,
        codec=codec,
        weighting=weighting,
    )
    _check_free(store, teacher_id, fusion.identity)
    version, fused = fusion.commit(store, spread, on_images)
    identity = f"fusion-{fusion.identity}"
    add_teacher(store, fusion.record(notes or {}), identity=identity, step="fuse")
    return Ensemble(
        teacher_id=teacher_id,
        iteration=iteration,
        images={split: part.num_images for split, part in fused.items()},
        incomplete={split: part.num_incomplete for split, part in fused.items()},
        version=version,
        members=tuple(named),
        weighting=weighting,
    )


@dataclass(frozen=True, kw_only=True)
class _Fusion:
    """What is fused, and how."""

    teacher_id: str
    iteration: int
    members: Sequence[Member]
    method: Method
    codec: Codec
    weighting: Weighting | None

    @property
    def identity(self) -> str:
        """What it is known by: members, weights and settings, not how weights were found."""
        lineage = fusion_lineage(self.members, self.method, self.codec)
        what = {"teacher": self.teacher_id, "iteration": self.iteration}
        return value_hash({"fusion": lineage, **what})

    @property
    def lineage(self) -> dict[str, Any]:
        """What the commit and the teacher's row say of how it was made."""
        lineage = fusion_lineage(self.members, self.method, self.codec)
        found = {} if self.weighting is None else {"weighting": asdict(self.weighting)}
        return lineage | found

    def commit(
        self, store: "Store", spread: Spread | None, on_images: Callable[[int], None]
    ) -> tuple[int, dict[str, Fused]]:
        """Write and commit the labels; return the version, and what was written by split."""
        version, newest = store.table("soft_labels").newest()
        fused = {
            split: write_fused(
                store, self._work(store, split, version), spread=spread, on_images=on_images
            )
            for split in _common_splits(store, self.members, version)
        }
        own = {"teacher_id": self.teacher_id, "iteration": str(self.iteration)}.items()
        there = [shard for shard in newest if own <= shard.partition.items()]
        shards = [shard for part in fused.values() for shard in part.shards]
        new, old = [s.path for s in shards], [s.path for s in there]
        if set(new) == set(old):  # they are there already
            return version, fused
        # The version too: members' labels may come back that were fused before.
        made = value_hash({"version": version, "new": new, "there": old})
        own_lineage = {"step": "fuse", "teacher_id": self.teacher_id} | self.lineage
        lineage = own_lineage | {"iteration": self.iteration, "soft_labels_version": version}
        transaction = f"fuse-{self.identity}-{made}"
        version = commit_labels(
            store, shards, lineage=lineage, transaction=transaction, instead_of=there
        )
        return version, fused

    def _work(self, store: "Store", split: str, version: int) -> FuseRanges:
        return FuseRanges(
            place=str(store.root),
            label_set=LabelSet(
                iteration=self.iteration, teacher_id=self.teacher_id, split=split
            ),
            members=tuple(self.members),
            method=self.method,
            codec=self.codec,
            identity=self.identity,
            version=version,
        )

    def record(self, notes: dict[str, Any]) -> TeacherRecord:
        """Return the teacher that it makes."""
        count = len(self.members)
        is_mean = self.method != "votes"
        return TeacherRecord(
            teacher_id=self.teacher_id,
            iteration=self.iteration,
            role="ensemble",
            architecture=(
                f"{self.method} mean of {count} teachers" if is_mean else f"votes of {count}"
            ),
            checkpoint_hash=self.identity,
            metrics=notes,
            members=self.lineage,
        )


def _weighting(
    store: "Store", members: Sequence[Member], method: Method, weights: Weights
) -> Weighting | None:
    """Return the weights that fit the validation images; None where weights are given."""
    if weights not in get_args(Weights):
        raise InputError(f"weights are {weights!r}; wanted {' or '.join(get_args(Weights))}")
    if weights == "given":
        return None
    if weighted := [m for m in members if m.weight != 1]:
        raise InputError(
            f"teacher {weighted[0].teacher_id!r} has the weight {weighted[0].weight}, and "
            "weights are to be fitted; leave out one or the other"
        )
    teachers = [(member.teacher_id, member.iteration) for member in members]
    return fit_weights(read_validation(store, teachers), members, method)


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
