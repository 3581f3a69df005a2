"""Where the classes of a selection are cut: two passes over counts, never a sort of all rows.

A histogram of confidence by class says in which bucket each quota is met (the idea of the
official code's `filter_unlabel.py`, which stops there). One pass then reads the rows of that
bucket alone, to find the very last image that is kept. What comes out is a few numbers a class;
with them, every row of every engine is decided alone, in any order, in no memory.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from plstore.errors import StoreError
from plstore.query.balance import Balance, Counts
from plstore.query.macros import DRAWS
from plstore.store import HISTOGRAM, NUM_BUCKETS

_NOTHING: Final = np.float32(2)  # no confidence is above it
_SPREAD = 5  # standard deviations: the last draw is that near to where it is expected
_REFERENCE_WIDTH = 10  # buckets of 0.001 in a bin of the official code
_MOST_COPIES = 2**31 - 1
_BLOCK = 128  # classes whose histograms are cut at once

_COUNTED = """
select class_id, count(*) as kept, sum(copies) as draws
from ({decisions}) as decided
group by class_id
"""

LIMITS: Final = pa.schema(
    [
        pa.field("class_id", pa.int32()),
        pa.field("copies", pa.int32()),
        pa.field("min_confidence", pa.float32()),
        pa.field("last_id", pa.int64()),
        pa.field("draw_limit", pa.int64()),
        pa.field("draw_last_id", pa.int64()),
    ]
)
"""Of each class that keeps an image. Kept is what is above `min_confidence`, or at it with a
sample id up to `last_id`; it has one copy more where its draw is below `draw_limit`, or at it
with a sample id up to `draw_last_id`."""


class Engine(Protocol):
    """What runs the steps of a selection over the relation `candidates`."""

    def rows(
        self, sql: str, parameters: Mapping[str, Any], tables: Mapping[str, pa.Table]
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a query over `candidates` and some small tables."""
        ...


@dataclass(frozen=True)
class Cuts:
    """A selection, decided.

    Attributes:
        limits: `LIMITS`: what each row is decided by.
        num_labels: Labels by class, int64 [classes].
        num_candidates: Of those, above the floor.
        quotas: Wanted.
        kept: Images that are kept.
        draws: Sum of their copies.
        seed: Of the draws.
    """

    limits: pa.Table
    num_labels: Counts
    num_candidates: Counts
    quotas: Counts
    kept: Counts
    draws: Counts
    seed: int

    def decisions(self, engine: Engine, *, in_order: bool = False) -> Iterator[pa.RecordBatch]:
        """Yield the candidates that are kept, with `copies`; by sample id where that is asked.

        In no order, memory does not grow with the candidates.
        """
        if not self.limits.num_rows:
            return
        sql = step("decisions") + ("order by sample_id asc\n" if in_order else "")
        parameters = _decision_parameters(self.limits, self.seed)
        yield from engine.rows(sql, parameters, {"limits": self.limits})


@cache
def step(name: str) -> str:
    """Return the SQL of a step."""
    return (Path(__file__).parent / "steps" / f"{name}.sql").read_text()


