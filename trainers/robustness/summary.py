"""What labels of images that were made worse amount to: errors, flips and distances.

All is read from labels that are kept, so it is made again at any time with no image looked at.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from plstore.labels import TeacherRecord
from plstore.loaders import open_split
from plstore.query import connect, run_query
from plstore.store import Store
from trainers.robustness.attacks import Attack
from trainers.robustness.frames import distances
from trainers.robustness.kinds import Corruptions, Sequences
from trainers.robustness.labeling import Asked
from trainers.robustness.metrics import (
    mce,
    mean_corruption_error,
    mfr,
    mt5d,
    relative_mce,
)
from trainers.robustness.official import CorruptedFiles, SequenceFiles
from trainers.robustness.published import (
    ALEXNET_ERRORS,
    ALEXNET_FLIP_PROBABILITIES,
    ALEXNET_TOP5_DISTANCES,
    CORRUPTIONS,
    PERTURBATIONS,
    SEVERITIES,
)

_WHOLE: Final = 1e-3
ALEXNET: Final = "alexnet"
"""The baseline of the published figures: for ImageNet-1k alone."""


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """What is done to the images of a split.

    Attributes:
        asked: Which images; their device may be "auto".
        corruptions: Made, or the files of ImageNet-C; None for none.
        sequences: Made, or the files of ImageNet-P; None for none.
        attacks: None if empty.
        baseline: The teacher whose errors others are divided by, or "alexnet"; the first unless
            given.
    """

    asked: Asked = field(default_factory=Asked)
    corruptions: Corruptions | CorruptedFiles | None = None
    sequences: Sequences | SequenceFiles | None = None
    attacks: Sequence[Attack] = ()
    baseline: str = ""

    @property
    def is_mce(self) -> bool:
        """Whether mCE is known: of all 15, and over AlexNet of all severities."""
        asked = self.corruptions
        if asked is None or not set(CORRUPTIONS) <= set(asked.names):
            return False
        return self.baseline != ALEXNET or set(asked.severities) == set(SEVERITIES)

    @property
    def is_mfr(self) -> bool:
        """Whether mFR is known: of all ten, and over AlexNet of the published length."""
        asked = self.sequences
        if asked is None or not set(PERTURBATIONS) <= set(asked.names):
            return False
        return self.baseline != ALEXNET or asked.num_frames is None


def summary(
    store: Store, teachers: Sequence[TeacherRecord], what: Robustness, asked: Asked
) -> list[dict[str, Any]]:
    """Return a row for each teacher: what `robustness` returns."""
    names = [teacher.teacher_id for teacher in teachers]
    baseline = what.baseline or names[0]
    rows: dict[str, dict[str, Any]] = {
        name: {"teacher_id": name, "split": asked.split} for name in names
    }
    images = open_split(store, asked.split)
    chosen = images.sample_ids[asked.rows(images)]
    for files in (what.corruptions, what.sequences):
        if isinstance(files, CorruptedFiles | SequenceFiles):
            chosen = np.intersect1d(chosen, _made_worse(store, names[0], asked.split, files))
    for name, found in _clean(store, teachers, asked, chosen.tolist()).items():
        rows[name].update(num_perturbed=len(chosen), clean_accuracy=found)
    if what.corruptions is not None:
        errors = _errors(store, asked, what.corruptions)
        for name in names:
            rows[name].update(_of_corruptions(errors, name, baseline, is_mce=what.is_mce))
            if "mCE" in rows[name]:
                rows[name].update(_relative(errors, rows, name, baseline))
    if what.sequences is not None:
        flips = _flips(store, asked, what.sequences)
        moved = {n: distances(store, n, asked.split, what.sequences.names) for n in names}
        for name in names:
            rows[name].update(_of_sequences(flips, name, baseline, is_mfr=what.is_mfr))
            rows[name].update(_of_distances(moved, name, baseline, is_mfr=what.is_mfr))
    for name in names:
        rows[name].update(_of_attacks(store, asked, name, what.attacks))
    return list(rows.values())


def _made_worse(
    store: Store, teacher_id: str, split: str, files: CorruptedFiles | SequenceFiles
) -> npt.NDArray[np.int64]:
    """Return the images that have labels of all files."""
    sql = """
        select sample_id
        from perturbed($split, $kind)
        where teacher_id = $teacher and list_contains($names::varchar[], perturbation)
        group by sample_id
        having count(distinct perturbation) = len($names::varchar[])
        order by sample_id
    """
    values = {
        "split": split,
        "kind": files.kind,
        "teacher": teacher_id,
        "names": [*files.names],
    }
    with connect(store) as connection:
        return np.array([i for (i,) in connection.execute(sql, values).fetchall()], np.int64)


def _clean(
    store: Store, teachers: Sequence[TeacherRecord], asked: Asked, ids: list[int]
) -> Mapping[str, float]:
    """Return percent of the clean images, by teacher: of those that are made worse alone."""
    sql = """
        select teacher_id, iteration, 100 * avg((class_id = true_id)::integer) as accuracy
        from evaluated($split, '')
        where sample_id in (select unnest($ids::bigint[]))
        group by teacher_id, iteration
    """
    with connect(store) as connection:
        rows = connection.execute(sql, {"split": asked.split, "ids": ids}).fetchall()
    found = {(name, iteration): accuracy for name, iteration, accuracy in rows}
    return {t.teacher_id: found[t.teacher_id, t.iteration + 1] for t in teachers}


def _errors(
    store: Store, asked: Asked, corruptions: Corruptions | CorruptedFiles
) -> dict[str, dict[str, float]]:
    """Return mean error, a share, by teacher and corruption."""
    table = run_query(store, "evaluation/perturbed_accuracy", split=asked.split)
    found: dict[str, dict[str, list[float]]] = {}
    for row in table.to_pylist():
        if row["perturbation"] in corruptions.names:
            of = found.setdefault(row["teacher_id"], {})
            of.setdefault(row["perturbation"], []).append(1 - row["accuracy"])
    return {
        name: {kind: float(np.mean(values)) for kind, values in of.items()}
        for name, of in found.items()
    }


def _of_corruptions(
    errors: Mapping[str, Mapping[str, float]], name: str, baseline: str, *, is_mce: bool
) -> dict[str, float]:
    own = errors[name]
    found = {"corrupted_accuracy": 100 * (1 - float(np.mean(list(own.values()))))}
    base = ALEXNET_ERRORS if baseline == ALEXNET else errors[baseline]
    if set(CORRUPTIONS) <= set(own):
        found["mean_corruption_error"] = 100 * mean_corruption_error(own)
    if is_mce and all(base[kind] for kind in CORRUPTIONS):
        found["mCE"] = mce(own, base)
    return found


def _relative(
    errors: Mapping[str, Mapping[str, float]],
    rows: Mapping[str, Mapping[str, Any]],
    name: str,
    baseline: str,
) -> dict[str, float]:
    """Return relative mCE, where the baseline loses something by every corruption."""
    clean = 1 - rows[name]["clean_accuracy"] / 100
    if baseline == ALEXNET:
        return {"relative_mCE": relative_mce(errors[name], clean)}
    base_clean = 1 - rows[baseline]["clean_accuracy"] / 100
    if any(errors[baseline][kind] <= base_clean for kind in CORRUPTIONS):
        return {}
    return {"relative_mCE": relative_mce(errors[name], clean, errors[baseline], base_clean)}


def _flips(
    store: Store, asked: Asked, sequences: Sequences | SequenceFiles
) -> dict[str, dict[str, float]]:
    """Return flip probability, a share, by teacher and perturbation."""
    table = run_query(store, "evaluation/flip_probabilities", split=asked.split)
    found: dict[str, dict[str, float]] = {}
    for row in table.to_pylist():
        if row["perturbation"] in sequences.names:
            found.setdefault(row["teacher_id"], {})[row["perturbation"]] = row[
                "flip_probability"
            ]
    return found


def _of_sequences(
    flips: Mapping[str, Mapping[str, float]], name: str, baseline: str, *, is_mfr: bool
) -> dict[str, float]:
    own = flips[name]
    found = {"flip_probability": 100 * float(np.mean(list(own.values())))}
    base = ALEXNET_FLIP_PROBABILITIES if baseline == ALEXNET else flips[baseline]
    if is_mfr and all(base[kind] for kind in PERTURBATIONS):
        found["mFR"] = mfr(own, base)
    return found


def _of_distances(
    moved: Mapping[str, Mapping[str, float]], name: str, baseline: str, *, is_mfr: bool
) -> dict[str, float]:
    own = moved[name]
    found = {"top5_distance": float(np.mean(list(own.values())))}
    base = ALEXNET_TOP5_DISTANCES if baseline == ALEXNET else moved[baseline]
    if is_mfr and all(base[kind] for kind in PERTURBATIONS):
        found["mT5D"] = mt5d(own, base)
    return found


def _of_attacks(
    store: Store, asked: Asked, name: str, attacks: Sequence[Attack]
) -> Iterator[tuple[str, float]]:
    if not attacks:
        return
    table = run_query(store, "evaluation/perturbed_accuracy", split=asked.split, kind="attack")
    wanted = {f"{attack.kind}_{attack.norm}" for attack in attacks}
    for row in table.to_pylist():
        if row["teacher_id"] == name and row["perturbation"] in wanted:
            yield f"{row['perturbation']} {_radius(row['level'])}", 100 * row["accuracy"]


def _radius(epsilon: float) -> str:
    """Return an epsilon as people write it: of pixels, in 255ths where it is a whole number."""
    steps = round(255 * epsilon)
    return f"{steps}/255" if abs(255 * epsilon - steps) < _WHOLE else f"{epsilon:.4g}"
