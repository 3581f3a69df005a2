"""Labeling: a teacher says what it sees in images, range by range of sample ids.

One range is one piece of work: `label_range` reads its images from a snapshot and writes files
that nothing names yet, the same ones for the same ids, wherever it runs; a commit makes them
visible. So a labeling that is stopped goes on with the ranges that are left, several workers
share them, and memory stays flat.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from plstore.codec import Codec
from plstore.embeddings import EmbeddingSet, read_embeddings
from plstore.errors import InputError
from plstore.fingerprint import content_hash, value_hash
from plstore.labels import (
    SHARD_IDS,
    LabelBatch,
    LabelSet,
    TeacherRecord,
    commit_labels,
    find_teacher,
    list_teachers,
    write_labels,
)
from plstore.loaders import import_backend, pick_backend
from plstore.loaders.settings import check_number, check_whole
from plstore.loaders.work import Backend
from plstore.schema import ACCEPTED
from plstore.store import Shard, Store, Table
from trainers.absence import leave_out_gone
from trainers.embedding import embed_for
from trainers.events import Listener, Teller, unheard
from trainers.inference import probabilities
from trainers.model import Bundle, load_teacher
from trainers.portions import read_images
from trainers.train import pick_device


@dataclass(frozen=True, kw_only=True)
class Labeling:
    """How images are labeled.

    Attributes:
        teacher_id: A teacher of the store.
        iteration: That these labels belong to.
        splits: Which images.
        codec: How distributions are kept.
        temperature: Logits are divided by it.
        part: This worker's number and how many share the work; each takes its own shards.
        device: "cpu" or a CUDA device.
        backend: Of the loader; "auto" as in `plstore.load`, whatever the teacher was fed by.
        identity: Of the step of a run that labels: labels that it did not make are replaced.
            None adds to the labels that there are.
        images_version: Of the table `images`; the newest, of each range anew, unless given.
        notes: More for the lineage of the labels.
    """

    teacher_id: str
    iteration: int = 1
    splits: Sequence[str] = ("unlabeled", "validation")
    codec: Codec = field(default_factory=Codec)
    temperature: float = 1.0
    part: tuple[int, int] = (0, 1)
    device: str = "cpu"
    backend: Backend = "auto"
    identity: str | None = None
    images_version: int | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    def label_set(self, split: str) -> LabelSet:
        """Return the partition that the labels of a split fill."""
        return LabelSet(iteration=self.iteration, teacher_id=self.teacher_id, split=split)

    def __post_init__(self) -> None:
        """Check every setting that is a number.

        Raises:
            InputError: If one is out of range.
        """
        check_whole("iteration", self.iteration, low=0)
        check_number("temperature", self.temperature, low=0, above=True)
        number, parts = self.part
        check_whole("parts", parts, low=1)
        check_whole("part", number, low=0, high=parts - 1)


def label(store: Store, labeling: Labeling, *, on_event: Listener = unheard) -> dict[str, int]:
    """Label what a teacher has not labeled yet; return how many images, by split.

    Goes on where it was stopped; see `label_missing`.

    Args:
        store: The store.
        labeling: By whom, what, and how; its device may be "auto".
        on_event: Told of progress.

    Raises:
        InputError: If the store has no such teacher, or it has no model.
        MissingExtraError: If the loader's backend is not installed.
    """
    device = pick_device(labeling.device)
    backend = pick_backend(labeling.backend, device)
    import_backend(backend)
    ready = replace(labeling, device=device, backend=backend)
    leave_out_gone(store, Teller(on_event).say)
    embed_for_teacher(store, ready, on_event=on_event)
    total = count_missing(store, ready)
    with Teller(on_event).task(f"label by {labeling.teacher_id}", total) as advance:
        return label_missing(store, ready, on_images=advance)


def embed_for_teacher(
    store: Store, labeling: Labeling, *, on_event: Listener = unheard
) -> None:
    """Embed what a probe is to label; of another teacher, do nothing."""
    bundle = load_teacher(store, _teacher(store, labeling.teacher_id), device=labeling.device)
    device, backend = labeling.device, labeling.backend
    embed_for(store, bundle, labeling.splits, device=device, backend=backend, on_event=on_event)


def label_missing(
    store: Store, labeling: Labeling, *, on_images: Callable[[int], None] = lambda _: None
) -> dict[str, int]:
    """Label the images that the teacher has not labeled yet; return how many, by split.

    Images are read and committed range by range of sample ids: a labeling that is stopped goes
    on from there, memory stays flat, and images that are imported later are all that a later
    call labels.

    Raises:
        InputError: If the store has no such teacher, or it has no model.
    """
    teacher = _teacher(store, labeling.teacher_id)
    if labeling.identity is None:
        _check_settings(store, labeling)
    bundle = load_teacher(store, teacher, device=labeling.device)
    embed_for(store, bundle, labeling.splits, device=labeling.device, backend=labeling.backend)
    counts = dict.fromkeys(labeling.splits, 0)
    for split in labeling.splits:
        for missing in missing_labels(store, labeling, split):
            shards = label_range(store, bundle, labeling, missing, on_images)
            commit_ranges(store, teacher, labeling, [(missing, shards)])
            counts[split] += len(missing.ids)
    return counts


def _teacher(store: Store, teacher_id: str) -> TeacherRecord:
    teacher = find_teacher(store, teacher_id)
    if teacher is None or not teacher.checkpoint:
        known = ", ".join(t.teacher_id for t in list_teachers(store))
        raise InputError(
            f"{store.root} has no teacher {teacher_id!r} with a checkpoint; it has "
            f"{known or 'none'}. --checkpoint brings one"
        )
    return teacher


def label_range(
    store: Store,
    bundle: Bundle,
    labeling: Labeling,
    missing: "Missing",
    on_images: Callable[[int], None] = lambda _: None,
) -> list[Shard]:
    """Write what a model says of the images of one range: files that nothing names yet.

    It depends on its arguments and the snapshot that they name alone, and done twice it writes
    the same files: any machine that reads the store can do any range.

    Args:
        store: The store.
        bundle: The teacher's model.
        labeling: How.
        missing: Which images.
        on_images: Called with the number of images just finished.
    """
    return write_labels(
        store,
        missing.label_set,
        _batches(store, labeling, bundle, missing, on_images),
        codec=labeling.codec,
        identity=missing.identity(labeling),
    )


def commit_ranges(
    store: Store,
    teacher: TeacherRecord,
    labeling: Labeling,
    written: "Sequence[tuple[Missing, list[Shard]]]",
) -> int:
    """Make what `label_range` wrote visible, in one commit; return the version.

    Args:
        store: The store.
        teacher: Whose labels they are.
        labeling: How they were made.
        written: Ranges with their files: one, or many that workers wrote.

    Raises:
        CommitConflictError: If other labels of these images were committed since.
    """
    identities = [missing.identity(labeling) for missing, _ in written]
    one = len(identities) == 1
    return commit_labels(
        store,
        [shard for _, shards in written for shard in shards],
        lineage=_lineage(labeling, teacher, written[0][0]),
        transaction=f"label-{identities[0] if one else value_hash({'ranges': identities})}",
        beside=[shard for missing, _ in written for shard in missing.beside],
        instead_of=[shard for missing, _ in written for shard in missing.instead_of] or None,
    )


def _check_settings(store: Store, labeling: Labeling) -> None:
    """Stop rather than add labels of other settings to those that there are."""
    wanted = _settings(labeling)
    for commit in store.table("soft_labels").history():
        found = {name: commit.lineage.get(name) for name in wanted}
        same_set = all(found[name] == wanted[name] for name in ("teacher_id", "iteration"))
        if commit.lineage.get("step") == "label" and same_set and found != wanted:
            raise InputError(
                f"{labeling.teacher_id!r} has labeled iteration {labeling.iteration} with "
                f"temperature {found['temperature']} and codec {found['codec']}; now "
                f"{wanted['temperature']} and {wanted['codec']}. Name another --iteration"
            )


def _settings(labeling: Labeling) -> dict[str, Any]:
    return {
        "teacher_id": labeling.teacher_id,
        "iteration": labeling.iteration,
        "temperature": labeling.temperature,
        "codec": labeling.codec.as_json(),
    }


def count_missing(store: Store, labeling: Labeling) -> int:
    """Return how many images `label_missing` would label."""
    return sum(
        len(missing.ids)
        for split in labeling.splits
        for missing in missing_labels(store, labeling, split)
    )


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Images of a range of sample ids that have no label.

    Attributes:
        label_set: That their labels belong to.
        ids: int64 [images], ascending.
        beside: The shards of labels that there are in the range, and stay.
        instead_of: The shards whose place their labels take, if there are any.
        images_version: Of the table `images`, that they were found in and are read from.
    """

    label_set: LabelSet
    ids: npt.NDArray[np.int64]
    beside: list[Shard]
    instead_of: list[Shard]
    images_version: int

    def identity(self, labeling: Labeling) -> str:
        """Return what files and commit of these labels are known by, [a-z0-9-]+."""
        what = {
            "set": vars(self.label_set),
            "ids": content_hash(self.ids.tobytes()),
            "beside": [shard.path for shard in (*self.beside, *self.instead_of)],
        }
        made_by = "" if labeling.identity is None else f"{labeling.identity}-"
        return f"{made_by}{value_hash(what)}"


