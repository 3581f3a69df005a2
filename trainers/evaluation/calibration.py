"""The temperature that fits a teacher's confidence to how often it is right."""

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize_scalar
from torchmetrics.functional.classification import multiclass_calibration_error

from plstore.fingerprint import value_hash
from plstore.labels import at_temperature, read_validation
from plstore.store import Store

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
    validation = read_validation(store, [(teacher_id, iteration)])
    (probs,), classes = validation.distributions, validation.classes

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
