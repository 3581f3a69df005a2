"""A prototype: the top k exactly, the tail as int8 coordinates in a teacher's own subspace.

The basis is the principal subspace of centred log-probabilities of a sample. Kept here as what
was compared; `benchmarks/README.md` says why it is not a codec of plstore.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from plstore.codec import Codec, encode

Floats = npt.NDArray[np.float32]

_FLOOR = 1e-10
_SPAN = 4.0  # standard deviations that int8 covers


@dataclass(frozen=True)
class Basis:
    """Mean [classes], directions [classes, rank] and their standard deviations [rank]."""

    mean: Floats
    directions: Floats
    deviations: Floats


def fit_basis(probabilities: Floats, rank: int) -> Basis:
    """Fit the subspace on a sample of a teacher's distributions."""
    logs = _logs(probabilities)
    mean = logs.mean(axis=0)
    _, values, rows = np.linalg.svd(logs - mean, full_matrices=False)
    deviations = values[:rank] / np.sqrt(len(logs))
    return Basis(mean, rows[:rank].T.copy(), deviations.astype(np.float32))


def _logs(probabilities: Floats) -> Floats:
    logs = np.log(np.maximum(probabilities, _FLOOR))
    return np.asarray(logs - logs.mean(axis=1, keepdims=True), np.float32)


def subspace_columns(probabilities: Floats, basis: Basis, k: int) -> pa.Table:
    """Encode: the columns of `topk` and one BINARY of coordinates."""
    coordinates = (_logs(probabilities) - basis.mean) @ basis.directions
    codes = np.rint(coordinates / basis.deviations * (127 / _SPAN)).clip(-127, 127)
    class_ids, probs, residual, _ = encode(probabilities, Codec(k=k)).labels.flatten()
    packed = [row.tobytes() for row in codes.astype(np.int8)]
    columns = {
        "class_ids": class_ids,
        "probs": probs,
        "residual": residual,
        "coordinates": pa.array(packed, pa.binary()),
    }
    return pa.table(columns)


def decode_subspace(table: pa.Table, basis: Basis) -> Floats:
    """Decode to float32 [rows, classes] that sum to 1."""
    packed = b"".join(table["coordinates"].to_pylist())
    rank = basis.directions.shape[1]
    codes = np.frombuffer(packed, np.int8).reshape(-1, rank).astype(np.float32)
    logs = (codes * basis.deviations * (_SPAN / 127)) @ basis.directions.T + basis.mean
    tail = np.exp(logs - logs.max(axis=1, keepdims=True))
    ids = np.array(table["class_ids"].to_pylist())
    probs = np.array(table["probs"].to_pylist(), np.float32)
    np.put_along_axis(tail, ids, 0, axis=1)
    residual = table["residual"].to_numpy()[:, None]
    tail *= residual / np.maximum(tail.sum(axis=1, keepdims=True), _FLOOR)
    np.put_along_axis(tail, ids, probs, axis=1)
    return np.asarray(tail / tail.sum(axis=1, keepdims=True), np.float32)
