"""How far the five likeliest classes move from frame to frame, by the labels that are kept."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from plstore.codec import decode
from plstore.labels import PerturbedSet
from plstore.store import Store
from trainers.robustness.metrics import top5_distances
from trainers.robustness.published import NOISE_PERTURBATIONS

_FLOATS: Final = 1 << 24  # of distributions in memory at once: 64 MB


def distances(
    store: Store, teacher_id: str, split: str, names: Sequence[str]
) -> dict[str, float]:
    """Return the unnormalised top-5 distance of a teacher's labels, in ranks, by perturbation.

    Probabilities are kept with 10 bits of mantissa: classes that are as likely but for less
    than a thousandth count as equal.

    Args:
        store: With labels of sequences, see `label_perturbed`.
        teacher_id: Whose labels.
        split: Of the images.
        names: Of the perturbations; the mean over images of each.
    """
    return {name: _distance(store, teacher_id, split, name) for name in names}


def _distance(store: Store, teacher_id: str, split: str, name: str) -> float:
    of = PerturbedSet(teacher_id=teacher_id, split=split, kind="sequence", perturbation=name)
    table, num_classes = store.table("perturbed_labels"), len(store.class_names)
    shards = table.shards(partition=of.partition)
    rows = table.dataset_of(shards).to_table(columns=["sample_id", "level", "label"])
    rows = rows.sort_by([("sample_id", "ascending"), ("level", "ascending")])
    num_frames = len(np.unique(rows["level"].to_numpy()))
    at_once = num_frames * max(_FLOATS // (num_frames * num_classes), 1)
    found = [
        top5_distances(
            decode(part["label"].combine_chunks(), num_classes).reshape(
                -1, num_frames, num_classes
            ),
            noise=name in NOISE_PERTURBATIONS,
        )
        for start in range(0, len(rows), at_once)
        for part in [rows.slice(start, at_once)]
    ]
    return float(np.concatenate(found).mean())
