"""A model looks at files in portions: one is done with before the next is read."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from plstore.exchange import ImagePaths, Named
from plstore.fingerprint import content_hash, file_hash, value_hash
from plstore.images import (
    DEFAULT_MAX_BYTES,
    Verdict,
    file_size,
    judge,
    large_images_are_verdicts,
    read_file,
)
from plstore.loaders.imageset import ImageSet, image_table
from plstore.loaders.work import BackendName, threads_of_a_rank
from plstore.schema import ACCEPTED
from trainers.events import Teller
from trainers.inference.clean import BatchSize, looks, room_to_look
from trainers.models.checkpoint import CONFIG, WEIGHTS
from trainers.models.model import Bundle
from trainers.prediction.predicted import VERDICT, Columns, Row, Seen
from trainers.prediction.sorting import Sorter

_FILES: Final = 512
_BYTES: Final = 64 << 20

_Judged = tuple[Verdict, bytes | None]


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """A model, and how it looks at files.

    Attributes:
        bundle: The model.
        device: "cpu" or a CUDA device.
        backend: Of the loader.
        batch_size: Of what the model sees at once.
        columns: What is told of a file.
        sorter: Takes copies of the images; None for none.
        teller: Told of progress.
    """

    bundle: Bundle
    device: str
    backend: BackendName
    batch_size: BatchSize
    columns: Columns
    sorter: Sorter | None
    teller: Teller

    def about(self, paths: ImagePaths) -> dict[str, Any]:
        """Return what rows depend on, but for the files."""
        sorter = self.sorter
        classes = {"class_names": list(self.columns.class_names)}
        return {
            "weights": file_hash(self.bundle.folder / WEIGHTS),
            "config": file_hash(self.bundle.folder / CONFIG),
            "classes": value_hash(classes),
            "paths_below": paths.base,
            "top_k": self.columns.top_k,
            "probabilities": self.columns.with_probabilities,
            "embeddings": self.columns.with_embeddings,
            "sort_into": None if sorter is None else str(sorter.folder.resolve()),
            "min_confidence": None if sorter is None else sorter.min_confidence,
        }

    def rows(self, paths: ImagePaths) -> Iterator[list[Row]]:
        """Yield the rows of each portion, and say at the end what was refused."""
        verdicts: Counter[str] = Counter()
        with self.teller.task("predict", paths.num_files) as advance:
            for batch in self.batches(paths.named()):
                verdicts.update(batch[VERDICT].to_pylist())
                advance(batch.num_rows)
                yield list(self.columns.rows(batch))
        self.say_refused(verdicts)

    def batches(self, named: Iterable[Named]) -> Iterator[pa.RecordBatch]:
        """Yield what is seen in each portion of files, as a batch of the columns' schema."""
        with room_to_look(self.device):
            yield from self._batches(named)

    def _batches(self, named: Iterable[Named]) -> Iterator[pa.RecordBatch]:
        for portion in portions(named):
            with large_images_are_verdicts():
                judged = _judged(portion, keep_files=self.sorter is not None)
            seen = self._seen([name for name, _ in portion], [v for v, _ in judged])
            if self.sorter is not None:
                _sort(self.sorter, seen, self.bundle.class_names, [data for _, data in judged])
            yield self.columns.batch(seen)

    def _seen(self, names: list[str], verdicts: list[Verdict]) -> Seen:
        good = [
            (v.data, v.width, v.height, content_hash(v.data))
            for v in verdicts
            if v.data is not None
        ]
        probs = [np.empty((0, len(self.bundle.class_names)), np.float32)]
        embeddings: list[Any] = []
        if good:
            for look in looks(
                self.bundle,
                ImageSet(image_table(good), len(self.bundle.class_names)),
                device=self.device,
                backend=self.backend,
                batch_size=self.batch_size,
                with_embeddings=self.columns.with_embeddings,
            ):
                probs.append(look.probs.numpy())
                embeddings += [] if look.embeddings is None else [look.embeddings.numpy()]
        return Seen(
            names=names,
            verdicts=[v.verdict for v in verdicts],
            probs=np.concatenate(probs),
            embeddings=np.concatenate(embeddings or [np.empty((0, 0), np.float32)]),
        )

    def say_refused(self, verdicts: Counter[str]) -> None:
        """Say how many files have no class, and where copies are."""
        refused = {why: n for why, n in sorted(verdicts.items()) if why != ACCEPTED}
        if refused:
            reasons = ", ".join(f"{why} {count}" for why, count in refused.items())
            self.teller.say(
                f"{sum(refused.values())} of {verdicts.total()} files have no class: {reasons}"
            )
        if self.sorter is not None:
            copied = ", ".join(f"{name} {n}" for name, n in sorted(self.sorter.copied.items()))
            self.teller.say(
                f"copied into {self.sorter.folder}: {copied or 'nothing'}; there already: "
                f"{self.sorter.num_there}"
            )


def _sort(
    sorter: Sorter, seen: Seen, class_names: Sequence[str], files: Sequence[bytes | None]
) -> None:
    best = zip(seen.probs.argmax(axis=1).tolist(), seen.probs.max(axis=1).tolist(), strict=True)
    for name, verdict, data in zip(seen.names, seen.verdicts, files, strict=True):
        if verdict == ACCEPTED and data is not None:
            class_id, confidence = next(best)
            sorter.put(name, data, class_names[class_id], confidence)


def portions(named: Iterable[Named]) -> Iterator[list[Named]]:
    """Yield files, up to 512 and 64 MiB; a larger one is alone."""
    portion: list[Named] = []
    held = 0
    for name, place in named:
        size = _size(place)
        if portion and (len(portion) == _FILES or held + size > _BYTES):
            yield portion
            portion, held = [], 0
        portion.append((name, place))
        held += size
    if portion:
        yield portion


def _size(place: str) -> int:
    """Return the bytes that reading a file would take: none of one that will not be read."""
    size = file_size(place) or 0
    return size if size <= DEFAULT_MAX_BYTES else 0


def _judged(portion: list[Named], *, keep_files: bool) -> list[_Judged]:
    """Return the verdict on each file, and its bytes as they are on disk, if wanted."""

    def look(named: Named) -> _Judged:
        found = read_file(named[1], DEFAULT_MAX_BYTES)
        if isinstance(found, str):
            return Verdict(verdict=found), None
        return judge(found), found if keep_files else None

    with ThreadPoolExecutor(threads_of_a_rank(), thread_name_prefix="plstore-judge") as pool:
        return list(pool.map(look, portion))
