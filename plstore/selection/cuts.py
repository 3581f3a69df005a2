"""Where the classes of a selection are cut: two passes over counts, never a sort of all rows.

A histogram of confidence by class says in which bucket each quota is met (the idea of the
official code's `filter_unlabel.py`, which stops there). One pass then reads the rows of that
bucket alone, to find the very last image that is kept. What comes out is a few numbers a class;
with them, every row of every engine is decided alone, in any order, in no memory.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from plstore.errors import StoreError
from plstore.labels import HISTOGRAM
from plstore.query import TICKETS
from plstore.selection.balance import Balance, Counts
from plstore.selection.counts import Engine, HistogramByClass, edge, step

_NOTHING: Final = np.float32(2)  # no confidence is above it
_SPREAD = 4.5  # standard deviations: the last ticket is that near to where it is expected
_REFERENCE_WIDTH = 10  # buckets of 0.001 in a bin of the official code
_SLACK = 4096  # rows
_MOST_COPIES = 2**31 - 1

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
        pa.field("ticket_limit", pa.int64()),
        pa.field("ticket_last_id", pa.int64()),
    ]
)
"""Of each class that keeps an image. Kept is what is above `min_confidence`, or at it with a
sample id up to `last_id`; it has one copy more where its ticket is below `ticket_limit`, or at
it with a sample id up to `ticket_last_id`."""


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


def find_cuts(
    engine: Engine,
    balance: Balance,
    quotas_of: Callable[[Counts], Counts],
    *,
    num_classes: int,
    counts: Callable[[], pa.Table] | None = None,
    only_counts: bool = False,
) -> Cuts:
    """Decide a selection.

    Args:
        engine: Over the candidates.
        balance: Floor and policy.
        quotas_of: K by class, from the number of candidates by class.
        num_classes: Of the store.
        counts: Returns the `HISTOGRAM` of the candidates where it is known; else they are
            counted.
        only_counts: Leave out what only single rows are decided by: limits are then those of
            whole buckets.
    """
    limits, num_labels = _whole_buckets(engine, balance, quotas_of, num_classes, counts)
    num_candidates, quotas = limits.num_candidates, limits.quotas
    if balance.policy == "reference":
        found = limits.as_table()
        kept, draws = _counted(engine, found, balance.seed, num_classes)
    else:
        if not only_counts:
            limits.refine(engine)
        found = limits.as_table()
        kept = np.minimum(num_candidates, quotas)
        draws = np.where(kept > 0, quotas, 0) if balance.policy == "exact" else kept
    return Cuts(found, num_labels, num_candidates, quotas, kept, draws, balance.seed)


def _whole_buckets(
    engine: Engine,
    balance: Balance,
    quotas_of: Callable[[Counts], Counts],
    num_classes: int,
    counts: Callable[[], pa.Table] | None,
) -> "tuple[_Limits, Counts]":
    """Return the limits that counts alone give, and labels by class; the counts are let go."""
    rows = (
        _table(engine.rows(step("histogram"), {}, {}), HISTOGRAM)
        if counts is None
        else counts()
    )
    counted = HistogramByClass(rows, num_classes)
    above = counted.above_floor(engine, balance.min_confidence)
    num_candidates = above.by_class()
    limits = _Limits(above, quotas_of(num_candidates), num_candidates, balance)
    num_labels = counted.by_class()
    del rows, counted, above
    pa.default_memory_pool().release_unused()
    return limits, num_labels


class _Boundary(NamedTuple):
    """Rows near a cut.

    Attributes:
        class_ids: int32 [rows].
        sample_ids: int64 [rows].
        confidence: float32 [rows].
        tickets: int32 [rows], -1 where the row is near a cut of confidence.
        num_rows: int64 [classes].
        winners: int64 [classes]: images with lower tickets, which are not among the rows.
    """

    class_ids: npt.NDArray[np.int32]
    sample_ids: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float32]
    tickets: npt.NDArray[np.int32]
    num_rows: Counts
    winners: Counts


class _Near:
    """Gathers a boundary, in no more memory than its rows take."""

    def __init__(self, low: Counts, high: Counts, expected: int) -> None:
        """Tickets below `low` and from `high` on are only counted; so many rows come."""
        self._low, self._high = low, high
        self._below, self._num_rows, self._beyond = (np.zeros_like(low) for _ in range(3))
        kinds = {"class_id": "i4", "sample_id": "i8", "confidence": "f4", "ticket": "i4"}
        self._columns: dict[str, Any] = {n: np.empty(expected, k) for n, k in kinds.items()}
        self._end = 0

    def add(self, rows: pa.RecordBatch) -> None:
        """Take the rows of a batch."""
        ids, tickets = rows["class_id"].to_numpy(), rows["ticket"].to_numpy()
        below = (tickets >= 0) & (tickets < self._low[ids])
        beyond = (tickets >= 0) & (tickets >= self._high[ids])
        near = np.flatnonzero(~(below | beyond))
        size = len(self._low)
        self._below += np.bincount(ids[below], minlength=size)
        self._beyond += np.bincount(ids[beyond], minlength=size)
        self._num_rows += np.bincount(ids[near], minlength=size)
        start, self._end = self._end, self._end + len(near)
        for name, column in self._columns.items():
            if self._end > len(column):
                column = np.resize(column, self._end * 5 // 4)  # noqa: PLW2901  it is kept
                self._columns[name] = column
            column[start : self._end] = rows[name].to_numpy()[near]

    def boundary(
        self, num_candidates: Counts, counts_beyond: npt.NDArray[np.bool_]
    ) -> _Boundary:
        """Return all rows, once; tickets below are those that are neither near nor beyond."""
        rest = num_candidates - self._num_rows - self._beyond
        winners = np.where(counts_beyond, rest, self._below)
        columns = (column[: self._end] for column in self._columns.values())
        class_ids, sample_ids, confidence, tickets = columns
        return _Boundary(class_ids, sample_ids, confidence, tickets, self._num_rows, winners)


class _Limits:
    """The numbers of each class while they are found."""

    def __init__(
        self, counted: HistogramByClass, quota: Counts, n: Counts, balance: Balance
    ) -> None:
        width = _REFERENCE_WIDTH if balance.policy == "reference" else 1
        cuts = counted.cuts(quota, width=width)
        floor = np.float32(balance.min_confidence)
        self._seed = balance.seed
        self._is_cut = (cuts["bucket"] >= 0) & (quota > 0)
        self.num_candidates, self.quotas = n, quota
        self._inside = cuts["inside"]
        self._need = np.where(self._is_cut, quota - cuts["above"], 0)
        lower = np.where(self._is_cut, np.maximum(edge(cuts["bucket"]), floor), floor)
        self._up_to = np.where(self._is_cut, edge(cuts["bucket"] + 1), floor)
        self.min_confidence = np.where((n > 0) & (quota > 0), lower, _NOTHING)
        self.last_id, self.ticket_limit, self.ticket_last_id = (
            np.full(len(n), -1) for _ in "abc"
        )
        self.copies = np.ones(len(n), np.int64)
        self._remainder = np.zeros(len(n), np.int64)
        if balance.policy in {"exact", "reference"}:
            met = quota if balance.policy == "exact" else cuts["above"] + cuts["inside"]
            rows = np.maximum(np.where(self._is_cut, met, n), 1)
            self.copies, self._remainder = np.divmod(np.where(n > 0, quota, 0), rows)
            if balance.policy == "reference":
                tickets = (self._remainder / rows * TICKETS).astype(np.int64)
                self.ticket_limit = np.where(tickets > 0, tickets, -1)
        if self.copies.max(initial=0) > _MOST_COPIES:
            raise StoreError(
                f"a quota of {quota.max()} asks for {self.copies.max()} copies of one image; "
                f"at most {_MOST_COPIES} fit. Lower the quota"
            )

    def refine(self, engine: Engine) -> None:
        """Find the very last image above each cut, and the last ticket of each remainder."""
        # A bucket that is needed whole is above its lower edge: nothing to look for.
        cut = self._is_cut & (self._need < self._inside)
        drawn = self._remainder > 0
        low, high = self._expected_tickets(drawn)
        near = self._boundary(engine, cut, low, high)
        need = self._remainder - near.winners
        missed = drawn & ((need < 0) | (need > near.num_rows))
        if (
            missed.any()
        ):  # in one selection of hundreds: then all of their tickets are looked at
            low[missed], high[missed] = 0, TICKETS
            near = self._boundary(engine, cut, low, high)
        wanted = np.where(drawn, self._remainder - near.winners, np.where(cut, self._need, 0))
        self.ticket_limit[drawn] = low[drawn]  # where all that are wanted are below it
        self._take(near, wanted, drawn)

    def _expected_tickets(self, drawn: npt.NDArray[np.bool_]) -> tuple[Counts, Counts]:
        n = np.maximum(self.num_candidates, 1)
        share = self._remainder / n
        spread = (_SPREAD * np.sqrt(n * share * (1 - share)) + _SPREAD) / n
        low = np.floor((share - spread) * TICKETS).clip(0, TICKETS).astype(np.int64)
        high = np.ceil((share + spread) * TICKETS).clip(0, TICKETS).astype(np.int64)
        return np.where(drawn, low, 0), np.where(drawn, high, -1)

    def _boundary(
        self, engine: Engine, cut: npt.NDArray[np.bool_], low: Counts, high: Counts
    ) -> _Boundary:
        """Return the rows among which the last ones are."""
        drawn = high >= 0
        share = np.where(drawn, (high - low) / TICKETS, 0)
        expected = self._inside[cut].sum() + (share * self.num_candidates).sum()
        near = _Near(low, high, int(expected * 1.01) + _SLACK)
        # Of the tickets below and beyond, the fewer are counted; the others are what is left.
        counts_beyond = drawn & (2 * self._remainder > self.num_candidates)
        asked = np.flatnonzero(cut | drawn)
        if not len(asked):
            return near.boundary(self.num_candidates, counts_beyond)
        above = self.min_confidence
        columns = {
            "class_id": np.arange(len(above), dtype=np.int32),
            "above": above,
            "up_to": np.where(cut, self._up_to, above),
            "ticket_from": np.where(counts_beyond, low, 0),
            "ticket_end": np.where(counts_beyond, TICKETS, high),
        }
        bounds = pa.table({name: values[asked] for name, values in columns.items()})
        parameters = {"seed": self._seed, "lowest": float(above[asked].min())}
        for batch in engine.rows(step("boundary"), parameters, {"bounds": bounds}):
            near.add(batch)
        return near.boundary(self.num_candidates, counts_beyond)

    def _take(self, rows: _Boundary, need: Counts, drawn: npt.NDArray[np.bool_]) -> None:
        """Take the row of each class that is the last of the wanted, in a total order."""
        by_class = np.argsort(rows.class_ids)
        ends = np.cumsum(rows.num_rows)
        starts = ends - rows.num_rows
        for class_id in np.flatnonzero(need > 0).tolist():
            here = by_class[starts[class_id] : ends[class_id]]
            is_drawn = bool(drawn[class_id])
            key = rows.tickets[here] if is_drawn else -rows.confidence[here]
            order = np.lexsort((rows.sample_ids[here], key))
            row = here[order[need[class_id] - 1]]
            if is_drawn:
                self.ticket_limit[class_id] = rows.tickets[row]
                self.ticket_last_id[class_id] = rows.sample_ids[row]
            else:
                self.min_confidence[class_id] = rows.confidence[row]
                self.last_id[class_id] = rows.sample_ids[row]

    def as_table(self) -> pa.Table:
        """Return `LIMITS`, classes that keep nothing left out."""
        keeps = np.flatnonzero(self.min_confidence < _NOTHING)
        columns = [
            keeps,
            self.copies[keeps],
            self.min_confidence[keeps],
            self.last_id[keeps],
            self.ticket_limit[keeps],
            self.ticket_last_id[keeps],
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
            kept[ids] += batch["kept"].to_numpy()
            draws[ids] += batch["draws"].cast(pa.int64()).to_numpy()
    return kept, draws


def _table(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_batches([batch.cast(schema) for batch in batches], schema)
