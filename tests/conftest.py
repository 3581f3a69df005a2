"""Real stores of real images, small."""

import functools
import io
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import plstore
from plstore.codec import Codec
from plstore.embeddings import (
    EmbeddingBatch,
    EmbeddingSet,
    commit_embeddings,
    write_embeddings,
)
from plstore.images import ImageRecord, import_images
from plstore.labels import LabelBatch, LabelSet, commit_labels, write_labels
from plstore.report.snapshot import Snapshot
from plstore.schema import Profile
from plstore.store import Store
from plstore.upkeep import correct, exclude

# As many processes as there are cores: a second thread of each would wait, and spin as it does.
os.environ.setdefault("OMP_NUM_THREADS", "1")

CLASS_NAMES = ("cat", "dog", "owl")


def encode(pixels: npt.NDArray[np.uint8], kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format=kind)
    return stream.getvalue()


def make_records(num_labeled: int = 12, num_unlabeled: int = 60) -> list[ImageRecord]:
    random = np.random.default_rng(0)
    records = []
    splits = ["labeled"] * num_labeled + ["unlabeled"] * num_unlabeled
    splits += ["validation"] * 6 + ["test"] * 6
    for index, split in enumerate(splits):
        size = (20 + index % 5, 24, 3) if index % 2 else (22, 18 + index % 3)
        name = CLASS_NAMES[index % 3]
        hidden = split == "unlabeled"
        records.append(
            ImageRecord(
                key=f"{split}/{index:04d}.png",
                split=split,
                data=encode(random.integers(0, 256, size, dtype=np.uint8)),
                label=None if hidden else name,
                truth=name if hidden else None,
            )
        )
    return records


def give_labels(
    store: Store,
    teacher_id: str = "t0",
    iteration: int = 1,
    *,
    probabilities: npt.NDArray[np.float32] | None = None,
    name: str = "labels",
    split: str = "unlabeled",
) -> npt.NDArray[np.float32]:
    rows = store.table("images").read(columns=["sample_id", "split"]).to_pylist()
    ids = np.array([r["sample_id"] for r in rows if r["split"] == split], np.int64)
    if probabilities is None:
        random = np.random.default_rng(iteration)
        probabilities = random.dirichlet([0.5] * 3, len(ids)).astype(np.float32)
    label_set = LabelSet(teacher_id=teacher_id, iteration=iteration, split=split)
    batch = LabelBatch(sample_ids=ids, probabilities=probabilities)
    transaction = f"{name}-{teacher_id}-{iteration}-{split}"
    shards = write_labels(store, label_set, [batch], codec=Codec(), identity=transaction)
    lineage = {"step": "label", "teacher_id": teacher_id, "iteration": iteration}
    commit_labels(store, shards, lineage=lineage, transaction=transaction)
    return probabilities


def give_embeddings(store: Store, model: str = "net", features: int = 6) -> None:
    """Embed all accepted images, at random places."""
    rows = store.table("images").read(columns=["sample_id", "split", "verdict"]).to_pylist()
    shards = []
    for split in ("labeled", "unlabeled", "validation", "test"):
        here = [
            r["sample_id"] for r in rows if (r["split"], r["verdict"]) == (split, "accepted")
        ]
        vectors = np.random.default_rng(len(here)).normal(size=(len(here), features))
        batch = EmbeddingBatch(
            sample_ids=np.array(here, np.int64), vectors=vectors.astype(np.float32)
        )
        of = EmbeddingSet(model=model, split=split)
        shards.append(write_embeddings(store, of, batch, identity=f"{model}-{split}"))
    commit_embeddings(store, shards, lineage={"step": "embed"}, transaction=model)


@pytest.fixture(scope="session")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Profile], Path]:
    """Where a store of a profile lies: made once, as it takes sixty times as long as a copy."""

    @functools.cache
    def make(profile: Profile) -> Path:
        store = plstore.create(tmp_path_factory.mktemp("pets") / "store", profile=profile)
        import_images(store, make_records(), dataset="pets", class_names=CLASS_NAMES)
        return store.root

    return make


@pytest.fixture
def make_store(pets: Callable[[Profile], Path], tmp_path: Path) -> Callable[..., Store]:
    def make(profile: Profile = "compact") -> Store:
        shutil.copytree(pets(profile), tmp_path / "store")
        return plstore.open(tmp_path / "store")

    return make


@pytest.fixture
def store(make_store: Callable[..., Store]) -> Store:
    return make_store()


@pytest.fixture
def unused_port() -> Callable[[], int]:
    def find() -> int:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return int(free.getsockname()[1])

    return find


# Stores to look at, made once: tests only read them, or take a copy to write to.


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = plstore.create(tmp_path_factory.mktemp("filled") / "pets")
    import_images(store, make_records(), dataset="pets", class_names=CLASS_NAMES)
    from tests.looked_at import fill  # it needs this module

    fill(store)
    return store.root


@pytest.fixture(scope="session")
def snapshot(filled: Path) -> Snapshot:
    return Snapshot(plstore.open(filled))


@pytest.fixture(scope="session")
def decided(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """The same store after two images were excluded and one was corrected."""
    root = tmp_path_factory.mktemp("decided") / "pets"
    shutil.copytree(filled, root)
    store = plstore.open(root)
    exclude(store, [12, 13], reason="blurred", who="ann")
    correct(store, {14: "owl"}, who="ann")
    return Snapshot(store)


@pytest.fixture
def own(filled: Path, tmp_path: Path) -> Store:
    """A copy to write to."""
    shutil.copytree(filled, tmp_path / "pets")
    return plstore.open(tmp_path / "pets")
