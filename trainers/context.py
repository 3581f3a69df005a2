"""What every step of a run works with: recipe, images, store, device."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from plstore.errors import StoreError
from plstore.exchange import Source
from plstore.fingerprint import canonical_json, value_hash
from plstore.images import GoneFiles, find_gone
from plstore.labels import TeacherRecord
from plstore.loaders import ImageSet, open_split, pick_backend
from plstore.loaders.work import BackendName
from plstore.schema import Split
from plstore.store import Store
from plstore.views import View, find_view
from trainers.events import Teller
from trainers.models.model import EMBEDDINGS
from trainers.recipe import Recipe
from trainers.training.processes import ALONE, Processes

Outputs = Mapping[str, Any]
"""What a step left for those that need it, JSON-like."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """A recipe, its images and the store they go to.

    Attributes:
        recipe: What to do.
        source: The images.
        store: Where they go to.
        device: "cpu" or a CUDA device.
        teller: Where work says what it does.
        teacher: Of the store, that labels first; None for one that the run trains.
        processes: That work together.
    """

    recipe: Recipe
    source: Source
    store: Store
    device: str
    teller: Teller
    teacher: TeacherRecord | None = None
    processes: Processes = ALONE

    @cached_property
    def decisions(self) -> dict[str, int]:
        """Versions of what people decided, as they were when the run was opened."""
        tables = [self.store.table(name) for name in ("exclusions", "corrections")]
        return {t.spec.name: t.version() if t.root.exists() else 0 for t in tables}

    @cached_property
    def decided(self) -> str:
        """A hash of what people decided: it stays when a table is compacted."""
        if not self.store.root.exists():
            return value_hash({})
        rows = {
            name: sorted(
                canonical_json({k: str(v) for k, v in row.items()})
                for row in self.store.table(name).read(version=version).to_pylist()
            )
            for name, version in self.decisions.items()
            if self.store.table(name).root.exists()
        }
        return value_hash({name: found for name, found in rows.items() if found})

    @cached_property
    def excluded(self) -> npt.NDArray[np.int64]:
        """Ids of the images that people took out, as it was when the run was opened."""
        table = self.store.table("exclusions")
        if not self.store.root.exists() or not table.root.exists():
            return np.empty(0, np.int64)
        rows = table.read(version=self.decisions["exclusions"], columns=["sample_id"])
        ids: npt.NDArray[np.int64] = rows["sample_id"].to_numpy()
        return ids

    @cached_property
    def gone(self) -> GoneFiles:
        """The images left in place whose files were gone when the run was opened."""
        return find_gone(self.store) if self.store.root.exists() else GoneFiles()

    @cached_property
    def embeddings(self) -> int | None:
        """Version of `embeddings` as it was when the run was opened.

        None where the run makes some itself, which then follow from its recipe, and where the
        store has no such table.
        """
        recipe, given = self.recipe, self.teacher
        members = range(1, len(recipe.model.also) + 2)
        hows = {recipe.at(0).member(n).how(0) for n in members} | {recipe.how(1)}
        is_probe = given is not None and EMBEDDINGS in (given.metrics or {})
        there = self.store.root.exists() and "embeddings" in self.store.tables
        if "probe" in hows or is_probe or not there:
            return None
        return self.store.table("embeddings").version()

    @cached_property
    def backend(self) -> BackendName:
        """Of the loader: what trains, labels and evaluates alike."""
        return pick_backend(self.recipe.train.backend, self.device)

    def split(self, split: Split, imported: Outputs) -> ImageSet | None:
        """Return the images of a split as this run reads them, None where it has none."""
        version = imported["images_version"]
        if not self.store.count_images(split, version=version):
            return None
        decided = self.decisions["corrections"]
        return open_split(self.store, split, version=version, corrections=decided)

    def view(self, identity: str) -> View:
        """Return the view that a step made.

        Raises:
            StoreError: If it is gone.
        """
        view = find_view(self.store, identity)
        if view is None:
            raise StoreError(f"the view of step {identity} is gone from {self.store.root}")
        return view
