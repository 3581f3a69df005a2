"""Pools that are not as the labeled images: long-tailed, or of classes that have no name.

They are made of real images by dropping some, so their true classes are to be known: of each
unlabeled image, or by the folder it lies in. Only the choice of images depends on them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Literal

import numpy as np
import numpy.typing as npt

from plstore.errors import InputError
from plstore.exchange import Source
from plstore.fingerprint import value_hash
from plstore.images import ImageRecord, Intake
from plstore.seeds import Purpose, generator

Domain = Literal["all", "in", "out"]
"""Which images a pool keeps: all, those of the label space, those of the classes left out."""


class UnknownTruthError(InputError):
    """A pool is asked for that follows from true classes, and they are not known."""


def long_tailed(source: Source, imbalance: float, seed: int) -> Source:
    """Return images whose pool is long-tailed.

    The class of rank r of C, drawn by the seed, keeps ``num * imbalance ** (-r / (C - 1))`` of
    its unlabeled images, where `num` is how many the least frequent class has: the first class
    keeps `imbalance` times as many as the last.

    Args:
        source: The images.
        imbalance: Above 1.
        seed: Of the ranks, and of which images are kept.

    Raises:
        UnknownTruthError: If the true class of an unlabeled image is not known.
    """
    names = list(source.class_names)
    random = generator(seed, Purpose.POOL, 0)
    ranks = random.permutation(len(names))
    share = imbalance ** (-ranks / max(len(names) - 1, 1))

    def kept(classes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        counts = np.bincount(classes, minlength=len(names))
        quotas = np.maximum(np.round(counts.min() * share), 1).astype(int)
        order = generator(seed, Purpose.POOL, 1).permutation(len(classes))
        found = np.zeros(len(classes), np.bool_)
        for class_id, quota in enumerate(quotas.tolist()):
            found[order[classes[order] == class_id][:quota]] = True
        return found

    what = {"long_tailed": imbalance, "seed": seed}
    return _chosen(source, names, kept, what)


def without_classes(source: Source, count: int, domain: Domain) -> Source:
    """Return images whose last classes have no name: only the pool has images of them.

    Args:
        source: The images.
        count: How many of the last classes leave the label space.
        domain: Which images the pool keeps.

    Raises:
        InputError: If fewer than two classes were left.
        UnknownTruthError: If the true class of an unlabeled image is not known.
    """
    names = list(source.class_names)
    left = names[: len(names) - count]
    if len(left) < 2:  # noqa: PLR2004  a label space
        raise InputError(
            f"data.classes_out is {count}, and there are {len(names)} classes; wanted two or "
            "more to be left"
        )

    def kept(classes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        is_in = classes < len(left)
        return {"all": np.ones_like(is_in), "in": is_in, "out": ~is_in}[domain]

    return _chosen(source, left, kept, {"classes_out": count, "domain": domain})


def _chosen(
    source: Source,
    names: Sequence[str],
    kept: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.bool_]],
    what: Mapping[str, object],
) -> Source:
    """Return the images of some classes, and those of the pool that are kept."""
    splits, wanted = _counted(source, set(names), kept)

    settled = source.settle

    def settle(intake: Intake) -> Source:
        return source if settled is None else _chosen(settled(intake), names, kept, what)

    return replace(
        source,
        identity=value_hash({"identity": source.identity, **what}),
        freshness=value_hash({"freshness": source.freshness, **what}),
        class_names=names,
        splits=splits,
        num_images=sum(splits.values()),
        num_bytes=source.num_bytes * sum(splits.values()) // max(source.num_images, 1),
        keys=lambda: [record.key for record in _records(source, set(names), wanted)],
        records=lambda: _records(source, set(names), wanted),
        settle=None if settled is None else settle,
    )


def _counted(
    source: Source,
    names: set[str],
    kept: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.bool_]],
) -> tuple[dict[str, int], frozenset[str]]:
    """Return images by split, and the keys of the pool's that are kept."""
    ids = {name: number for number, name in enumerate(source.class_names)}
    splits: dict[str, int] = {}
    keys: list[str] = []
    classes: list[int] = []
    for record in source.records():
        if record.split == "unlabeled":
            keys.append(record.key)
            classes.append(ids[_true_class(record, ids)])
        elif record.label in names:
            splits[record.split] = splits.get(record.split, 0) + 1
    rows = np.flatnonzero(kept(np.array(classes, np.int64)))
    splits["unlabeled"] = len(rows)
    return splits, frozenset(keys[row] for row in rows.tolist())


def _true_class(record: ImageRecord, ids: dict[str, int]) -> str:
    """Return the class that an unlabeled image is of: its truth, or the name of its folder."""
    folder = PurePosixPath(record.key).parent.name
    found = record.truth if record.truth is not None else folder
    if found not in ids:
        raise UnknownTruthError(
            f"the true class of the unlabeled image {record.key} is not known, and the pool "
            "that is asked for follows from it (data.imbalance, data.classes_out); put "
            "unlabeled images in folders named as the classes"
        )
    return found


def _records(source: Source, names: set[str], wanted: frozenset[str]) -> Iterator[ImageRecord]:
    for record in source.records():
        if record.split == "unlabeled":
            if record.key in wanted:
                is_known = record.truth is None or record.truth in names
                yield record if is_known else replace(record, truth=None)
        elif record.label in names:
            yield record
