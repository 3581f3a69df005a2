"""Labeling on its own: with a teacher of the store, or with a model that someone brings."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

import plstore
from plstore.codec import Codec
from plstore.errors import InputError
from plstore.fingerprint import canonical_json, content_hash, file_hash, value_hash
from plstore.loaders import pick_backend
from plstore.loaders.imageset import ImageSet, image_table
from plstore.loaders.settings import check_number, check_whole
from plstore.loaders.work import Backend
from plstore.schema import ACCEPTED
from plstore.store import (
    IMAGE_COLUMNS,
    SHARD_IDS,
    LabelBatch,
    LabelSet,
    Shard,
    Store,
    Table,
    check_teacher_id,
    commit_labels,
    image_bytes,
    write_labels,
)
from trainers.checkpoint import CONFIG, WEIGHTS
from trainers.inference import probabilities
from trainers.model import Bundle, fetch_bundle, keep_bundle, load_bundle

_BATCH = 1024
_BATCH_BYTES = 64 << 20


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
    """

    teacher_id: str
    iteration: int
    splits: Sequence[str]
    codec: Codec
    temperature: float = 1.0
    part: tuple[int, int] = (0, 1)
    device: str = "cpu"
    backend: Backend = "auto"

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


def add_teacher(
    store: Store,
    teacher_id: str,
    checkpoint: str,
    *,
    device: str,
    say: Callable[[str], None] = lambda _: None,
) -> str:
    """Bring a model into the store as a teacher; return the hash of its weights.

    Args:
        store: Where to.
        teacher_id: Its name there.
        checkpoint: A folder with config.json and model.safetensors, as `plstore run` and
            timm's save_for_hf write them; its label_names must be the store's classes, in
            whatever order: outputs are matched with classes by name.
        device: "cpu" or a CUDA device.
        say: Told what people should know of the model.

    Raises:
        InputError: If it is no such folder, a weight is missing or left over, counts do not
            agree, its classes are others, or the name is taken.
    """
    check_teacher_id(teacher_id)
    bundle = load_bundle(Path(checkpoint), class_names=store.class_names, device=device)
    for note in bundle.notes:
        say(f"{checkpoint}: {note}")
    brought = {
        "brought": file_hash(bundle.folder / WEIGHTS),
        "brought_config": file_hash(bundle.folder / CONFIG),
    }
    if (kept := _brought_before(store, teacher_id, brought)) is not None:
        return kept
    architecture = str(getattr(bundle.network, "pretrained_cfg", {}).get("architecture", ""))
    name, digest = keep_bundle(
        store, teacher_id, bundle.network, bundle.format, bundle.output_names
    )
    row = {
        "teacher_id": teacher_id,
        "iteration": 0,
        "role": "imported",
        "architecture": architecture,
        "checkpoint": name,
        "checkpoint_hash": digest,
        "preprocessing": canonical_json(vars(bundle.format)),
        "metrics": canonical_json({**brought, "notes": list(bundle.notes)}),
        "code_version": plstore.__version__,
        "created_at": datetime.now(UTC),
    }
    identity = f"imported-{teacher_id}-{value_hash(brought)}"
    store.append("teachers", [row], identity=identity, step="label")
    return digest


def _brought_before(store: Store, teacher_id: str, brought: Mapping[str, str]) -> str | None:
    """Return the hash of the weights that are kept of a model that was brought before.

    A config of other classes or preprocessing makes another model of the same weights.
    """
    rows = _teachers(store, teacher_id)
    if not rows:
        return None
    known = json.loads(rows[-1]["metrics"] or "{}")
    named = {name: known[name] for name in brought if name in known}  # older rows lack one
    if "brought" not in named or not named.items() <= brought.items():
        raise InputError(
            f"{store.root} has another teacher named {teacher_id!r}; name this one otherwise"
        )
    return str(rows[-1]["checkpoint_hash"])


def _teachers(store: Store, teacher_id: str) -> list[dict[str, Any]]:
    where = pc.field("teacher_id") == teacher_id
    rows: list[dict[str, Any]] = store.table("teachers").read(where=where).to_pylist()
    return rows


