"""Embedding: a frozen backbone sees the clean images of a store, range by range of ids.

The classifier is left off: what remains is what a linear probe stands on, and what neighbours
and filters compare. A stopped embedding goes on with the ranges that are left.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import timm
import torch
from torch import nn

from plstore.embeddings import (
    EMBEDDING_IDS,
    EmbeddingBatch,
    EmbeddingSet,
    commit_embeddings,
    embedded_ids,
    of_images,
    read_embeddings,
    write_embeddings,
)
from plstore.errors import InputError
from plstore.fingerprint import content_hash, value_hash
from plstore.labels import TeacherRecord
from plstore.loaders import ImageFormat, clean_batches, import_backend, pick_backend
from plstore.loaders.work import Backend, BackendName
from plstore.schema import SPLITS
from plstore.store import Shard, Store
from trainers.events import Listener, Teller, unheard
from trainers.inference.portions import ids_of_split, read_images
from trainers.models.model import (
    Bundle,
    build_model,
    fetch_bundle,
    image_format,
    load_teacher,
)
from trainers.models.pretrained import architecture_of, start_identity
from trainers.models.starting import take_backbone
from trainers.named import teacher_named
from trainers.sections import Model
from trainers.training.train import pick_device

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A network without its classifier.

    Attributes:
        name: Of the embeddings: architecture, pixels a side, and a hash of weights and format.
        network: In evaluation mode; returns float [batch, features].
        format: How images reach it.
        device: Where it is.
    """

    name: str
    network: nn.Module
    format: ImageFormat
    device: str

    def embed(self, images: torch.Tensor) -> Floats:
        """Return float32 [batch, features] of uint8 images."""
        with torch.inference_mode():
            vectors: Floats = self.network(self.format.normalise(images)).float().cpu().numpy()
        return vectors


def open_backbone(model: Model, architecture: str, *, device: str = "cpu") -> Backbone:
    """Return a backbone with the weights that a recipe starts from.

    Raises:
        InputError: If it names none: random features are no embeddings; or they cannot be had.
    """
    start = start_identity(model, architecture)
    if start is None:
        raise InputError(
            f"embeddings of {architecture!r} with random weights; wanted --weights FILE, or "
            "--pretrained"
        )
    quiet = model.model_copy(update={"dropout": 0.0, "stochastic_depth": 0.0})
    network = build_model(quiet, architecture, 0)
    format_ = image_format(model, network)
    name = backbone_name(architecture, start, format_)
    return Backbone(name=name, network=network.to(device).eval(), format=format_, device=device)


def backbone_name(architecture: str, start: str, format_: ImageFormat) -> str:
    """Return the name of a backbone's embeddings: the same for the same numbers."""
    what = {"architecture": architecture, "start": start, "format": vars(format_)}
    return f"{architecture.lower()}-{format_.size}-{value_hash(what)[:8]}"


def backbone_of(bundle: Bundle, *, device: str = "cpu") -> Backbone:
    """Return the backbone of a model, its classifier left off; the model stays as it is."""
    network = copy.deepcopy(bundle.network)
    network.reset_classifier(0)  # type: ignore[operator]  # timm models have it
    name = bundle.embeddings or f"{bundle.folder.name}-{bundle.format.size}"
    return Backbone(name=name, network=network.eval(), format=bundle.format, device=device)


