"""Images that are files, listed in columns: a million of them are no million objects."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from plstore.errors import InputError
from plstore.exchange.source import Source
from plstore.exchange.validation_split import (
    Candidates,
    ValidationSplit,
    by_class,
    split_by_name,
    split_usable,
)
from plstore.fingerprint import canonical_json
from plstore.images import ImageFile, Intake
from plstore.schema import SPLITS

LABELED: Final = SPLITS.index("labeled")
VALIDATION: Final = SPLITS.index("validation")
_BLOCK = 1 << 14


@dataclass(frozen=True, kw_only=True)
class Files:
    """Files of images, a row each.

    Attributes:
        keys: Their names in the dataset, an Arrow array of text.
        places: Absolute paths or URLs, the same.
        splits: int8 [rows]: index in `SPLITS`.
        labels: int32 [rows]: index in `class_names`, -1 for none.
        num_bytes: int64 [rows], or None where nobody looked.
        class_names: By class id.
        validation: How it is split off.
        noticed: As of a `Source`.
        ignored: The same.
    """

    keys: pa.Array
    places: pa.Array
    splits: npt.NDArray[np.int8]
    labels: npt.NDArray[np.int32]
    num_bytes: npt.NDArray[np.int64] | None
    class_names: Sequence[str]
    validation: ValidationSplit
    noticed: Mapping[str, int] = field(default_factory=dict)
    ignored: Mapping[str, int] = field(default_factory=dict)

    def records(self) -> Iterator[ImageFile]:
        """Yield the images, unread."""
        for start in range(0, len(self.keys), _BLOCK):
            yield from self._records(np.arange(start, min(start + _BLOCK, len(self.keys))))

    def _records(self, rows: npt.NDArray[np.intp]) -> Iterator[ImageFile]:
        taken = pa.array(rows)
        sizes = None if self.num_bytes is None else self.num_bytes[rows].tolist()
        for n, (key, place, split, label) in enumerate(
            zip(
                self.keys.take(taken).to_pylist(),
                self.places.take(taken).to_pylist(),
                self.splits[rows].tolist(),
                self.labels[rows].tolist(),
                strict=True,
            )
        ):
            yield ImageFile(
                key=key,
                split=SPLITS[split],
                place=place,
                label=None if label < 0 else self.class_names[label],
                num_bytes=None if sizes is None else sizes[n],
            )

    def rows_as_json(self, *, with_bytes: bool) -> Iterator[str]:
        """Yield (key, split, class name[, bytes]) of each image as canonical JSON."""
        for record in self.records():
            row = [record.key, record.split, record.label]
            yield canonical_json([*row, record.num_bytes] if with_bytes else row)

    def with_validation(self) -> "Files":
        """Return the files with validation drawn by their names alone."""
        labeled = self._labeled()
        splits = self.splits.copy()
        splits[labeled[split_by_name(self.validation, self._classes(labeled))]] = VALIDATION
        return replace(self, splits=splits)

    def _labeled(self) -> npt.NDArray[np.intp]:
        return np.flatnonzero((self.splits == LABELED) & (self.labels >= 0))

    def _classes(self, labeled: npt.NDArray[np.intp]) -> dict[int, npt.NDArray[np.intp]]:
        hashes = [
            self.validation.hashes(
                self.keys.take(pa.array(labeled[n : n + _BLOCK])).to_pylist()
            )
            for n in range(0, len(labeled), _BLOCK)
        ]
        found = np.concatenate([np.empty(0, np.uint64), *hashes])
        return by_class(self.labels[labeled], found)

    def settled(self, intake: Intake) -> "Files":
        """Return the files with validation drawn among those that a store lacks.

        Raises:
            InputError: If a class has no image that can be used, here or in the store.
        """
        labeled = self._labeled()
        kept, usable = self._kept(labeled, intake)
        learned = intake.known.learned
        candidates = Candidates(
            classes=self._classes(labeled),
            usable=usable,
            in_validation=(kept[labeled] == VALIDATION) & (usable > 0),
            learned={n for n, name in enumerate(self.class_names) if name in learned},
        )

        def verdicts(rows: Sequence[int]) -> Iterator[str]:
            return intake.looking.verdicts(self._records(labeled[np.array(rows, np.intp)]))

        drawn, lost = split_usable(self.validation, candidates, verdicts)
        if lost:
            raise InputError(_without_images(self.class_names, lost))
        kept[labeled[drawn]] = VALIDATION
        return replace(self, splits=kept)

    def _kept(
        self, labeled: npt.NDArray[np.intp], intake: Intake
    ) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
        """Return the splits with those that the store gave, and which are used."""
        splits = self.splits.copy()
        usable = np.full(len(labeled), -1, np.int8)
        for start in range(0, len(labeled), _BLOCK):
            rows = labeled[start : start + _BLOCK]
            there, known = intake.known.find_all(self.keys.take(pa.array(rows)).to_pylist())
            usable[start : start + _BLOCK][there] = known["accepted"]
            drawn = known["split"] == VALIDATION
            if self.validation.fraction is not None:
                splits[rows[there][drawn]] = VALIDATION
        return splits, usable


def _without_images(class_names: Sequence[str], lost: Mapping[int, Counter[str]]) -> str:
    found = "; ".join(
        f"{class_names[number]}: "
        + ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
        for number, verdicts in lost.items()
    )
    return (
        f"{len(lost)} of {len(class_names)} classes have no labeled image that can be used: "
        f"{found}. Nothing was imported, for nothing could learn them: add images of these "
        "classes that can be read, or take the classes away"
    )


def text_array(values: Iterable[str]) -> pa.Array:
    """Return text as one Arrow array, however long it is in all."""
    return pa.array(values, pa.large_string())


def stream_hash(name: str, rows: Iterable[str]) -> str:
    """Return `value_hash` of one list under a name, from the JSON of its rows."""
    digest = xxhash.xxh3_64(f"{{{json.dumps(name)}:[".encode())
    for n, row in enumerate(rows):
        digest.update((f",{row}" if n else row).encode())
    digest.update(b"]}")
    return digest.hexdigest()


def file_source(
    files: Files, *, dataset: str, identity: str, freshness: str, can_lose_files: bool = False
) -> Source:
    """Return files as a source of images.

    Args:
        files: With validation drawn by name, or not at all.
        dataset: Name of the collection in the store.
        identity: As of a `Source`.
        freshness: The same.
        can_lose_files: Whether they are all that is in folders, where a file may go.
    """
    drawn = files.with_validation()

    def settle(intake: Intake) -> Source:
        return replace(_source(files.settled(intake)), settle=settle)

    def _source(found: Files) -> Source:
        counts = np.bincount(found.splits, minlength=len(SPLITS)).tolist()
        return Source(
            dataset=dataset,
            identity=identity,
            freshness=freshness,
            class_names=list(found.class_names),
            num_images=len(found.keys),
            num_bytes=0 if found.num_bytes is None else int(found.num_bytes.sum()),
            splits={name: n for name, n in zip(SPLITS, counts, strict=True) if n},
            keys=found.keys.to_pylist,
            records=found.records,
            noticed=found.noticed,
            ignored=found.ignored,
            named=found.keys.to_pylist if can_lose_files else None,
        )

    return replace(_source(drawn), settle=settle)
