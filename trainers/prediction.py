"""What a trained model sees in files that are no store's: a row for each, whatever it is."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from plstore.errors import InputError
from plstore.exchange.folders import files_below
from plstore.fingerprint import content_hash
from plstore.images import (
    DEFAULT_MAX_BYTES,
    Verdict,
    file_size,
    judge,
    large_images_are_verdicts,
    read_file,
)
from plstore.labels import TeacherRecord, list_teachers
from plstore.loaders import import_backend, pick_backend
from plstore.loaders.imageset import ImageSet, image_table
from plstore.loaders.work import Backend, threads_of_a_rank
from plstore.schema import ACCEPTED
from plstore.store import Store
from trainers.events import Listener, Teller, unheard
from trainers.inference import probabilities
from trainers.model import Bundle, load_teacher
from trainers.train import pick_device

Row = dict[str, Any]

_FILES: Final = 512
_BYTES: Final = 64 << 20
_DIGITS: Final = 6


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """How files are looked at.

    Attributes:
        teacher_id: A teacher with a model; the last student unless given.
        device: "auto", "cpu" or a CUDA device.
        backend: Of the loader; "auto" as in `plstore.load`.
        with_probabilities: Whether rows have a column `prob_CLASS` for each class.
    """

    teacher_id: str | None = None
    device: str = "auto"
    backend: Backend = "auto"
    with_probabilities: bool = False


_DEFAULT = Prediction()


def predict(
    store: Store,
    folder: str | Path,
    prediction: Prediction = _DEFAULT,
    *,
    on_event: Listener = unheard,
) -> list[Row]:
    """Return what a trained model sees in every file of a folder, by path.

    A row has `path` (relative to the folder), `class`, `confidence`, `verdict` and, if wanted,
    `prob_CLASS` for each class. A file that is no acceptable image, that vanished since it was
    listed, or has more than 256 MiB, has the reason as its verdict, and no class. Memory: the
    encoded bytes of 512 files of 64 MiB together, or of one file if it is larger, and one
    decoded image for each thread.

    Raises:
        InputError: If the store has no such model, or there is no such folder.
    """
    folder, display = Path(folder), Teller(on_event)
    device = pick_device(prediction.device)
    backend = pick_backend(prediction.backend, device)
    import_backend(backend)
    teacher = _teacher(store, prediction.teacher_id)
    bundle = load_teacher(store, teacher, device=device)
    display.say(f"{teacher.teacher_id}: {teacher.architecture}, {teacher.role}")
    paths = files_below(folder)
    rows: list[Row] = []
    with display.task("predict", len(paths)) as advance, large_images_are_verdicts():
        for portion in _portions(paths):
            verdicts = _verdicts(portion)
            seen = _seen(bundle, verdicts, device, backend)
            for path, verdict in zip(portion, verdicts, strict=True):
                row = _row(path.relative_to(folder).as_posix(), verdict.verdict, bundle)
                if verdict.verdict == ACCEPTED:
                    _fill(row, next(seen), bundle)
                rows.append(row if prediction.with_probabilities else _short(row))
            advance(len(portion))
    _say_refused(rows, display)
    return rows


def _portions(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield paths of up to 512 files and 64 MiB; a larger file is alone."""
    portion: list[Path] = []
    held = 0
    for path in paths:
        size = _size(path)
        if portion and (len(portion) == _FILES or held + size > _BYTES):
            yield portion
            portion, held = [], 0
        portion.append(path)
        held += size
    if portion:
        yield portion


def _size(path: Path) -> int:
    """Return the bytes that reading a file would take: none of one that will not be read."""
    size = file_size(str(path)) or 0
    return size if size <= DEFAULT_MAX_BYTES else 0


def _verdicts(paths: Sequence[Path]) -> list[Verdict]:
    with ThreadPoolExecutor(threads_of_a_rank(), thread_name_prefix="plstore-judge") as pool:
        return list(pool.map(_verdict, paths))


def _verdict(path: Path) -> Verdict:
    found = read_file(str(path), DEFAULT_MAX_BYTES)
    return Verdict(verdict=found) if isinstance(found, str) else judge(found)


def _seen(
    bundle: Bundle, verdicts: Sequence[Verdict], device: str, backend: Backend
) -> Iterator[torch.Tensor]:
    """Yield float32 [classes], the probabilities of each acceptable image, in order."""
    good = [
        (v.data, v.width, v.height, content_hash(v.data))
        for v in verdicts
        if v.data is not None
    ]
    if not good:
        return
    images = ImageSet(image_table(good), len(bundle.class_names))
    for _, probs in probabilities(bundle, images, device=device, backend=backend):
        yield from probs


def _row(path: str, verdict: str, bundle: Bundle) -> Row:
    nothing = dict.fromkeys(f"prob_{name}" for name in bundle.class_names)
    return {"path": path, "class": None, "confidence": None, "verdict": verdict, **nothing}


def _fill(row: Row, probs: torch.Tensor, bundle: Bundle) -> None:
    confidence, class_id = probs.max(dim=0)
    row["class"] = bundle.class_names[int(class_id)]
    row["confidence"] = round(float(confidence), _DIGITS)
    for name, value in zip(bundle.class_names, probs.tolist(), strict=True):
        row[f"prob_{name}"] = float(f"{value:.{_DIGITS}g}")


def _short(row: Row) -> Row:
    return {name: row[name] for name in ("path", "class", "confidence", "verdict")}


def _say_refused(rows: Sequence[Row], display: Teller) -> None:
    refused = Counter(row["verdict"] for row in rows if row["verdict"] != ACCEPTED)
    if refused:
        reasons = ", ".join(f"{why} {count}" for why, count in sorted(refused.items()))
        display.say(f"{refused.total()} of {len(rows)} files have no class: {reasons}")


def _teacher(store: Store, teacher_id: str | None) -> TeacherRecord:
    models = [t for t in list_teachers(store) if t.checkpoint]  # a fusion has none of its own
    found = models
    if teacher_id is None:
        found = [t for t in models if t.is_trained]
        newest = found[-1].recipe_hash if found else None
        found = [t for t in found if t.role != "control" and t.recipe_hash == newest]
        found.sort(key=lambda teacher: teacher.iteration)
    else:
        found = [t for t in models if t.teacher_id == teacher_id]
    if not found:
        raise InputError(
            f"{store.root} has no teacher {teacher_id or 'yet'} with a model; it has "
            f"{', '.join(t.teacher_id for t in models) or 'none: plstore run trains them'}"
        )
    return found[-1]