def embed(
    store: Store,
    backbone: Backbone,
    *,
    splits: Sequence[str] = ("labeled", "validation", "unlabeled", "test"),
    backend: Backend = "auto",
    on_event: Listener = unheard,
) -> dict[str, int]:
    """Keep a backbone's embeddings of the images that have none; return how many, by split.

    Goes on where it was stopped; images that are imported later are all that a later call
    embeds.

    Args:
        store: The store.
        backbone: What sees them.
        splits: Which images.
        backend: Of the loader.
        on_event: Told of progress.
    """
    picked = pick_backend(backend, backbone.device)
    import_backend(picked)
    teller, version = Teller(on_event), store.table("images").version()
    counts: dict[str, int] = {}
    for split in splits:
        of = EmbeddingSet(model=backbone.name, split=split)
        missing = np.setdiff1d(ids_of_split(store, split, version), embedded_ids(store, of))
        counts[split] = len(missing)
        if not len(missing):
            continue
        with teller.task(f"embed {split} images by {backbone.name}", len(missing)) as advance:
            look = Look(store, backbone, version, picked, advance)
            for number in np.unique(missing // EMBEDDING_IDS):
                written = write_range(look, of, missing[missing // EMBEDDING_IDS == number])
                if written is not None:
                    commit_ranges(store, [written])
    return counts


def embed_for(
    store: Store,
    bundle: Bundle,
    splits: Sequence[str],
    *,
    device: str,
    backend: Backend = "auto",
    on_event: Listener = unheard,
) -> None:
    """Embed the images that a probe is to look at; of another model, do nothing."""
    if bundle.embeddings is not None:
        backbone = backbone_of(bundle, device=device)
        embed(store, backbone, splits=splits, backend=backend, on_event=on_event)


def vectors_of(
    store: Store, bundle: Bundle, split: str, sample_ids: npt.NDArray[np.int64]
) -> Floats | None:
    """Return the embeddings that a probe stands on, float32 [images, features], in their order.

    None for another model. See `embed_for`.
    """
    if bundle.embeddings is None:
        return None
    of = EmbeddingSet(model=bundle.embeddings, split=split)
    return of_images(list(read_embeddings(store, of, only=np.sort(sample_ids))), sample_ids)


@dataclass(frozen=True)
class Look:
    """A backbone that looks at images of a snapshot."""

    store: Store
    backbone: Backbone
    version: int
    backend: BackendName
    on_images: Callable[[int], None]

    def at(self, ids: npt.NDArray[np.int64]) -> EmbeddingBatch:
        """Return the embeddings of images, without those that were deleted meanwhile."""
        device, format_ = self.backbone.device, self.backbone.format
        found, vectors = [np.empty(0, np.int64)], [np.empty((0, 0), np.float32)]
        for there, images in read_images(self.store, ids, self.version):
            found.append(there)
            if not len(there):
                continue
            for batch in clean_batches(images, format_, device=device, backend=self.backend):
                vectors.append(self.backbone.embed(batch.images))
                self.on_images(len(batch.images))
        return EmbeddingBatch(
            sample_ids=np.concatenate(found), vectors=np.concatenate(vectors[1:] or vectors)
        )


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """Embeddings of one range that are written, and that nothing names yet.

    Attributes:
        of: Which ones.
        shard: The file.
        identity: What file and commit are known by.
        images_version: Of the table `images`.
    """

    of: EmbeddingSet
    shard: Shard
    identity: str
    images_version: int


def write_range(look: Look, of: EmbeddingSet, ids: npt.NDArray[np.int64]) -> Embedded | None:
    """Embed the images of one range; None if all of them were deleted meanwhile."""
    batch = look.at(ids)
    if not len(batch.sample_ids):
        return None
    identity = value_hash({"of": vars(of), "ids": content_hash(batch.sample_ids.tobytes())})
    shard = write_embeddings(look.store, of, batch, identity=identity[:16])
    return Embedded(of=of, shard=shard, identity=identity, images_version=look.version)


def commit_ranges(store: Store, written: Sequence[Embedded]) -> None:
    """Make ranges of one set visible, found in one version of `images`, in one commit."""
    ordered = sorted(written, key=lambda each: each.shard.path)
    first, identities = ordered[0], [each.identity for each in ordered]
    one = len(identities) == 1
    commit_embeddings(
        store,
        [each.shard for each in ordered],
        lineage={
            "step": "embed",
            **first.of.partition,
            "images_version": first.images_version,
        },
        transaction=f"embed-{identities[0] if one else value_hash({'ranges': identities})}",
    )


def _pretrained(store: Store, teacher: TeacherRecord, device: str) -> Backbone:
    """Return a network that learnt without labels, as its recipe made it."""
    folder = fetch_bundle(store, str(teacher.checkpoint), str(teacher.checkpoint_hash))
    model = Model.model_validate((teacher.recipe or {})["model"])
    quiet = model.model_copy(update={"dropout": 0.0, "stochastic_depth": 0.0})
    network = build_model(quiet, model.architecture, 0)
    take_backbone(network, folder)
    format_ = image_format(model, network)
    name = backbone_name(model.architecture, str(teacher.checkpoint_hash), format_)
    return Backbone(name=name, network=network.to(device).eval(), format=format_, device=device)


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """By what images are embedded: a teacher of the store, or a model with weights.

    Attributes:
        teacher: A teacher with a model, whose classifier is left off, or a pretrained network.
        model: timm name; that of the weights unless given.
        weights: A .safetensors or .pth file, or a folder with one; None for timm's own.
        resolution: Pixels a side; the model's own unless given.
        splits: Which images.
        device: "auto", "cpu" or a CUDA device.
        backend: Of the loader.
    """

    teacher: str | None = None
    model: str | None = None
    weights: str | None = None
    resolution: int | None = None
    splits: Sequence[str] = SPLITS
    device: str = "auto"
    backend: Backend = "auto"

    def backbone(self, store: Store) -> Backbone:
        """Return what looks at the images.

        Raises:
            InputError: If there is no such teacher or model, or its weights cannot be had.
        """
        device = pick_device(self.device)
        if self.teacher is not None:
            teacher = teacher_named(store, self.teacher)
            if teacher.role == "pretrained":
                return _pretrained(store, teacher, device)
            return backbone_of(load_teacher(store, teacher, device=device), device=device)
        model = self.model or (None if self.weights is None else architecture_of(self.weights))
        if model is None:
            raise InputError("embed by what? Wanted --teacher, or --model with its weights")
        config = timm.get_pretrained_cfg(model)
        own = 224 if config is None else int(config.input_size[-1])
        settings = Model(
            architecture=model,
            resolution=self.resolution or own,
            interpolation="bicubic",
            weights=self.weights,
            pretrained=self.weights is None,
        )
        return open_backbone(settings, model, device=device)
