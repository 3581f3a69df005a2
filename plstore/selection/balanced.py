"""A selection by floor and quota: of the labels of one teacher, or of several by a rule."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, Protocol

import duckdb

from plstore.errors import InputError
from plstore.selection.choice import Choice, Rows, as_many, by_class
from plstore.selection.counts import Engine, step
from plstore.selection.cuts import Cuts, find_cuts
from plstore.selection.engine import (
    DuckDBEngine,
    scratch_connection,
    scratch_files,
    scratch_folder,
)
from plstore.selection.pool import Pool, pool_of_labels
from plstore.selection.rules import Teacher, find_teachers, pool_of_rule
from plstore.selection.selection import EngineName, Selection
from plstore.selection.standing import Standing, find_standing
from plstore.store import Store

_FILES_IN_ORDER = 16  # a million labels: sorted in memory


def choose_balanced(
    store: Store,
    selection: Selection,
    pins: Mapping[str, int],
    stack: ExitStack,
    *,
    only_counts: bool,
) -> Choice:
    """Choose by floor and quota from the labels of a teacher, or of several by a rule."""
    standing = find_standing(store, pins, held_out=selection.held_out)
    teachers = find_teachers(store, selection.teachers, version=pins["soft_labels"])
    pool = _pool(store, selection, teachers, pins, standing, stack)
    balance = selection.balance.with_even_quota(standing.num_accepted, len(store.class_names))
    connection = stack.enter_context(scratch_connection(scratch_folder(store)))
    engine, with_labels = ENGINES[selection.engine](_Place(pool, connection, stack))
    cuts = find_cuts(
        engine,
        balance,
        lambda candidates: balance.quotas_of(candidates, store.class_names),
        num_classes=len(store.class_names),
        counts=pool.counts,
        only_counts=only_counts,
    )
    counts = _balanced_counts(store, cuts, pool, standing)

    def rows() -> Rows:
        chosen = cuts.decisions(with_labels(), in_order=True)
        yield from as_many(chosen, counts["kept"], store)

    rule = {name: value for name, value in vars(selection.rule).items() if value is not None}
    whose = [f"{t.alias}={t.label_set.teacher_id}@{t.label_set.iteration}" for t in teachers]
    parameters = {"teachers": whose, **balance.as_json(), **rule}
    sql = step("decisions")
    if not selection.rule.is_empty:
        candidates = selection.rule.sql([teacher.alias for teacher in teachers])
        sql = f"-- candidates:\n{candidates}\n{sql}"
    return Choice(
        query=f"balance/{balance.policy}",
        sql=sql,
        parameters=parameters,
        counts=counts,
        rows=rows,
    )


def _pool(
    store: Store,
    selection: Selection,
    teachers: Sequence[Teacher],
    pins: Mapping[str, int],
    standing: Standing,
    stack: ExitStack,
) -> Pool:
    version = pins["soft_labels"]
    if selection.rule.is_empty:
        if len(teachers) > 1:
            raise InputError(
                f"{len(teachers)} teachers and no rule: say on how many they must agree, give "
                "a SQL condition, or fuse them ('plstore fuse') and select on the fusion"
            )
        label_set = teachers[0].label_set
        shards = store.table("soft_labels").shards(version, label_set.partition)
        return pool_of_labels(store, label_set, shards, standing)
    folder = stack.enter_context(scratch_files(store))
    return pool_of_rule(
        store,
        teachers,
        selection.rule,
        version=version,
        standing=standing,
        folder=folder,
        limits=selection.limits,
    )


@dataclass(frozen=True)
class _Place:
    """Where an engine works."""

    pool: Pool
    connection: duckdb.DuckDBPyConnection
    stack: ExitStack


class _Engines(Protocol):
    """Opens the engine that counts and cuts, and the one that gives rows with labels."""

    def __call__(self, place: _Place) -> tuple[Engine, Callable[[], Engine]]:
        """Return an engine, and what makes the second: in order of sample id, with labels."""


def _duckdb(place: _Place) -> tuple[Engine, Callable[[], Engine]]:
    def with_labels() -> Engine:
        return DuckDBEngine(
            place.connection, place.pool, with_label=True, files_at_once=_FILES_IN_ORDER
        )

    return DuckDBEngine(place.connection, place.pool), with_labels


def _spark(place: _Place) -> tuple[Engine, Callable[[], Engine]]:
    from plstore.selection.spark import SparkEngine

    engine: Engine = place.stack.enter_context(SparkEngine(place.pool))
    return engine, lambda: engine


ENGINES: Final[Mapping[EngineName, _Engines]] = {"duckdb": _duckdb, "spark": _spark}
"""What runs the steps of a balance; see `plstore.selection.counts.Engine`."""


def _balanced_counts(
    store: Store, cuts: Cuts, pool: Pool, standing: Standing
) -> dict[str, Any]:
    dropped = {
        **pool.dropped,
        **standing.refused,
        "not_labeled": standing.num_accepted - pool.num_labels,
        "low_confidence": int((cuts.num_labels - cuts.num_candidates).sum()),
        "over_quota": int((cuts.num_candidates - cuts.kept).sum()),
    }
    return {
        "in": standing.num_images,
        "kept": int(cuts.kept.sum()),
        "dropped": {why: n for why, n in sorted(dropped.items()) if n},
        "draws": int(cuts.draws.sum()),
        **by_class(
            store,
            predicted=cuts.num_labels,
            candidates=cuts.num_candidates,
            quota=cuts.quotas,
            kept=cuts.kept,
            draws=cuts.draws,
        ),
    }
