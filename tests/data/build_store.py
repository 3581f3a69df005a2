"""Build the frozen store of format version 1: run once, when the version was made.

python -m tests.data.build_store tests/data/store-format-1
"""

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

import plstore
from plstore.codec import Codec
from plstore.images import import_images
from plstore.labels import (
    LabelBatch,
    LabelSet,
    Member,
    commit_labels,
    make_ensemble,
    write_labels,
)
from plstore.store import add_tag
from plstore.upkeep import correct, erase, exclude
from tests.conftest import CLASS_NAMES, make_records

CODECS = {"topk": Codec(k=2), "dense": Codec(name="dense", k=1), "hard": Codec(name="hard")}


def probabilities(teacher: str) -> npt.NDArray[np.float32]:
    """Return what a teacher of the fixture said of the eight unlabeled images."""
    random = np.random.default_rng(len(teacher))
    return random.dirichlet([0.7] * 3, 8).astype(np.float32)


def build(path: Path) -> None:
    """Make the store."""
    store = plstore.create(path)
    records = make_records(num_labeled=6, num_unlabeled=8)
    import_images(store, records, dataset="pets", class_names=CLASS_NAMES)
    for teacher, codec in CODECS.items():
        label_set = LabelSet(iteration=1, teacher_id=teacher, split="unlabeled")
        batch = LabelBatch(sample_ids=np.arange(6, 14), probabilities=probabilities(teacher))
        shards = write_labels(store, label_set, [batch], codec=codec, identity=teacher)
        commit_labels(store, shards, lineage={"step": "label"}, transaction=teacher)
    members = [Member(teacher_id=name, iteration=1) for name in ("topk", "dense")]
    make_ensemble(store, "both", members, iteration=2)
    exclude(store, [7], reason="blurred", who="ann")
    correct(store, {8: "owl"}, who="ann")
    balance = plstore.Balance(min_confidence=0.3, images_per_class=3, seed=0)
    plstore.select(
        store,
        plstore.Selection(view="v", teachers=["topk@1"], balance=balance),
    )
    add_tag(store, "first", message="before the deletion")
    erase(store, [9], reason="asked for", who="ann")
    for log in path.rglob("_delta_log/*.json"):  # where it was made is no one's business
        text = log.read_text().replace(path.resolve().as_uri(), "file:///store")
        log.write_text(text)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
