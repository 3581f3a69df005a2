"""Several teachers into one: their distributions averaged, as a label set of its own."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial, reduce
from math import isfinite
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from plstore.codec import Codec, decode
from plstore.errors import InputError
from plstore.labels.label_sets import SHARD_IDS, LabelBatch, LabelSet
from plstore.labels.writing import LabelWriter

if TYPE_CHECKING:
    from plstore.store import Shard, Store

Method = Literal["arithmetic", "geometric", "votes"]
Floats = npt.NDArray[np.float32]

FLOOR = np.float32(1e-12)
"""The least probability whose logarithm is taken."""

_CHUNK_ROWS = 4096


@dataclass(frozen=True, kw_only=True)
class Member:
    """One teacher of a fusion.

    Attributes:
        teacher_id: Whose labels.
        iteration: Of its labels.
        weight: Above 0, or 0 where it was fitted; weights are divided by their sum.
        temperature: Above 0; log-probabilities are divided by it, and normalised again.
    """

    teacher_id: str
    iteration: int
    weight: float = 1.0
    temperature: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Fused:
    """What a fusion wrote, not yet committed.

    Attributes:
        shards: For `commit_labels`.
        num_images: Images with a fused label.
        num_incomplete: Images that not every member had labeled: left out.
    """

    shards: "list[Shard]"
    num_images: int
    num_incomplete: int


def fuse(distributions: Sequence[Floats], members: Sequence[Member], method: Method) -> Floats:
    """Return the fused distributions, float32 [rows, classes].

    `arithmetic` averages probabilities; `geometric` averages log-probabilities (as averaging
    logits does) and normalises; `votes` averages hard labels, each member's most probable class
    (the lowest of several), so that a member that is too sure of itself has no more to say
    ("mean labels" of Zhang et al., Revisiting Semi-Supervised Learning in the Era of Foundation
    Models, NeurIPS 2025, arXiv:2503.09707: better than mean logits there).

    Args:
        distributions: One float32 [rows, classes] a member; they are changed.
        members: Their weights and temperatures.
        method: How they are averaged.
    """
    total = sum(member.weight for member in members)
    fused = np.zeros_like(distributions[0])
    for probs, member in zip(distributions, members, strict=True):
        share = np.float32(member.weight / total)
        sharpened = at_temperature(probs, member.temperature)
        if method == "votes":
            fused[np.arange(len(fused)), sharpened.argmax(axis=1)] += share
        elif method == "geometric":
            np.maximum(sharpened, FLOOR, out=sharpened)
            fused += share * np.log(sharpened)
        else:
            fused += share * sharpened
    if method == "geometric":
        np.exp(fused - fused.max(axis=1, keepdims=True), out=fused)
    fused /= fused.sum(axis=1, keepdims=True)
    return fused


def at_temperature(probs: Floats, temperature: float) -> Floats:
    """Return p^(1 / temperature), normalised: what a softmax at that temperature had given."""
    if temperature == 1:
        return probs
    largest = probs.max(axis=1, keepdims=True)  # or a flat row underflows
    powered = np.power(probs / largest, np.float32(1 / temperature))
    return np.asarray(powered / powered.sum(axis=1, keepdims=True), dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class FuseRanges:
    """What is fused, range by range of sample ids, by whoever opens it.

    Attributes:
        place: Of the store.
        label_set: Of the fusion; its split is that of the members' labels.
        members: Two or more teachers with labels of that split, as `check_members` wants them.
        method: How they are averaged.
        codec: How the result is kept.
        identity: Start of the files' names, [a-z0-9_-]+.
        version: Of `soft_labels`.
    """

    place: str
    label_set: LabelSet
    members: tuple[Member, ...]
    method: Method
    codec: Codec
    identity: str
    version: int

    device: ClassVar[str] = "cpu"

    def shards(self, store: "Store") -> "list[list[Shard]]":
        """Return the files of each member.

        Raises:
            InputError: If a member has no labels of the split.
        """
        table, split = store.table("soft_labels"), self.label_set.split
        shards = [
            table.shards(
                self.version,
                {"iteration": each.iteration, "teacher_id": each.teacher_id, "split": split},
            )
            for each in self.members
        ]
        for member, found in zip(self.members, shards, strict=True):
            if not found:
                raise InputError(
                    f"teacher {member.teacher_id!r} has no labels of iteration "
                    f"{member.iteration} and split {split!r} in {store.root}"
                )
        return shards

    def open(self, on_images: Callable[[int], None]) -> Callable[[int], Fused]:
        """Open the store; what is returned fuses the range of a number, and writes it."""
        from plstore.store import open as open_store

        store = open_store(self.place)
        shards = self.shards(store)

        def fuse_range(number: int) -> Fused:
            label_set, codec, identity = self.label_set, self.codec, self.identity
            writer = LabelWriter(store, label_set, codec=codec, identity=identity)
            complete = left_out = 0
            for batch, incomplete in _fuse_range(
                store, shards, self.members, self.method, number
            ):
                complete += len(batch.sample_ids)
                left_out += incomplete
                on_images(len(batch.sample_ids))
                if len(batch.sample_ids):
                    writer.add(batch)
            return Fused(shards=writer.finish(), num_images=complete, num_incomplete=left_out)

        return fuse_range


Spread = Callable[[FuseRanges, Sequence[int], Callable[[int], None]], Iterable[Fused]]
"""Fuses ranges, in any order: `run` of an engine."""


def write_fused(
    store: "Store",
    work: FuseRanges,
    *,
    spread: Spread | None = None,
    on_images: Callable[[int], None] = lambda _: None,
) -> Fused:
    """Write the fused labels of one split, range by range of sample ids: memory stays flat.

    Args:
        store: Where from and to.
        work: What is fused.
        spread: Who fuses the ranges; this process unless given.
        on_images: Called with the number of images just finished.

    Raises:
        InputError: If a member has no labels of the split.
    """
    numbers = _ranges(work.shards(store))
    if spread is None:
        parts = [*map(work.open(on_images), numbers)]
    else:
        parts = []
        for part in spread(work, numbers, on_images):
            on_images(part.num_images)
            parts.append(part)
    shards = [shard for part in parts for shard in part.shards]
    return Fused(
        shards=sorted(shards, key=lambda shard: shard.first_id),
        num_images=sum(part.num_images for part in parts),
        num_incomplete=sum(part.num_incomplete for part in parts),
    )


def fusion_lineage(members: Sequence[Member], method: Method, codec: Codec) -> dict[str, Any]:
    """Return what a fusion's commit and teacher row say of how it was made."""
    return {
        "members": [asdict(member) for member in members],
        "method": method,
        "codec": codec.as_json(),
    }


