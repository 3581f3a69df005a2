"""A model of a store in a folder of its own: written, checked, and described by a card."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from plstore.errors import InputError
from plstore.labels import TeacherRecord
from plstore.store import Store
from plstore.version import __version__
from trainers.exporting.card import Subject, write_card
from trainers.exporting.formats import (
    ABOUT,
    TOLERANCE,
    WRITERS,
    ExportedModel,
    ModelKind,
    difference,
)
from trainers.exporting.network import CHECKED
from trainers.models.model import Bundle, load_teacher
from trainers.named import teacher_named


def export_model(
    store: Store,
    teacher_id: str,
    folder: str | Path,
    *,
    kind: ModelKind = "timm",
    data_licence: str | None = None,
) -> ExportedModel:
    """Write a model of a store to a new folder, with a model card, for use anywhere.

    `timm` is the model folder as the store keeps it. `onnx` and `torch` (a program of
    torch.export) are one network each from uint8 [batch, channels, size, size] to
    probabilities, float32 [batch, classes], of any batch size, with normalisation and softmax
    in it; class names and preprocessing are in the file's metadata and in export.json. Each is
    run against the model itself before it is there: random images, batches of 1, 2 and 7.

    Args:
        store: The store.
        teacher_id: A teacher with a model; a probe is one, backbone and classifier.
        folder: New, or empty. It appears when it is whole.
        kind: `timm`, `onnx` or `torch`.
        data_licence: Of the images that it was trained on, for the card.

    Raises:
        InputError: If there is no such teacher, it has no model, the folder is not empty, the
            network cannot be exported, or a probability differs by more than 1e-4.
        MissingExtraError: If `onnx` needs what is not installed.
    """
    if kind not in WRITERS:
        raise InputError(f"export as {kind!r}; wanted one of {', '.join(WRITERS)}")
    teacher, target = teacher_named(store, teacher_id), Path(folder)
    _check_free(target)
    bundle = load_teacher(store, teacher, device="cpu")
    name, _ = WRITERS[kind]
    with _appearing(target) as place:
        found = _write_checked(place, teacher, bundle, kind)
        subject = Subject(
            store=store,
            teacher=teacher,
            bundle=bundle,
            kind=kind,
            largest_difference=found,
            data_licence=data_licence,
        )
        write_card(place, subject)
    return ExportedModel(
        folder=target,
        kind=kind,
        file=target / name,
        num_bytes=sum(path.stat().st_size for path in target.iterdir()),
        largest_difference=found,
    )


def _write_checked(
    place: Path, teacher: TeacherRecord, bundle: Bundle, kind: ModelKind
) -> float:
    """Write the model and export.json; return the largest difference of a probability."""
    name, write = WRITERS[kind]
    about = _about(teacher, bundle)
    found = difference(bundle, write(bundle, place, about))
    if found > TOLERANCE:
        raise InputError(
            f"{name} of {teacher.teacher_id!r} gives probabilities that differ by up to "
            f"{found:.3g} from the model's own, over batches of "
            f"{', '.join(map(str, CHECKED))}; wanted {TOLERANCE:g} at most. Nothing was "
            "written: another version of torch or onnxruntime may do better, and timm is a copy"
        )
    checked = {"largest_difference": found, "batch_sizes": list(CHECKED)}
    text = json.dumps({**about, "kind": kind, "checked": checked}, indent=2)
    (place / ABOUT).write_text(text + "\n", encoding="utf-8")
    return found


def _about(teacher: TeacherRecord, bundle: Bundle) -> dict[str, Any]:
    """Return what whoever runs the model must know, as JSON has it."""
    form = bundle.format
    return {
        "teacher_id": teacher.teacher_id,
        "architecture": teacher.architecture,
        "class_names": list(bundle.class_names),
        "size": form.size,
        "channels": form.channels,
        "mean": list(form.mean),
        "std": list(form.std),
        "interpolation": form.interpolation,
        "crop_pct": form.crop_pct,
        "checkpoint_hash": str(teacher.checkpoint_hash),
        "plstore": __version__,
    }


def _check_free(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty; name a new folder")


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """Give a folder beside a new one, which takes its place when all is well, else is gone."""
    place = folder.absolute().with_name(f".{folder.absolute().name}.{uuid4().hex}")
    try:
        place.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}") from error
    try:
        yield place
        place.replace(folder)
    finally:
        shutil.rmtree(place, ignore_errors=True)