def label_missing(
    store: Store, labeling: Labeling, *, on_images: Callable[[int], None] = lambda _: None
) -> dict[str, int]:
    """Label the images that the teacher has not labeled yet; return how many, by split.

    Images are read and committed range by range of sample ids: a labeling that is stopped goes
    on from there, memory stays flat, and images that are imported later are all that a later
    call labels.

    Raises:
        InputError: If the store has no such teacher.
    """
    rows = _teachers(store, labeling.teacher_id)
    if not rows or not rows[-1]["checkpoint"]:
        known = store.table("teachers").read(columns=["teacher_id"])["teacher_id"].to_pylist()
        raise InputError(
            f"{store.root} has no teacher {labeling.teacher_id!r} with a checkpoint; it has "
            f"{', '.join(known) or 'none'}. --checkpoint brings one"
        )
    teacher = rows[-1]
    _check_settings(store, labeling)
    folder = fetch_bundle(store, teacher["checkpoint"], teacher["checkpoint_hash"])
    bundle = load_bundle(folder, class_names=store.class_names, device=labeling.device)
    counts = dict.fromkeys(labeling.splits, 0)
    for split in labeling.splits:
        label_set = LabelSet(
            iteration=labeling.iteration, teacher_id=labeling.teacher_id, split=split
        )
        for missing in missing_labels(store, labeling, split):
            what = {
                "set": vars(label_set),
                "ids": content_hash(missing.ids.tobytes()),
                "beside": [shard.path for shard in missing.beside],
            }
            identity = value_hash(what)
            batches = _batches(store, labeling, bundle, missing, on_images)
            commit_labels(
                store,
                write_labels(
                    store, label_set, batches, codec=labeling.codec, identity=identity
                ),
                lineage=_lineage(labeling, teacher, missing),
                transaction=f"label-{identity}",
                beside=missing.beside,
            )
            counts[split] += len(missing.ids)
    return counts


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
        ids: int64 [images], ascending.
        beside: The shards of labels that there are in the range.
        images_version: Of the table `images`, that they were found in and are read from.
    """

    ids: npt.NDArray[np.int64]
    beside: list[Shard]
    images_version: int


def missing_labels(store: Store, labeling: Labeling, split: str) -> Iterator[Missing]:
    """Yield, by range of sample ids, the accepted images of a split that have no label."""
    table = store.table("soft_labels")
    label_set = LabelSet(
        iteration=labeling.iteration, teacher_id=labeling.teacher_id, split=split
    )
    labeled = table.shards(partition=label_set.partition)
    images = store.table("images")
    number, parts = labeling.part
    blocks = sorted(
        {
            block
            for shard in images.shards()
            for block in range(shard.first_id // SHARD_IDS, shard.last_id // SHARD_IDS + 1)
        }
    )
    for block in blocks:
        if block % parts != number:
            continue
        version = images.version()  # of each range anew: files of old ones are collected
        there = _ids(images, _overlapping(images.shards(version), block), split, block)
        beside = _overlapping(labeled, block)
        done = _ids(table, beside, None, block)
        missing = np.setdiff1d(there, done)
        if len(missing):
            yield Missing(ids=missing, beside=beside, images_version=version)


def _overlapping(shards: Sequence[Shard], block: int) -> list[Shard]:
    first, last = block * SHARD_IDS, (block + 1) * SHARD_IDS
    return [shard for shard in shards if shard.first_id < last and shard.last_id >= first]


def _ids(
    table: Table, shards: Sequence[Shard], split: str | None, block: int
) -> npt.NDArray[np.int64]:
    where = pc.field("sample_id") >= block * SHARD_IDS
    where &= pc.field("sample_id") < (block + 1) * SHARD_IDS
    if split is not None:
        where &= (pc.field("split") == split) & (pc.field("verdict") == ACCEPTED)
    rows = table.dataset_of(shards).to_table(columns=["sample_id"], filter=where)
    ids: npt.NDArray[np.int64] = np.sort(rows["sample_id"].to_numpy())
    return ids


def _lineage(labeling: Labeling, teacher: dict[str, Any], missing: Missing) -> dict[str, Any]:
    return {
        "step": "label",
        **_settings(labeling),
        "checkpoint_hash": teacher["checkpoint_hash"],
        "images_version": missing.images_version,
        "backend": pick_backend(labeling.backend, labeling.device),
    }


def _batches(
    store: Store,
    labeling: Labeling,
    bundle: Bundle,
    missing: Missing,
    on_images: Callable[[int], None],
) -> Iterator[LabelBatch]:
    table = store.table("images")
    block = int(missing.ids[0]) // SHARD_IDS
    shards = _overlapping(table.shards(missing.images_version), block)
    for wanted in _portions(table, shards, missing.ids):
        near = [s for s in shards if s.first_id <= wanted[-1] and s.last_id >= wanted[0]]
        rows = table.dataset_of(near).to_table(
            columns=["width", "height", *IMAGE_COLUMNS],
            filter=pc.field("sample_id").isin(pa.array(wanted)),
        )
        rows = rows.sort_by("sample_id").combine_chunks()
        images = ImageSet(image_table(_images(rows)), len(store.class_names))
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
        ids = rows["sample_id"].to_numpy()  # without those that were deleted meanwhile
        if len(ids):
            yield LabelBatch(sample_ids=ids, probabilities=np.concatenate(found))


def _images(rows: pa.Table) -> Iterator[tuple[bytes, int, int, str]]:
    columns = ("width", "height", "content_hash", "conversion")
    for batch in rows.to_batches():
        values = [batch[name].to_pylist() for name in columns]
        for data, width, height, digest, conversion in zip(
            image_bytes(batch).to_pylist(), *values, strict=True
        ):
            as_it_came = conversion is None  # the hash is of the file as it came
            yield data, width, height, digest if as_it_came else content_hash(data)


def _portions(
    table: Table, shards: Sequence[Shard], ids: npt.NDArray[np.int64]
) -> Iterator[npt.NDArray[np.int64]]:
    """Yield ids of up to 1,024 images and 64 MiB."""
    rows = table.dataset_of(shards).to_table(
        columns=["sample_id", "num_bytes"],
        filter=pc.field("sample_id").isin(pa.array(ids)),
    )
    rows = rows.sort_by("sample_id")
    start, num_bytes = 0, 0
    for end, size in enumerate(rows["num_bytes"].fill_null(0).to_pylist()):
        if end > start and (end - start == _BATCH or num_bytes + size > _BATCH_BYTES):
            yield ids[start:end]
            start, num_bytes = end, 0
        num_bytes += size
    yield ids[start:]
