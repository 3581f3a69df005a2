"""Which codec, with which settings; and the two functions that everyone calls."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Final, Literal, NamedTuple, Protocol, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from plstore.codec import dense, hard, topk
from plstore.codec.distribution import (
    CHUNK_ROWS,
    Floats,
    Ints,
    Top,
    check,
    entropy,
    largest,
)
from plstore.errors import InputError
from plstore.schema import LABEL_TYPE

CodecName = Literal["topk", "dense", "hard"]


class Coding(Protocol):
    """How a codec keeps a distribution: a module with these functions."""

    def kept(self, k: int, num_classes: int) -> int:
        """Return how many classes are kept with their probability."""

    def values(self, top: Top, num_classes: int) -> tuple[Floats, Floats]:
        """Return (probs, residual), float32 [rows, k] and [rows]."""

    def tail(self, rows: Floats, top: Top) -> pa.BinaryArray | None:
        """Return what is kept of all other classes, [rows]; None for nothing."""


CODECS: Final[dict[CodecName, Coding]] = {"topk": topk, "dense": dense, "hard": hard}
"""By name; `decode` reads what is there, whichever codec left it."""


@dataclass(frozen=True, kw_only=True)
class Codec:
    """How class distributions are kept.

    Attributes:
        name: `topk`, `dense` or `hard`.
        k: Classes kept with their probability, at least 1; more than there are keeps all.
        mass: For `topk`: keep only as many classes as hold this mass, 0 to 1, k at most.
    """

    name: CodecName = "topk"
    k: int = 20
    mass: float | None = None

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        if self.name not in get_args(CodecName):
            raise InputError(
                f"codec {self.name!r}; wanted one of {', '.join(get_args(CodecName))}"
            )
        if self.k < 1:
            raise InputError(f"k is {self.k}; wanted at least 1 class to keep")
        if self.mass is not None and not (self.name == "topk" and 0 < self.mass <= 1):
            raise InputError(
                f"codec {self.name!r} with mass {self.mass}; wanted topk, above 0 and up to 1"
            )

    def as_json(self) -> dict[str, object]:
        """Return the settings, for lineage."""
        return asdict(self)


class Coded(NamedTuple):
    """Distributions as the columns of `soft_labels`.

    Attributes:
        class_ids: int32 [rows], the argmax; the lowest class on a tie.
        confidence: float32 [rows], the exact maximum.
        entropy: float32 [rows], in nats.
        labels: `LABEL_TYPE` [rows].
    """

    class_ids: Ints
    confidence: Floats
    entropy: Floats
    labels: pa.StructArray


_DEFAULT = Codec()


def encode(probabilities: npt.NDArray[np.floating], codec: Codec = _DEFAULT) -> Coded:
    """Encode distributions.

    Args:
        probabilities: float [rows, classes], rows summing to 1 within 1e-3.
        codec: How.

    Raises:
        InputError: If a row is not a distribution.
    """
    rows = check(probabilities)
    num_classes = rows.shape[1]
    coding = CODECS[codec.name]
    k = coding.kept(codec.k, num_classes)
    scratch = np.empty((min(CHUNK_ROWS, len(rows)), num_classes), np.float32)
    tops, entropies, tails = [_empty(k)], [np.empty(0, np.float32)], []
    for start in range(0, len(rows), CHUNK_ROWS):
        chunk = rows[start : start + CHUNK_ROWS]
        top = largest(chunk, k)
        tops.append(top)
        entropies.append(entropy(chunk, scratch))
        if (tail := coding.tail(chunk, top)) is not None:
            tails.append(tail)
    top = Top(
        class_ids=np.concatenate([t.class_ids for t in tops]),
        probs=np.concatenate([t.probs for t in tops]),
        residual=np.concatenate([t.residual for t in tops]),
    )
    return Coded(
        class_ids=np.ascontiguousarray(top.class_ids[:, 0]),
        confidence=np.minimum(top.probs[:, 0], 1),  # a sum of 1 within 1e-3 may lead above it
        entropy=np.concatenate(entropies),
        labels=_labels(top, codec, num_classes, tails),
    )


def _empty(k: int) -> Top:
    return Top(
        class_ids=np.empty((0, k), np.int32),
        probs=np.empty((0, k), np.float32),
        residual=np.empty(0, np.float64),
    )


def _labels(
    top: Top, codec: Codec, num_classes: int, tails: list[pa.BinaryArray]
) -> pa.StructArray:
    num_rows, k = top.probs.shape
    probs, residual = CODECS[codec.name].values(top, num_classes)
    counts = np.full(num_rows, k, np.int64)
    class_ids = top.class_ids.reshape(-1)
    if codec.mass is not None:
        counts = topk.adaptive_counts(top, codec.mass)
        kept = np.arange(k) < counts[:, None]
        class_ids = top.class_ids[kept]
        below = np.where(kept, 0, top.probs).sum(axis=1, dtype=np.float64)
        residual = (top.residual + below).astype(np.float32)
        probs[:, 0] = _above_tail(probs[:, 0], residual, counts, num_classes)
        probs = probs[kept]
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    tail = pa.concat_arrays(tails) if tails else pa.nulls(num_rows, pa.binary())
    return pa.StructArray.from_arrays(
        [
            pa.ListArray.from_arrays(offsets, pa.array(class_ids)),
            pa.ListArray.from_arrays(offsets, pa.array(probs.reshape(-1))),
            pa.array(residual),
            tail,
        ],
        fields=list(LABEL_TYPE),
    )


def _above_tail(
    first: Floats, residual: Floats, counts: npt.NDArray[np.int64], num_classes: int
) -> Floats:
    """Return the first probabilities, above the even share of those not kept."""
    share = residual / np.maximum(num_classes - counts, 1)
    leads = first > share * np.float32(1 + 2**-11)
    return np.where(leads, first, share * np.float32(1 + 2**-9))


def decode(labels: pa.StructArray, num_classes: int, out: Floats | None = None) -> Floats:
    """Decode `LABEL_TYPE` to float32 [rows, num_classes], each row summing to 1 within 1e-6.

    The argmax of every row is its first stored class. Null labels decode to zeros.

    Args:
        labels: Of any codec, also mixed.
        num_classes: Of the store.
        out: Float32 [rows, num_classes] to fill; a new array unless given.

    Raises:
        InputError: If labels are not of this number of classes.
    """
    if out is None:
        out = np.empty((len(labels), num_classes), np.float32)
    for start in range(0, len(labels), CHUNK_ROWS):
        _decode_chunk(labels.slice(start, CHUNK_ROWS), out[start : start + CHUNK_ROWS])
    return out


def _check_classes(ids: npt.NDArray[np.int32], num_classes: int) -> None:
    if len(ids) and not 0 <= ids.min() <= ids.max() < num_classes:
        raise InputError(
            f"labels hold classes {ids.min()} to {ids.max()}; wanted 0 to {num_classes - 1}"
        )


def _decode_chunk(labels: pa.StructArray, out: Floats) -> None:
    class_ids, probs, residual, tail = labels.flatten()
    counts = class_ids.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    flat_ids, flat_probs = class_ids.flatten(), probs.flatten()
    _check_lists(flat_ids, flat_probs)
    ids = flat_ids.to_numpy(zero_copy_only=False)
    _check_classes(ids, out.shape[1])
    values = flat_probs.to_numpy(zero_copy_only=False)
    rests = residual.fill_null(0).to_numpy(zero_copy_only=False)
    has_tail = tail.is_valid().to_numpy(zero_copy_only=False)
    starts = np.cumsum(counts) - counts
    for rows, k, dense_rows in _alike(counts, has_tail):
        if k == 0:
            out[rows] = 0
            continue
        whole = len(rows) == len(out)
        places = slice(None) if whole else (starts[rows, None] + np.arange(k)).reshape(-1)
        these_ids, these_probs = ids[places].reshape(-1, k), values[places].reshape(-1, k)
        part = out if whole else np.empty((len(rows), out.shape[1]), np.float32)
        if dense_rows:
            codes = tail if whole else tail.take(pa.array(rows))
            dense.decode_into(part, these_ids, these_probs, rests[rows], _bytes(codes))
        else:
            topk.decode_into(part, these_ids, these_probs, rests[rows])
        if not whole:
            out[rows] = part


def _check_lists(ids: pa.Array, values: pa.Array) -> None:
    """Refuse labels whose classes and probabilities are not one beside the other."""
    if ids.null_count or values.null_count:
        raise InputError("labels hold a class or a probability that is null: damaged labels")
    if len(ids) != len(values):
        raise InputError(
            f"labels hold {len(ids)} classes and {len(values)} probabilities: damaged labels"
        )


def _alike(
    counts: npt.NDArray[np.int64], has_tail: npt.NDArray[np.bool_]
) -> Iterator[tuple[npt.NDArray[np.intp], int, bool]]:
    """Yield rows that keep the same number of classes in the same codec."""
    kinds = counts * 2 + has_tail
    if (kinds == kinds[0]).all():
        yield np.arange(len(kinds)), int(counts[0]), bool(has_tail[0])
        return
    for kind in np.unique(kinds):
        yield np.flatnonzero(kinds == kind), int(kind) // 2, bool(kind % 2)


def _bytes(tail: pa.BinaryArray) -> npt.NDArray[np.uint8]:
    offsets = np.frombuffer(tail.buffers()[1], np.int32)[tail.offset :][: len(tail) + 1]
    widths = np.diff(offsets)
    if (widths != widths[0]).any():
        raise InputError("coded tails of one store differ in length: damaged labels")
    data = np.frombuffer(tail.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    return data.reshape(len(tail), widths[0])
