"""One range of sample ids: what models say of its images, as files that nothing names yet."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from plstore.embeddings import EmbeddingSet, read_embeddings
from plstore.errors import InputError
from plstore.labels import LabelBatch, LabelWriter
from plstore.loaders import Batch
from plstore.store import Shard, Store
from trainers.inference.clean import Look, Seer, batch_size_of, common_looks, decoding
from trainers.inference.missing import Labeling, Missing
from trainers.inference.portions import Portions, read_images
from trainers.models.model import Bundle
from trainers.models.teacher_noise import seed_model_noise


class Range(NamedTuple):
    """A range of sample ids, of one split: a shard of work."""

    split: str
    number: int


def of_same_images(lacking: Mapping[int, Missing]) -> list[list[int]]:
    """Return numbers of labelings, those in one list that lack the same images."""
    groups: dict[tuple[int, bytes], list[int]] = {}
    for number, missing in lacking.items():
        key = missing.images_version, missing.ids.tobytes()
        groups.setdefault(key, []).append(number)
    return list(groups.values())


def label_range(
    store: Store,
    bundle: Bundle,
    labeling: Labeling,
    missing: Missing,
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
    asked = Assignment(bundle=bundle, labeling=labeling, missing=missing)
    (shards,) = label_ranges(store, [asked], on_images)
    return shards


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A range that a model is to label.

    Attributes:
        bundle: The teacher's model.
        labeling: How.
        missing: Which images.
    """

    bundle: Bundle
    labeling: Labeling
    missing: Missing


def label_ranges(
    store: Store,
    assignments: Sequence[Assignment],
    on_images: Callable[[int], None] = lambda _: None,
) -> list[list[Shard]]:
    """Write what several models say of the same images; return the files of each.

    See `label_range`: the files of each are those that it writes of that model.

    Args:
        store: The store.
        assignments: Of the same images, on one device.
        on_images: Called with the number of images that a model has just finished.

    Raises:
        InputError: If they are not of the same images.
    """
    if len(of_same_images({n: a.missing for n, a in enumerate(assignments)})) != 1:
        raise InputError("ranges of one pass hold different images; wanted the same of each")
    writers = [
        LabelWriter(
            store,
            asked.missing.label_set,
            codec=asked.labeling.codec,
            identity=asked.missing.identity(asked.labeling),
        )
        for asked in assignments
    ]
    for number, batch in _batches(store, assignments):
        writers[number].add(batch)
        on_images(len(batch.sample_ids))
    return [writer.finish() for writer in writers]


def _batches(
    store: Store, assignments: Sequence[Assignment]
) -> Iterator[tuple[int, LabelBatch]]:
    """Yield labels, with the number of the assignment that they are of."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for number, asked in enumerate(assignments):
        if asked.bundle.embeddings is None:
            same = (*decoding(asked.bundle.format), _noise_key(asked.labeling))
            groups.setdefault(same, []).append(number)
            continue
        for batch in _from_embeddings(store, asked.labeling, asked.bundle, asked.missing):
            yield number, batch
    if groups:
        yield from _from_images(store, assignments, list(groups.values()))


def _from_images(
    store: Store, assignments: Sequence[Assignment], groups: Sequence[Sequence[int]]
) -> Iterator[tuple[int, LabelBatch]]:
    """Yield what models say of images, read once for all, decoded once for each group."""
    missing = assignments[0].missing
    read = read_images(store, missing.ids, missing.images_version)
    portions = Portions((images for _, images in read), readers=len(groups))
    looking = {
        reader: _looks(portions, reader, [assignments[n] for n in group])
        for reader, group in enumerate(groups)
    }
    num_seen = dict.fromkeys(looking, 0)
    while looking:
        reader = min(looking, key=num_seen.__getitem__)  # no group runs ahead of the others
        looks = next(looking[reader], None)
        if looks is None:
            del looking[reader]
            continue
        ids = looks[0].batch.sample_ids.numpy()
        num_seen[reader] += len(ids)
        for number, look in zip(groups[reader], looks, strict=True):
            yield number, LabelBatch(sample_ids=ids, probabilities=look.probs.numpy())


def _looks(
    portions: Portions, reader: int, assignments: Sequence[Assignment]
) -> Iterator[list[Look]]:
    """Yield what models that see the same pixels see of portions."""
    labeling, format_ = assignments[0].labeling, assignments[0].bundle.format
    noise = labeling.noise
    return common_looks(
        [_seer(asked) for asked in assignments],
        portions,
        reader=reader,
        device=labeling.device,
        backend=labeling.backend,
        batch_size=batch_size_of(labeling.batch, format_, labeling.device),
        noise=None if noise is None else noise.of_images,
    )


def _seer(asked: Assignment) -> Seer:
    noise = asked.labeling.noise
    if noise is None:
        return Seer(asked.bundle, asked.labeling.temperature)

    def before(batch: Batch) -> None:
        seed_model_noise(noise.seed, int(batch.sample_ids[0]))

    return Seer(asked.bundle, asked.labeling.temperature, before=before)


def _noise_key(labeling: Labeling) -> str:
    return "" if labeling.noise is None else repr(labeling.noise)


def _from_embeddings(
    store: Store, labeling: Labeling, bundle: Bundle, missing: Missing
) -> Iterator[LabelBatch]:
    """Yield what a probe says of images whose embeddings are there."""
    of = EmbeddingSet(model=str(bundle.embeddings), split=missing.label_set.split)
    head = bundle.head()
    for batch in read_embeddings(store, of, only=missing.ids):
        probs = head.probabilities(batch.vectors, labeling.temperature)
        yield LabelBatch(sample_ids=batch.sample_ids, probabilities=probs)