def edge(bucket: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Return the lower edge of a bucket, as labels are compared with it."""
    return (np.asarray(bucket, np.float64) / NUM_BUCKETS).astype(np.float32)


def floor_bucket(min_confidence: float) -> int | None:
    """Return the first bucket above a floor, or None if the floor is inside of one."""
    bucket = round(min_confidence * NUM_BUCKETS)
    return bucket if edge(bucket) == np.float32(min_confidence) else None


def find_cuts(
    engine: Engine,
    balance: Balance,
    quotas_of: Callable[[Counts], Counts],
    *,
    num_classes: int,
    histogram: pa.Table | None = None,
) -> Cuts:
    """Decide a selection.

    Args:
        engine: Over the candidates.
        balance: Floor and policy.
        quotas_of: K by class, from the number of candidates by class.
        num_classes: Of the store.
        histogram: `HISTOGRAM` of the candidates where it is known; else they are counted.
    """
    if histogram is None:
        histogram = _table(engine.rows(step("histogram"), {}, {}), HISTOGRAM)
    above = _above_floor(engine, histogram, balance.min_confidence)
    num_labels = _by_class(histogram, num_classes)
    num_candidates = _by_class(above, num_classes)
    quotas = quotas_of(num_candidates)
    limits = _Limits(above, quotas, num_candidates, balance)
    if balance.policy != "reference":
        limits.refine(engine)
    found = limits.as_table()
    if balance.policy == "reference":
        kept, draws = _counted(engine, found, balance.seed, num_classes)
    else:
        kept = np.minimum(num_candidates, quotas)
        draws = np.where(kept > 0, quotas, 0) if balance.policy == "exact" else kept
    return Cuts(found, num_labels, num_candidates, quotas, kept, draws, balance.seed)


def _above_floor(engine: Engine, histogram: pa.Table, min_confidence: float) -> pa.Table:
    first = floor_bucket(min_confidence)
    if first is not None:
        return histogram.filter(pc.greater_equal(histogram["bucket"], first))
    inside = int(np.searchsorted(edge(np.arange(NUM_BUCKETS + 1)), np.float32(min_confidence)))
    parameters = {
        "bucket": inside - 1,
        "min_confidence": min_confidence,
        "edge": float(edge(inside)),
    }
    partial = _table(engine.rows(step("above_floor"), parameters, {}), HISTOGRAM)
    whole = histogram.filter(pc.greater_equal(histogram["bucket"], inside))
    return pa.concat_tables([whole, partial])


def _by_class(histogram: pa.Table, num_classes: int) -> Counts:
    ids, counts = histogram["class_id"].to_numpy(), histogram["num_labels"].to_numpy()
    if len(ids) and not (ids.min() >= 0 and ids.max() < num_classes):
        raise StoreError(
            f"labels of classes {ids.min()} to {ids.max()} in a store of {num_classes}; "
            "'plstore verify' tells which"
        )
    return np.bincount(ids, weights=counts, minlength=num_classes).astype(np.int64)


def _cuts(histogram: pa.Table, quotas: Counts, *, width: int) -> dict[str, Counts]:
    """Return where each class is cut: the highest bin that fills its quota with those above.

    Args:
        histogram: Of the candidates.
        quotas: By class.
        width: Of a bin, in buckets.

    Returns:
        By class, int64 [classes]: `bucket`, the first of the cut bin, -1 where all candidates
        do not fill the quota; `above`, candidates above that bin; `inside`, those in it.
    """
    classes = histogram["class_id"].to_numpy()
    if (np.diff(classes) < 0).any():
        histogram = histogram.sort_by("class_id")
        classes = histogram["class_id"].to_numpy()
    bins, counts = histogram["bucket"].to_numpy() // width, histogram["num_labels"].to_numpy()
    size = NUM_BUCKETS // width
    result = {name: np.zeros(len(quotas), np.int64) for name in ("bucket", "above", "inside")}
    for first in range(0, len(quotas), _BLOCK):
        block = slice(first, min(first + _BLOCK, len(quotas)))
        rows = slice(*np.searchsorted(classes, [block.start, block.stop]).tolist())
        shape = (block.stop - first, size)
        cells = (classes[rows] - first) * size + (size - 1 - bins[rows])
        sums = np.bincount(cells, weights=counts[rows], minlength=shape[0] * size)
        sums = sums.astype(np.int64).reshape(shape)  # of each class the highest bin first
        running = sums.cumsum(axis=1)
        enough = running >= quotas[block, None]
        at = enough.argmax(axis=1)[:, None]
        result["bucket"][block] = np.where(
            enough.any(axis=1), (size - 1 - at[:, 0]) * width, -1
        )
        result["inside"][block] = np.take_along_axis(sums, at, axis=1)[:, 0]
        result["above"][block] = np.take_along_axis(running - sums, at, axis=1)[:, 0]
    return result


class _Limits:
    """The numbers of each class while they are found."""

    def __init__(self, histogram: pa.Table, quota: Counts, n: Counts, balance: Balance) -> None:
        width = _REFERENCE_WIDTH if balance.policy == "reference" else 1
        cuts = _cuts(histogram, quota, width=width)
        floor = np.float32(balance.min_confidence)
        self._seed = balance.seed
        self._is_cut = (cuts["bucket"] >= 0) & (quota > 0)
        self._n = n
        self._inside = cuts["inside"]
        self._need = np.where(self._is_cut, quota - cuts["above"], 0)
        lower = np.where(self._is_cut, np.maximum(edge(cuts["bucket"]), floor), floor)
        self._up_to = np.where(self._is_cut, edge(cuts["bucket"] + 1), floor)
        self.min_confidence = np.where((n > 0) & (quota > 0), lower, _NOTHING)
        self.last_id, self.draw_limit, self.draw_last_id = (np.full(len(n), -1) for _ in "abc")
        self.copies = np.ones(len(n), np.int64)
        self._remainder = np.zeros(len(n), np.int64)
        if balance.policy in {"exact", "reference"}:
            met = quota if balance.policy == "exact" else cuts["above"] + cuts["inside"]
            rows = np.maximum(np.where(self._is_cut, met, n), 1)
            self.copies, self._remainder = np.divmod(np.where(n > 0, quota, 0), rows)
            if balance.policy == "reference":
                draws = (self._remainder / rows * DRAWS).astype(np.int64)
                self.draw_limit = np.where(draws > 0, draws, -1)
        if self.copies.max(initial=0) > _MOST_COPIES:
            raise StoreError(
                f"a quota of {quota.max()} asks for {self.copies.max()} copies of one image; "
                f"at most {_MOST_COPIES} fit. Lower the quota"
            )

    def refine(self, engine: Engine) -> None:
        """Find the very last image above each cut, and the last draw of each remainder."""
        # A bucket that is needed whole is above its lower edge: nothing to look for.
        cut = self._is_cut & (self._need < self._inside)
        drawn = self._remainder > 0
        low, high = self._expected_draws(drawn)
        rows, winners = self._boundary(engine, cut, low, high)
        missed = drawn & ~self._are_near(rows, winners)
        if missed.any():  # in one selection of thousands: then all of their draws are looked at
            low[missed], high[missed] = 0, DRAWS
            rows, winners = self._boundary(engine, cut, low, high)
        need = np.where(drawn, self._remainder - winners, self._need)
        self._take(rows, np.where(cut | drawn, need, 0), drawn, low)

    def _are_near(self, rows: pa.Table, winners: Counts) -> npt.NDArray[np.bool_]:
        """Return whether each class's last draw is among these rows."""
        near = np.bincount(rows["class_id"].to_numpy(), minlength=len(winners))
        need = self._remainder - winners
        return np.asarray((need >= 0) & (need <= near))

    def _expected_draws(self, drawn: npt.NDArray[np.bool_]) -> tuple[Counts, Counts]:
        n = np.maximum(self._n, 1)
        share = self._remainder / n
        spread = (_SPREAD * np.sqrt(n * share * (1 - share)) + _SPREAD) / n
        low = np.floor((share - spread) * DRAWS).clip(0, DRAWS).astype(np.int64)
        high = np.ceil((share + spread) * DRAWS).clip(0, DRAWS).astype(np.int64)
        return np.where(drawn, low, 0), np.where(drawn, high, -1)

    def _boundary(
        self, engine: Engine, cut: npt.NDArray[np.bool_], low: Counts, high: Counts
    ) -> tuple[pa.Table, Counts]:
        """Return the rows among which the last ones are, and how many draws are below."""
        winners = np.zeros(len(low), np.int64)
        schema = pa.schema(
            [("class_id", pa.int32()), ("sample_id", pa.int64()), ("confidence", pa.float32())]
        ).append(pa.field("draw", pa.int64()))
        asked = np.flatnonzero(cut | (high >= 0))
        if not len(asked):
            return schema.empty_table(), winners
        above = self.min_confidence[asked]
        bounds = pa.table(
            {
                "class_id": pa.array(asked.astype(np.int32)),
                "above": above,
                "up_to": np.where(cut[asked], self._up_to[asked], above),
                "draw_end": high[asked],
            }
        )
        parameters = {"seed": self._seed, "lowest": float(above.min())}
        parts = []
        for batch in engine.rows(step("boundary"), parameters, {"bounds": bounds}):
            ids, draws = batch["class_id"].to_numpy(), batch["draw"].to_numpy()
            won = (draws >= 0) & (draws < low[ids])
            winners += np.bincount(ids[won], minlength=len(low))
            parts.append(batch.filter(pa.array(~won)).cast(schema))
        return pa.Table.from_batches(parts, schema), winners

    def _take(
        self, rows: pa.Table, need: Counts, drawn: npt.NDArray[np.bool_], low: Counts
    ) -> None:
        """Take the row of each class that is the last of the wanted, in a total order."""
        ids, last = rows["class_id"].to_numpy(), rows["sample_id"].to_numpy()
        draws, confidence = rows["draw"].to_numpy(), rows["confidence"].to_numpy()
        by = np.where(draws < 0, -confidence.astype(np.float64), draws)
        order = np.lexsort((last, by, ids))
        starts = np.searchsorted(ids[order], np.arange(len(need)))
        self.draw_limit[drawn] = low[drawn]  # where all that are wanted are below it
        for class_id in np.flatnonzero(need > 0).tolist():
            row = order[starts[class_id] + need[class_id] - 1]
            if drawn[class_id]:
                self.draw_limit[class_id] = draws[row]
                self.draw_last_id[class_id] = last[row]
            else:
                self.min_confidence[class_id] = confidence[row]
                self.last_id[class_id] = last[row]

    def as_table(self) -> pa.Table:
        """Return `LIMITS`, classes that keep nothing left out."""
        keeps = np.flatnonzero(self.min_confidence < 1)
        columns = [
            keeps,
            self.copies[keeps],
            self.min_confidence[keeps],
            self.last_id[keeps],
            self.draw_limit[keeps],
            self.draw_last_id[keeps],
        ]
        arrays = [pa.array(c).cast(f.type) for c, f in zip(columns, LIMITS, strict=True)]
        return pa.Table.from_arrays(arrays, schema=LIMITS)


def _decision_parameters(limits: pa.Table, seed: int) -> dict[str, Any]:
    return {"seed": seed, "lowest": pc.min(limits["min_confidence"]).as_py()}


def _counted(
    engine: Engine, limits: pa.Table, seed: int, num_classes: int
) -> tuple[Counts, Counts]:
    kept, draws = np.zeros(num_classes, np.int64), np.zeros(num_classes, np.int64)
    if limits.num_rows:
        sql = _COUNTED.format(decisions=step("decisions"))
        parameters = _decision_parameters(limits, seed)
        for batch in engine.rows(sql, parameters, {"limits": limits}):
            ids = batch["class_id"].to_numpy()
            kept[ids] = batch["kept"].to_numpy()
            draws[ids] = batch["draws"].cast(pa.int64()).to_numpy()
    return kept, draws


def _table(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_batches([batch.cast(schema) for batch in batches], schema)