def _ranges(shards: Sequence[Shard]) -> list[int]:
    """Return the ranges of ids that files touch, in order."""
    touched = (range(s.first_id // SHARD_IDS, s.last_id // SHARD_IDS + 1) for s in shards)
    return sorted({number for numbers in touched for number in numbers})


def missing_labels(store: Store, labeling: Labeling, split: str) -> Iterator[Missing]:
    """Yield, by range of sample ids, the accepted images of a split that have no label."""
    table = store.table("soft_labels")
    label_set = labeling.label_set(split)
    labeled = table.shards(partition=label_set.partition)
    images = store.table("images")
    part, parts = labeling.part
    for number in _ranges(images.shards()):
        if number % parts != part:
            continue
        version = labeling.images_version  # or of each range anew: old files are collected
        version = images.version() if version is None else version
        there = _ids(images, _overlapping(images.shards(version), number), split, number)
        here = _overlapping(labeled, number)
        foreign = [shard for shard in here if not _is_ours(shard, labeling)]
        done = _ids(table, here, None, number) if not foreign else np.empty(0, np.int64)
        missing = np.setdiff1d(there, done)
        if len(missing):
            yield Missing(
                label_set=label_set,
                ids=missing,
                beside=[] if foreign else here,
                instead_of=here if foreign else [],
                images_version=version,
            )


def _is_ours(shard: Shard, labeling: Labeling) -> bool:
    """Whether labels are those that this labeling makes."""
    if labeling.identity is None:
        return True
    name = shard.path.rpartition("/")[2]
    return name.startswith(f"labels-{labeling.identity}-")


def _overlapping(shards: Sequence[Shard], number: int) -> list[Shard]:
    first, last = number * SHARD_IDS, (number + 1) * SHARD_IDS
    return [shard for shard in shards if shard.first_id < last and shard.last_id >= first]


def _ids(
    table: Table, shards: Sequence[Shard], split: str | None, number: int
) -> npt.NDArray[np.int64]:
    where = pc.field("sample_id") >= number * SHARD_IDS
    where &= pc.field("sample_id") < (number + 1) * SHARD_IDS
    if split is not None:
        where &= (pc.field("split") == split) & (pc.field("verdict") == ACCEPTED)
    rows = table.dataset_of(shards).to_table(columns=["sample_id"], filter=where)
    ids: npt.NDArray[np.int64] = np.sort(rows["sample_id"].to_numpy())
    return ids


def _lineage(labeling: Labeling, teacher: TeacherRecord, missing: Missing) -> dict[str, Any]:
    return {
        "step": "label",
        **_settings(labeling),
        "checkpoint_hash": teacher.checkpoint_hash,
        "images_version": missing.images_version,
        "backend": pick_backend(labeling.backend, labeling.device),
        **labeling.notes,
    }


def _batches(
    store: Store,
    labeling: Labeling,
    bundle: Bundle,
    missing: Missing,
    on_images: Callable[[int], None],
) -> Iterator[LabelBatch]:
    if bundle.embeddings is not None:
        yield from _from_embeddings(store, labeling, bundle, missing)
        on_images(len(missing.ids))
        return
    for ids, images in read_images(store, missing.ids, missing.images_version):
        found = [
            probs.numpy()
            for _, probs in probabilities(
                bundle,
                images,
                device=labeling.device,
                backend=labeling.backend,
                temperature=labeling.temperature,
                on_images=on_images,
            )
        ]
        if len(ids):
            yield LabelBatch(sample_ids=ids, probabilities=np.concatenate(found))


def _from_embeddings(
    store: Store, labeling: Labeling, bundle: Bundle, missing: Missing
) -> Iterator[LabelBatch]:
    """Yield what a probe says of images whose embeddings are there."""
    of = EmbeddingSet(model=str(bundle.embeddings), split=missing.label_set.split)
    head = bundle.head()
    for batch in read_embeddings(store, of, only=missing.ids):
        probs = head.probabilities(batch.vectors, labeling.temperature)
        yield LabelBatch(sample_ids=batch.sample_ids, probabilities=probs)