def check_members(members: Sequence[Member], method: Method) -> None:
    """Stop where a fusion of these would mean nothing.

    Raises:
        InputError: If there are fewer than two, one is there twice, a weight or temperature is
            no number above 0, or the method is unknown or has no use for a temperature.
    """
    if method not in get_args(Method):
        raise InputError(f"fusion method {method!r}; wanted {', '.join(get_args(Method))}")
    keys = {(member.teacher_id, member.iteration) for member in members}
    if len(members) < 2 or len(keys) != len(members):  # noqa: PLR2004  one is no ensemble
        raise InputError(f"a fusion takes two or more different teachers; found {members}")
    for member in members:
        settings = (member.weight, member.temperature)
        if not all(isfinite(value) and value > 0 for value in settings):
            raise InputError(
                f"teacher {member.teacher_id!r} has weight {member.weight} and temperature "
                f"{member.temperature}; wanted both above 0"
            )
        if method == "votes" and member.temperature != 1:
            raise InputError(
                f"teacher {member.teacher_id!r} has temperature {member.temperature}, and no "
                "temperature changes a vote; leave temperatures out"
            )


def _ranges(shards: "Sequence[Sequence[Shard]]") -> list[int]:
    return sorted({shard.first_id // SHARD_IDS for member in shards for shard in member})


def _rows_of_range(store: "Store", shards: "Sequence[Shard]", number: int) -> pa.Table:
    here = [shard for shard in shards if shard.first_id // SHARD_IDS == number]
    dataset = store.table("soft_labels").dataset_of(here)
    return dataset.to_table(columns=["sample_id", "label"]).sort_by("sample_id")


def _fuse_range(
    store: "Store",
    shards: "Sequence[Sequence[Shard]]",
    members: Sequence[Member],
    method: Method,
    number: int,
) -> Iterator[tuple[LabelBatch, int]]:
    """Yield the fused labels of one range of ids, with the number of images left out."""
    rows = [_rows_of_range(store, member, number) for member in shards]
    ids = [part["sample_id"].to_numpy() for part in rows]
    common = reduce(partial(np.intersect1d, assume_unique=True), ids)
    incomplete = len(np.unique(np.concatenate(ids))) - len(common)
    places = [np.searchsorted(part, common) for part in ids]
    labels = [part["label"].combine_chunks() for part in rows]
    num_classes = len(store.class_names)
    for start in range(0, max(len(common), 1), _CHUNK_ROWS):
        chosen = [place[start : start + _CHUNK_ROWS] for place in places]
        distributions = [
            decode(part.take(place), num_classes)
            for part, place in zip(labels, chosen, strict=True)
        ]
        fused = fuse(distributions, members, method)
        batch = LabelBatch(sample_ids=common[start : start + _CHUNK_ROWS], probabilities=fused)
        yield batch, incomplete if start == 0 else 0
