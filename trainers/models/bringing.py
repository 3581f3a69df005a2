"""A model that someone brings becomes a teacher of the store."""

from collections.abc import Callable, Mapping
from pathlib import Path

from plstore.errors import InputError
from plstore.fingerprint import file_hash, value_hash
from plstore.labels import TeacherRecord, add_teacher, check_teacher_id, find_teacher
from plstore.store import Store
from trainers.models.checkpoint import CONFIG, WEIGHTS
from trainers.models.model import keep_bundle, load_bundle


def bring_teacher(
    store: Store,
    teacher_id: str,
    checkpoint: str,
    *,
    device: str,
    say: Callable[[str], None] = lambda _: None,
) -> str:
    """Bring a model into the store as a teacher; return the hash of its weights.

    Args:
        store: Where to.
        teacher_id: Its name there.
        checkpoint: A folder with config.json and model.safetensors, as `plstore run` and
            timm's save_for_hf write them; its label_names must be the store's classes, in
            whatever order: outputs are matched with classes by name.
        device: "cpu" or a CUDA device.
        say: Told what people should know of the model.

    Raises:
        InputError: If it is no such folder, a weight is missing or left over, counts do not
            agree, its classes are others, or the name is taken.
    """
    check_teacher_id(teacher_id)
    bundle = load_bundle(Path(checkpoint), class_names=store.class_names, device=device)
    for note in bundle.notes:
        say(f"{checkpoint}: {note}")
    brought = {
        "brought": file_hash(bundle.folder / WEIGHTS),
        "brought_config": file_hash(bundle.folder / CONFIG),
    }
    if (kept := _brought_before(store, teacher_id, brought)) is not None:
        return kept
    architecture = str(getattr(bundle.network, "pretrained_cfg", {}).get("architecture", ""))
    name, digest = keep_bundle(
        store, teacher_id, bundle.network, bundle.format, bundle.output_names
    )
    record = TeacherRecord(
        teacher_id=teacher_id,
        iteration=0,
        role="imported",
        architecture=architecture,
        checkpoint=name,
        checkpoint_hash=digest,
        preprocessing=vars(bundle.format),
        metrics={**brought, "notes": list(bundle.notes)},
    )
    identity = f"imported-{teacher_id}-{value_hash(brought)}"
    add_teacher(store, record, identity=identity, step="label")
    return digest


def _brought_before(store: Store, teacher_id: str, brought: Mapping[str, str]) -> str | None:
    """Return the hash of the weights that are kept of a model that was brought before.

    A config of other classes or preprocessing makes another model of the same weights.
    """
    teacher = find_teacher(store, teacher_id)
    if teacher is None:
        return None
    known = teacher.metrics or {}
    named = {name: known[name] for name in brought if name in known}  # older rows lack one
    if "brought" not in named or not named.items() <= brought.items():
        raise InputError(
            f"{store.root} has another teacher named {teacher_id!r}; name this one otherwise"
        )
    return teacher.checkpoint_hash
