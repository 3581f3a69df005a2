"""Labeling: a teacher says what it sees in images, range by range of sample ids.

One range is one piece of work: `label_range` reads its images from a snapshot and writes files
that nothing names yet, the same ones for the same ids, wherever it runs; a commit makes them
visible. So a labeling that is stopped goes on with the ranges that are left, several workers
share them, and memory stays flat.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any, Final

from plstore import buckets
from plstore.codec import Codec
from plstore.errors import InputError, StoreError
from plstore.fingerprint import value_hash
from plstore.labels import TeacherRecord, commit_labels, find_teacher, list_teachers
from plstore.schema import EVALUATION
from plstore.store import Shard, Store
from trainers.absence import leave_out_gone
from trainers.engines import HERE, Engine, heard, portions, uncounted
from trainers.events import Listener, Teller, unheard
from trainers.features.embedding import Embedding, embed_for
from trainers.features.work import embed_images
from trainers.inference.missing import (
    Labeling,
    Missing,
    count_missing,
    missing_labels,
)
from trainers.inference.ranges import Assignment, label_range, label_ranges
from trainers.labeling.work import LabelRanges, Made, of_one_commit, resolved
from trainers.models.model import EMBEDDINGS, load_teacher

__all__ = [
    "Assignment",
    "Labeling",
    "Missing",
    "as_labeled_before",
    "commit_ranges",
    "count_missing",
    "embed_for_teacher",
    "label",
    "label_by_all",
    "label_missing",
    "label_missing_by_all",
    "label_range",
    "label_ranges",
    "missing_labels",
]

_SETTINGS: Final = ("teacher_id", "iteration", "temperature", "codec")


def label(
    store: Store, labeling: Labeling, *, engine: Engine = HERE, on_event: Listener = unheard
) -> dict[str, int]:
    """Label what a teacher has not labeled yet; return how many images, by split.

    Goes on where it was stopped; see `label_missing`.

    Args:
        store: The store.
        labeling: By whom, what, and how; its device may be "auto".
        engine: Where: `HERE`, or a `Ray` cluster.
        on_event: Told of progress.

    Raises:
        InputError: If the store has no such teacher, or it has no model.
        MissingExtraError: If the loader's backend is not installed.
    """
    found = label_by_all(store, [labeling], engine=engine, on_event=on_event)
    return found[labeling.teacher_id]


def label_by_all(
    store: Store,
    labelings: Sequence[Labeling],
    *,
    engine: Engine = HERE,
    on_event: Listener = unheard,
) -> dict[str, dict[str, int]]:
    """Label what several teachers have not labeled yet; return how many, by teacher and split.

    Images are read once for all teachers that lack the same ones, and decoded once for those
    whose models see the same pixels: formats of one size, crop, interpolation and number of
    channels. The labels of each are those that it gives alone. Goes on where it was stopped.

    Args:
        store: The store.
        labelings: By whom, what, and how: on one device, in batches of one size.
        engine: Where: `HERE`, or a `Ray` cluster. "auto" is then each worker's own device.
        on_event: Told of progress.

    Raises:
        InputError: If the store has no such teacher, it has no model, or one is named twice.
        MissingExtraError: If the loader's backend is not installed.
    """
    _check_together(labelings)
    ready = [resolved(each) for each in labelings] if engine.is_here else list(labelings)
    leave_out_gone(store, Teller(on_event).say)
    title = f"label by {', '.join(labeling.teacher_id for labeling in ready)}"
    with engine.connected():
        for labeling in ready:
            embed_for_teacher(store, labeling, engine=engine, on_event=on_event)
        if engine.is_here:
            total = sum(count_missing(store, labeling) for labeling in ready)
            with (
                Teller(on_event).task(title, total) as advance,
                _told(total, "images") as committed,
            ):
                counts = label_missing_by_all(
                    store, ready, on_images=advance, on_range=committed.append
                )
        else:  # counting images takes as long as reading them: ranges are counted
            total = len(LabelRanges.of(store, ready).ranges(store))
            with (
                Teller(on_event).task(f"{title}, by range", total) as advance,
                _told(total, "ranges") as committed,
            ):

                def on_range(_: int) -> None:
                    committed.append(1)
                    advance(1)

                counts = label_missing_by_all(store, ready, engine=engine, on_range=on_range)
    return {x.teacher_id: count for x, count in zip(ready, counts, strict=True)}


@contextmanager
def _told(total: int, what: str) -> Iterator[list[int]]:
    """Say how much is done where a bucket stops a labeling; yield a list for its commits."""
    committed: list[int] = []
    try:
        yield committed
    except (OSError, StoreError) as error:
        done = f"labeling stopped; {sum(committed)} of {total} {what} are committed"
        if (stopped := buckets.stopped(done, error)) is None:
            raise
        raise stopped from error


def _check_together(labelings: Sequence[Labeling]) -> None:
    names = [labeling.teacher_id for labeling in labelings]
    if not names or len(set(names)) < len(names):
        raise InputError(f"teachers are {', '.join(names) or 'none'}; wanted each once")
    for field in ("device", "backend", "batch"):
        values = [getattr(labeling, field) for labeling in labelings]
        if len(set(values)) > 1:
            found = ", ".join(f"{n} {v!r}" for n, v in zip(names, values, strict=True))
            raise InputError(
                f"{field} is {found}; wanted one for all teachers of a pass. Label apart"
            )


def embed_for_teacher(
    store: Store,
    labeling: Labeling,
    *,
    engine: Engine = HERE,
    on_event: Listener = unheard,
) -> None:
    """Embed what a probe is to label; of another teacher, do nothing."""
    teacher = _teacher(store, labeling.teacher_id)
    if EMBEDDINGS not in (teacher.metrics or {}):
        return
    device, backend = labeling.device, labeling.backend
    if engine.is_here:
        bundle = load_teacher(store, teacher, device=device)
        embed_for(
            store, bundle, labeling.splits, device=device, backend=backend, on_event=on_event
        )
        return
    embedding = Embedding(
        teacher=teacher.teacher_id, splits=labeling.splits, device=device, backend=backend
    )
    embed_images(store, embedding, engine=engine, on_event=on_event)


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
    (counts,) = label_missing_by_all(store, [labeling], on_images=on_images)
    return counts


def label_missing_by_all(
    store: Store,
    labelings: Sequence[Labeling],
    *,
    on_images: Callable[[int], None] = uncounted,
    on_range: Callable[[int], None] = uncounted,
    engine: Engine = HERE,
) -> list[dict[str, int]]:
    """Label what each of several teachers has not labeled yet; return how many, by split.

    Teachers that lack the same images of a range look at them in one pass. Here each range of
    each teacher is a commit, as in `label_missing`; of an engine that works elsewhere, what
    comes within half a minute is one.

    Args:
        store: The store.
        labelings: By whom, what, and how.
        on_images: Called with the number of images just finished, where work is done here.
        on_range: Called with the number of images of a range that is finished.
        engine: Where ranges are labeled.

    Raises:
        InputError: If the store has no such teacher, it has no model, or one is named twice.
    """
    _check_together(labelings)
    teachers = [_teacher(store, labeling.teacher_id) for labeling in labelings]
    for labeling in labelings:
        if labeling.identity is None:
            _check_settings(store, labeling)
        embed_for_teacher(store, labeling, engine=engine)
    work = LabelRanges.of(store, labelings)
    counts = [dict.fromkeys(labeling.splits, 0) for labeling in labelings]
    labeled = engine.run(work, work.ranges(store), on_images)
    told = heard(labeled, lambda found: on_range(sum(each.num_images for each in found)))
    for results in portions(told, engine.commit_seconds):
        for alike in of_one_commit(chain.from_iterable(results)):
            number, made = alike[0].number, alike[0].made
            pairs = [(each.missing, each.shards) for each in alike]
            commit_ranges(store, teachers[number], labelings[number], pairs, made=made)
            counts[number][alike[0].missing.label_set.split] += sum(x.num_images for x in alike)
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


def commit_ranges(
    store: Store,
    teacher: TeacherRecord,
    labeling: Labeling,
    written: Sequence[tuple[Missing, list[Shard]]],
    *,
    made: Made | None = None,
) -> int:
    """Make what `label_range` wrote visible, in one commit; return the version.

    Args:
        store: The store.
        teacher: Whose labels they are.
        labeling: How they were made.
        written: Ranges with their files: one, or many that workers wrote.
        made: With what; with that of this process unless given.

    Raises:
        CommitConflictError: If other labels of these images were committed since.
    """
    written = sorted(written, key=lambda pair: [shard.path for shard in pair[1]])
    identities = [missing.identity(labeling) for missing, _ in written]
    one = len(identities) == 1
    return commit_labels(
        store,
        [shard for _, shards in written for shard in shards],
        lineage=_lineage(labeling, teacher, written, made or Made.by(labeling)),
        transaction=f"label-{identities[0] if one else value_hash({'ranges': identities})}",
        beside=[shard for missing, _ in written for shard in missing.beside],
        instead_of=[shard for missing, _ in written for shard in missing.instead_of] or None,
    )


def _check_settings(store: Store, labeling: Labeling) -> None:
    """Stop rather than add labels of other settings to those that there are."""
    wanted = _settings(labeling)
    for of_sets in {split == EVALUATION for split in labeling.splits}:
        for found in _settings_of(store, labeling, of_sets=of_sets):
            if found != wanted:
                raise InputError(
                    f"{labeling.teacher_id!r} has labeled iteration {labeling.iteration} with "
                    f"temperature {found['temperature']} and codec {found['codec']}; now "
                    f"{wanted['temperature']} and {wanted['codec']}. Name another --iteration"
                )


def _settings_of(
    store: Store, labeling: Labeling, *, of_sets: bool
) -> Iterator[dict[str, Any]]:
    """Yield the settings of what a teacher labeled for an iteration, the newest first.

    Test sets have settings of their own: their labels keep more classes.
    """
    for commit in store.table("soft_labels").history():
        lineage = commit.lineage
        of = lineage.get("step"), lineage.get("teacher_id"), lineage.get("iteration")
        is_of_sets = lineage.get("split") == EVALUATION
        is_theirs = of == ("label", labeling.teacher_id, labeling.iteration)
        if is_theirs and is_of_sets is of_sets:
            yield {name: lineage.get(name) for name in _SETTINGS}


def as_labeled_before(store: Store, labeling: Labeling) -> Labeling:
    """Return a labeling with temperature and codec of the labels that it adds to, if any."""
    of_sets = EVALUATION in labeling.splits
    found = next(_settings_of(store, labeling, of_sets=of_sets), None)
    if found is None:
        return labeling
    codec = Codec(**found["codec"])
    return replace(labeling, temperature=found["temperature"], codec=codec)


def _settings(labeling: Labeling) -> dict[str, Any]:
    return {
        "teacher_id": labeling.teacher_id,
        "iteration": labeling.iteration,
        "temperature": labeling.temperature,
        "codec": labeling.codec.as_json(),
    }


def _lineage(
    labeling: Labeling,
    teacher: TeacherRecord,
    written: Sequence[tuple[Missing, list[Shard]]],
    made: Made,
) -> dict[str, Any]:
    (first, _), *_ = written
    return {
        "step": "label",
        "split": first.label_set.split,
        **_settings(labeling),
        "checkpoint_hash": teacher.checkpoint_hash,
        "images_version": first.images_version,
        "backend": made.backend,
        "precision": made.precision,
        "compiled": labeling.compiled,
        **labeling.notes,
    }
