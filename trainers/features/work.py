"""Embedding as a call and as work for an engine: a range of ids is a shard."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from plstore.embeddings import EMBEDDING_IDS, EmbeddingSet, embedded_ids
from plstore.loaders import pick_backend
from plstore.store import Store
from plstore.store import open as open_store
from trainers.absence import leave_out_gone
from trainers.engines import HERE, Engine, heard, portions, uncounted
from trainers.engines.work import OnImages
from trainers.events import Listener, Teller, unheard
from trainers.features.embedding import (
    Backbone,
    Embedded,
    Embedding,
    Look,
    commit_ranges,
    embed,
    write_range,
)
from trainers.inference.missing import ranges_of
from trainers.inference.portions import ids_of_split
from trainers.inference.ranges import Range


def embed_images(
    store: Store, embedding: Embedding, *, engine: Engine = HERE, on_event: Listener = unheard
) -> tuple[str, dict[str, int]]:
    """Embed the images that have no embedding; return its name and how many, by split.

    Goes on where it was stopped.

    Args:
        store: The store.
        embedding: By what, and of which images.
        engine: Where: `HERE`, or a `Ray` cluster. "auto" is then each worker's own device.
        on_event: Told of progress.

    Raises:
        InputError: If there is no such teacher or model, or its weights cannot be had.
    """
    here = embedding if engine.is_here else replace(embedding, device="cpu")
    backbone = here.backbone(store)  # elsewhere for its name alone
    leave_out_gone(store, Teller(on_event).say)
    splits = [s for s in embedding.splits if store.count_images(s)]
    if engine.is_here:
        backend = embedding.backend
        counts = embed(store, backbone, splits=splits, backend=backend, on_event=on_event)
    else:
        weights = embedding.weights  # of a file: workers run in another folder
        if weights is not None and Path(weights).exists():
            weights = str(Path(weights).resolve())
        there = replace(embedding, splits=splits, weights=weights)
        counts = embed_elsewhere(store, there, backbone.name, engine, on_event=on_event)
    return backbone.name, counts


def embed_elsewhere(
    store: Store,
    embedding: Embedding,
    name: str,
    engine: Engine,
    *,
    on_event: Listener = unheard,
) -> dict[str, int]:
    """Let an engine's workers embed what has no embedding; return how many, by split."""
    work = EmbedRanges(place=str(store.root), embedding=embedding)
    numbers = ranges_of(store.table("images").shards(), EMBEDDING_IDS)
    tasks = [Range(split, number) for split in embedding.splits for number in numbers]
    counts = dict.fromkeys(embedding.splits, 0)
    with (
        engine.connected(),
        Teller(on_event).task(f"embed by {name}, by range", len(tasks)) as advance,
    ):
        embedded = heard(engine.run(work, tasks, uncounted), lambda _: advance(1))
        for results in portions(embedded, engine.commit_seconds):
            for alike in _of_one_commit(results):
                commit_ranges(store, alike)
                counts[alike[0].of.split] += sum(each.shard.num_rows for each in alike)
    return counts


def _of_one_commit(results: Sequence[Embedded | None]) -> list[list[Embedded]]:
    groups: dict[tuple[object, ...], list[Embedded]] = {}
    for each in results:
        if each is not None:
            groups.setdefault((each.of, each.images_version), []).append(each)
    return list(groups.values())


@dataclass(frozen=True, kw_only=True)
class EmbedRanges:
    """A backbone embeds what has no embedding of a range; a `trainers.engines.Work`.

    Attributes:
        place: Of the store, as every worker sees it.
        embedding: By what.
    """

    place: str
    embedding: Embedding

    @property
    def device(self) -> str:
        """Where it computes."""
        return self.embedding.device

    def open(self, on_images: OnImages) -> Callable[[Range], Embedded | None]:
        """Open the store and the backbone."""
        return _Embedder(open_store(self.place), self.embedding, on_images).embed


class _Embedder:
    """A store and a backbone, that is opened once it is needed."""

    def __init__(self, store: Store, embedding: Embedding, on_images: OnImages) -> None:
        self._store, self._embedding, self._on_images = store, embedding, on_images

    @cached_property
    def _backbone(self) -> Backbone:
        return self._embedding.backbone(self._store)

    def embed(self, asked: Range) -> Embedded | None:
        """Embed what has no embedding of a range; return the file."""
        store, version = self._store, self._store.table("images").version()
        first = asked.number * EMBEDDING_IDS
        within = range(first, first + EMBEDDING_IDS)
        there = ids_of_split(store, asked.split, version, within.start, within.stop)
        if not len(there):
            return None
        of = EmbeddingSet(model=self._backbone.name, split=asked.split)
        missing = np.setdiff1d(there, embedded_ids(store, of, within=within))
        if not len(missing):
            return None
        backend = pick_backend(self._embedding.backend, self._backbone.device)
        look = Look(store, self._backbone, version, backend, self._on_images)
        return write_range(look, of, missing)
