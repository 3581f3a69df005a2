"""How robust are teachers? Corruptions, sequences and attacks on the images of a split.

Robustness as the paper has it is a number beside that of the first teacher: mCE and mFR over a
baseline (Noisy Student, tables 4 and 5; Hendrycks and Dietterich, arXiv 1903.12261).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow.compute as pc

from plstore.errors import InputError
from plstore.fingerprint import value_hash
from plstore.labels import TeacherRecord, find_teacher
from plstore.loaders import open_split, pick_backend
from plstore.store import Store
from trainers.evaluation.evaluate import evaluate, keep_metrics
from trainers.events import Listener, Teller, unheard
from trainers.models.model import load_teacher
from trainers.robustness.attacks import Attack
from trainers.robustness.kinds import Attacks
from trainers.robustness.labeling import Asked, check_models, label_perturbed
from trainers.robustness.official import CorruptedFiles, SequenceFiles
from trainers.robustness.summary import ALEXNET, Robustness, summary
from trainers.training.train import pick_device

__all__ = ["ALEXNET", "Robustness", "check_asked", "robustness"]


def robustness(
    store: Store,
    teacher_ids: Sequence[str],
    what: Robustness,
    *,
    on_event: Listener = unheard,
) -> list[dict[str, Any]]:
    """Return how robust teachers are, side by side; keep it in `runs`.

    What they say of each image is kept in `perturbed_labels`, which saved queries of
    `evaluation/` read; what is there is not made again.

    Args:
        store: The store.
        teacher_ids: Of teachers with models.
        what: Is done to which images.
        on_event: Told of progress.

    Returns:
        By teacher: teacher_id, split, num_perturbed, and in percent, of what was done:
        clean_accuracy of the images that were made worse, corrupted_accuracy,
        mean_corruption_error, mCE and relative_mCE, which counts what is lost against clean
        images (if all 15 corruptions were done), flip_probability and
        mFR, top5_distance (in ranks) and mT5D (if all ten sequences were), and accuracy by
        attack and epsilon, such as "pgd_linf 4/255".

    Raises:
        InputError: If a teacher has no model, the baseline is none of them, or there are no
            images.
        MissingExtraError: If the extra `robustness` is not installed.
    """
    device = pick_device(what.asked.device)
    backend = pick_backend(what.asked.backend, device)
    asked = replace(what.asked, device=device, backend=backend)
    teller = Teller(on_event)
    what = _of_images(store, what, asked, teller)
    teachers = check_asked(store, teacher_ids, what)
    evaluate(
        store,
        teacher_ids,
        splits=[asked.split],
        device=device,
        backend=backend,
        on_event=on_event,
    )
    if what.corruptions is not None:
        label_perturbed(store, teachers, what.corruptions, asked, on_event=on_event)
    if what.sequences is not None:
        label_perturbed(store, teachers, what.sequences, asked, on_event=on_event)
    if what.attacks:
        _attack(store, teachers, what.attacks, asked, teller)
    rows = summary(store, teachers, what, asked)
    for row in rows:
        _keep(store, row, what, what.baseline or teacher_ids[0])
    for measure, whole in (("mCE", what.is_mce), ("mFR", what.is_mfr)):
        if whole and measure not in rows[0]:
            teller.say(
                f"{measure} is left out: the baseline makes no mistake of some kind, which "
                "nothing can be divided by; ask more images, or name another --baseline"
            )
    return rows


def _of_images(store: Store, what: Robustness, asked: Asked, teller: Teller) -> Robustness:
    """Return what is done, with who is told, and to which images files belong."""
    keys: dict[int, str] = {}
    if isinstance(what.corruptions, CorruptedFiles) or isinstance(
        what.sequences, SequenceFiles
    ):
        images = open_split(store, asked.split)
        ids = images.sample_ids[asked.rows(images)]
        where = pc.field("sample_id").isin(ids)
        rows = store.table("images").read(columns=["sample_id", "key"], where=where)
        keys = dict(zip(rows["sample_id"].to_pylist(), rows["key"].to_pylist(), strict=True))
    corruptions, sequences = what.corruptions, what.sequences
    if isinstance(corruptions, CorruptedFiles):
        corruptions = replace(corruptions, keys=keys)
    if isinstance(sequences, SequenceFiles):
        sequences = replace(sequences, keys=keys, on_note=teller.say)
    if corruptions is not None:
        corruptions = replace(corruptions, on_note=teller.say)
    return replace(what, corruptions=corruptions, sequences=sequences)


def check_asked(
    store: Store, teacher_ids: Sequence[str], what: Robustness
) -> list[TeacherRecord]:
    """Return the teachers, all that is asked of them checked before long work.

    Raises:
        InputError: If a teacher has no model, or the baseline is none of them.
        MissingExtraError: If the extra `robustness` is not installed.
    """
    teachers = [_teacher(store, name) for name in teacher_ids]
    check_models(teachers)
    if what.baseline not in {"", ALEXNET, *teacher_ids}:
        raise InputError(
            f"the baseline is {what.baseline!r}; wanted {ALEXNET}, for images of ImageNet-1k, "
            f"or one of {', '.join(teacher_ids)}"
        )
    for perturbations in (what.corruptions, what.sequences):
        if perturbations is not None:
            perturbations.identity(perturbations.names[0])  # what makes or reads them is there
    return teachers


def _attack(
    store: Store,
    teachers: Sequence[TeacherRecord],
    attacks: Sequence[Attack],
    asked: Asked,
    teller: Teller,
) -> None:
    images = open_split(store, asked.split)
    classes = dict(zip(images.sample_ids.tolist(), images.class_ids.tolist(), strict=True))
    for teacher in teachers:
        bundle = load_teacher(store, teacher, device=asked.device)
        done = Attacks(attacks=attacks, bundle=bundle, classes=classes)
        label_perturbed(store, [teacher], done, asked, on_event=teller.tell)
        for name, count in done.without_gradient.items():
            if count:
                teller.say(
                    f"{count} images have no gradient for {teacher.teacher_id}: {name} does "
                    "nothing to them, which is no robustness"
                )


def _keep(store: Store, row: Mapping[str, Any], what: Robustness, baseline: str) -> None:
    name, split = row["teacher_id"], row["split"]
    values = {
        f"{split}_{key}": float(value)
        for key, value in row.items()
        if key not in {"teacher_id", "split", "num_perturbed", "clean_accuracy"}
    }
    asked, corruptions, sequences = what.asked, what.corruptions, what.sequences
    notes = {
        "split": split,
        "num_perturbed": row["num_perturbed"],
        "limit": asked.limit,
        "seed": asked.seed,
        "baseline": baseline,
        "corruptions": None if corruptions is None else list(corruptions.names),
        "severities": None if corruptions is None else list(corruptions.severities),
        "sequences": None if sequences is None else list(sequences.names),
        "num_frames": None if sequences is None else sequences.num_frames,
        "attacks": [vars(attack) for attack in what.attacks],
        "pins": store.versions(["images", "corrections", "perturbed_labels"]),
    }
    identity = value_hash({"teacher": name, **values, **notes})
    keep_metrics(store, name, values, identity, notes=notes)


def _teacher(store: Store, name: str) -> TeacherRecord:
    teacher = find_teacher(store, name)
    if teacher is None:
        raise InputError(f"{store.root} has no teacher {name!r}")
    return teacher
