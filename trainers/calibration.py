"""The temperature that fits a teacher's confidence to how often it is right."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from scipy.optimize import minimize_scalar
from torchmetrics.functional.classification import multiclass_calibration_error

from plstore.codec import decode
from plstore.errors import InputError
from plstore.fingerprint import value_hash
from plstore.labels import LabelSet, at_temperature
from plstore.store import Store
from plstore.upkeep import corrected_labels

_BINS = 15
_BOUNDS = (np.log(0.05), np.log(20.0))
_FLOOR = 1e-12

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A temperature and what it is worth (Guo et al., ICML 2017, section 4.2).

    Attributes:
        temperature: Of the lowest negative log-likelihood on the validation images.
        nll_before: Mean, in nats, at temperature 1.
        nll_after: At the temperature.
        ece_before: Expected calibration error, 0 to 1, of 15 bins, at temperature 1.
        ece_after: At the temperature.
        num_images: Validation images that it rests on.
    """

    temperature: float
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    num_images: int


def calibrate(store: Store, teacher_id: str, iteration: int) -> Calibration:
    """Fit a teacher's temperature on its labels of the validation split; keep it in `runs`.

    Top-k labels know little of what a teacher thinks of unlikely classes: calibrate `dense`
    ones where the number of classes is large.

    Raises:
        InputError: If the teacher did not label the validation images.
    """
    probs, classes = _validation(store, teacher_id, iteration)

    def nll(log_temperature: float) -> float:
        scaled = at_temperature(probs, float(np.exp(log_temperature)))
        likelihood = scaled[np.arange(len(classes)), classes]
        return float(-np.log(np.maximum(likelihood, _FLOOR)).mean())

    found = minimize_scalar(nll, bounds=_BOUNDS, method="bounded", options={"xatol": 1e-4})
    temperature = float(np.exp(found.x))
    calibration = Calibration(
        temperature=temperature,
        nll_before=nll(0.0),
        nll_after=float(found.fun),
        ece_before=_ece(probs, classes),
        ece_after=_ece(at_temperature(probs, temperature), classes),
        num_images=len(classes),
    )
    _keep(store, teacher_id, iteration, calibration)
    return calibration


def _validation(
    store: Store, teacher_id: str, iteration: int
) -> tuple[Floats, npt.NDArray[np.int64]]:
    label_set = LabelSet(iteration=iteration, teacher_id=teacher_id, split="validation")
    pins = store.versions(["soft_labels", "images", "corrections"])
    table = store.table("soft_labels")
    shards = table.shards(pins["soft_labels"], partition=label_set.partition)
    if not shards:
        raise InputError(
            f"teacher {teacher_id!r} has no labels of the validation images in {store.root}; "
            "'plstore label' makes them"
        )
    labels = table.dataset_of(shards).to_table(columns=["sample_id", "label"])
    labels = labels.sort_by("sample_id")
    ids, truth = _truth(store, pins)
    _, at_labels, at_images = np.intersect1d(
        labels["sample_id"].to_numpy(), ids, return_indices=True
    )
    coded = labels["label"].combine_chunks().take(pa.array(at_labels))
    return decode(coded, len(store.class_names)), truth[at_images]


def _truth(
    store: Store, pins: Mapping[str, int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the validation images, in order, and their classes as people corrected them."""
    where = (pc.field("split") == "validation") & pc.field("label").is_valid()
    images = store.table("images").read(
        version=pins["images"], columns=["sample_id", "label"], where=where
    )
    images = images.sort_by("sample_id")
    corrected = corrected_labels(store, pins["corrections"])
    ids = images["sample_id"].to_pylist()
    known = zip(ids, images["label"].to_pylist(), strict=True)
    truth = [corrected.get(n, label) for n, label in known]
    return np.array(ids, np.int64), np.array(truth, np.int64)


def _ece(probs: Floats, classes: npt.NDArray[np.int64]) -> float:
    error = multiclass_calibration_error(
        torch.from_numpy(probs),
        torch.from_numpy(classes),
        num_classes=probs.shape[1],
        n_bins=_BINS,
        norm="l1",
    )
    return float(error)


def _keep(store: Store, teacher_id: str, iteration: int, calibration: Calibration) -> None:
    rows = [
        {"run": teacher_id, "step": iteration, "name": f"calibration/{name}", "value": float(v)}
        for name, v in asdict(calibration).items()
    ]
    what = {"teacher": teacher_id, "iteration": iteration, "values": asdict(calibration)}
    identity = value_hash(what)
    store.append("runs", rows, identity=f"calibration-{identity}", step="calibrate")
