"""What was seen of files, as columns: of Arrow, and of rows for people and programs."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from plstore.errors import InputError
from plstore.exchange import PREDICTIONS_KEY
from plstore.schema import ACCEPTED

Floats = npt.NDArray[np.float32]
Row = dict[str, Any]

PATH: Final = "path"
CLASS: Final = "class"
CONFIDENCE: Final = "confidence"
VERDICT: Final = "verdict"
_PROBABILITIES: Final = "probabilities"
_EMBEDDING: Final = "embedding"
_DIGITS: Final = 6


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was seen of some files.

    Attributes:
        names: Of the files.
        verdicts: Of each, "accepted" or why there is no class.
        probs: float32 [accepted, classes], in their order.
        embeddings: float32 [accepted, features]; of no features unless asked for.
    """

    names: list[str]
    verdicts: list[str]
    probs: Floats
    embeddings: Floats


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What a row holds.

    Attributes:
        class_names: Of the probabilities.
        top_k: How many of the most probable classes have columns of their own; 0 for none.
        with_probabilities: Whether all have.
        with_embeddings: Whether there are embeddings.
    """

    class_names: tuple[str, ...]
    top_k: int = 0
    with_probabilities: bool = False
    with_embeddings: bool = False

    def __post_init__(self) -> None:
        """Check the number of classes.

        Raises:
            InputError: If there are not so many.
        """
        if self.top_k > len(self.class_names):
            raise InputError(
                f"top_k is {self.top_k}; wanted at most {len(self.class_names)}, the classes "
                "of the model"
            )

    @property
    def schema(self) -> pa.Schema:
        """Of Arrow and Parquet: probabilities and embeddings are lists of floats.

        The metadata holds the names of the classes in the order of `probabilities`, by which
        `plstore import predictions` matches them.
        """
        fields = [(PATH, pa.string()), (CLASS, pa.string()), (CONFIDENCE, pa.float32())]
        fields.append((VERDICT, pa.string()))
        for class_, confidence in self._top:
            fields += [(class_, pa.string()), (confidence, pa.float32())]
        if self.with_probabilities:
            fields.append((_PROBABILITIES, pa.list_(pa.float32())))
        if self.with_embeddings:
            fields.append((_EMBEDDING, pa.list_(pa.float32())))
        about = json.dumps({"class_names": list(self.class_names)})
        return pa.schema(fields, {PREDICTIONS_KEY: about.encode()})

    @property
    def names(self) -> list[str]:
        """Of rows: every class has a column `prob_CLASS` where probabilities are wanted."""
        names = [PATH, CLASS, CONFIDENCE, VERDICT, *(n for pair in self._top for n in pair)]
        if self.with_probabilities:
            names += [f"prob_{name}" for name in self.class_names]
        return [*names, _EMBEDDING] if self.with_embeddings else names

    @property
    def _top(self) -> list[tuple[str, str]]:
        # Not class_1: where classes are numbers, that would be a column of class 1.
        ranks = range(1, self.top_k + 1)
        return [(f"top{rank}_{CLASS}", f"top{rank}_{CONFIDENCE}") for rank in ranks]

    def batch(self, seen: Seen) -> pa.RecordBatch:
        """Return what was seen as a batch of `schema`; what a refused file lacks is null."""
        accepted = np.array([verdict == ACCEPTED for verdict in seen.verdicts], bool)
        places = np.where(accepted, np.cumsum(accepted) - 1, 0)
        rows = pa.array(places, mask=~accepted)
        order = np.argsort(-seen.probs, axis=1, kind="stable")[:, : max(self.top_k, 1)]
        best = np.take_along_axis(seen.probs, order, axis=1)
        names = pa.array(self.class_names, pa.string())
        classes = [names.take(pa.array(ids)).take(rows) for ids in order.T]
        values = [pa.array(column).take(rows) for column in best.T]
        columns = [seen.names, classes[0], values[0], seen.verdicts]
        for class_, value in list(zip(classes, values, strict=True))[: self.top_k]:
            columns += [class_, value]
        if self.with_probabilities:
            columns.append(_lists(seen.probs, accepted))
        if self.with_embeddings:
            columns.append(_lists(seen.embeddings, accepted))
        pairs = zip(columns, self.schema, strict=True)
        arrays = [c if isinstance(c, pa.Array) else pa.array(c, f.type) for c, f in pairs]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def rows(self, batch: pa.RecordBatch) -> Iterator[Row]:
        """Yield rows with the columns `names`: numbers of 6 digits, embeddings as lists."""
        nothing = dict.fromkeys(self.names)
        for found in batch.to_pylist():
            row: Row = dict(nothing)
            probs = found.pop(_PROBABILITIES, None) or []
            for name, value in zip(self.class_names, probs, strict=False):
                row[f"prob_{name}"] = _short(value)
            for name, value in found.items():
                row[name] = _rounded(value)
            yield row


def _lists(values: Floats, accepted: npt.NDArray[np.bool_]) -> pa.ListArray:
    """Return one list a file, null where it was refused."""
    lengths = np.where(accepted, values.shape[1], 0)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pa.ListArray.from_arrays(
        offsets, pa.array(values.reshape(-1)), mask=pa.array(~accepted)
    )


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, list):
        return [_short(number) for number in value]
    return value


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
