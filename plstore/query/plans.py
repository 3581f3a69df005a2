"""What a selection would keep: by balance, by a query of one's own, or as another view did."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from plstore.errors import InputError, QueryError, StoreError
from plstore.query.balance import Counts
from plstore.query.counts import Engine, step
from plstore.query.cuts import Cuts, find_cuts
from plstore.query.engine import DuckDBEngine, scratch_connection, scratch_files, scratch_folder
from plstore.query.library import saved_query
from plstore.query.pool import Pool, pool_of_labels
from plstore.query.rules import Teacher, find_teachers, pool_of_rule
from plstore.query.session import Limits, connect, fetch, stream
from plstore.query.standing import Standing, find_standing
from plstore.store import Store, open_view, register_labels

if TYPE_CHECKING:
    from plstore.query.selection import Selection

_PSEUDO_ROWS = """
select
    images.sample_id,
    decided.class_id,
    decided.confidence,
    decided.copies::integer as copies,
    labels.label
from decided
inner join images on decided.sample_id = images.sample_id
inner join soft_labels as labels on decided.sample_id = labels.sample_id
where
    decided.outcome = 'kept'
    and images.verdict = 'accepted'
    and labels.teacher_id = $teacher_id
    and labels.iteration = $iteration
    and labels.split = 'unlabeled'
order by images.sample_id asc
"""

_BY_OUTCOME = """
select class_id, outcome, count(*) as n, sum(copies)::bigint as draws
from decided group by all order by all
"""

_UNDECIDED = """
select count(*) as n from images
where
    split = 'unlabeled' and verdict = 'accepted'
    and sample_id not in (select sample_id from decided)
"""

_RELABELED = """
select labels.sample_id, labels.class_id, labels.confidence, previous.copies, labels.label
from labels inner join previous on labels.sample_id = previous.sample_id
where
    previous.kind = 'pseudo'
    and labels.sample_id not in (select sample_id from standing)
order by labels.sample_id asc
"""

_PREVIOUS = """
select coalesce(standing.why, 'kept') as why, count(*) as n
from previous left join standing on previous.sample_id = standing.sample_id
where previous.kind = 'pseudo' group by all
"""

_FILES_IN_ORDER = 16  # a million labels: sorted in memory

Rows = Iterator[pa.RecordBatch]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A selection, decided and not yet written.

    Attributes:
        query: What decided, by name.
        sql: Its text, as it is run.
        parameters: All that it was told.
        counts: Images by what becomes of them, with a reason for every drop, and by class.
        rows: Yields what is kept, by ascending sample id: sample_id, class_id, confidence,
            copies and label.
    """

    query: str
    sql: str
    parameters: Mapping[str, Any]
    counts: Mapping[str, Any]
    rows: Callable[[], Rows]


def make_plan(
    store: Store,
    selection: "Selection",
    pins: Mapping[str, int],
    stack: ExitStack,
    *,
    only_counts: bool = False,
) -> Plan:
    """Decide a selection over a snapshot; what it holds open is closed by the stack.

    With `only_counts`, the counts are all that is right of the plan.
    """
    if selection.query is not None:
        return _by_query(store, selection, pins, stack)
    if selection.relabel is not None:
        return _relabeled(store, selection, pins, stack)
    return _balanced(store, selection, pins, stack, only_counts=only_counts)


def _balanced(
    store: Store,
    selection: "Selection",
    pins: Mapping[str, int],
    stack: ExitStack,
    *,
    only_counts: bool,
) -> Plan:
    standing = find_standing(store, pins)
    teachers = find_teachers(store, selection.teachers, version=pins["soft_labels"])
    pool = _pool(store, selection, teachers, pins, standing, stack)
    balance = selection.balance.with_share(standing.num_accepted, len(store.class_names))
    connection = stack.enter_context(scratch_connection(scratch_folder(store)))
    engine = _engine(selection, pool, connection, stack)
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
        if selection.engine == "spark":
            chosen = cuts.decisions(engine, in_order=True)
        else:
            ordered = DuckDBEngine(
                connection, pool, with_label=True, files_at_once=_FILES_IN_ORDER
            )
            chosen = cuts.decisions(ordered, in_order=True)
        yield from _as_many(chosen, counts["kept"], store)

    rule = {name: value for name, value in vars(selection.rule).items() if value is not None}
    parameters = {
        "teachers": [
            f"{t.alias}={t.label_set.teacher_id}@{t.label_set.iteration}" for t in teachers
        ],
        **balance.as_json(),
        **rule,
    }
    sql = step("decisions")
    if not selection.rule.is_empty:
        candidates = selection.rule.sql([teacher.alias for teacher in teachers])
        sql = f"-- candidates:\n{candidates}\n{sql}"
    return Plan(
        query=f"balance/{balance.policy}",
        sql=sql,
        parameters=parameters,
        counts=counts,
        rows=rows,
    )


def _pool(
    store: Store,
    selection: "Selection",
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
        store, teachers, selection.rule, version=version, standing=standing, folder=folder
    )


def _engine(
    selection: "Selection", pool: Pool, connection: duckdb.DuckDBPyConnection, stack: ExitStack
) -> Engine:
    if selection.engine == "spark":
        from plstore.query.spark import SparkEngine

        spark: Engine = stack.enter_context(SparkEngine(pool))
        return spark
    return DuckDBEngine(connection, pool)


def _as_many(rows: Rows, wanted: int, store: Store) -> Rows:
    """Yield rows, and stop if they are not as many as the counts beside the labels said."""
    found = 0
    for batch in rows:
        found += batch.num_rows
        yield batch
    if found != wanted:
        raise StoreError(
            f"{found} labels are selected and {wanted} were counted: what is kept in "
            f"{store.work_folder('histograms')} is not true of the labels. Delete it (it is "
            "made again) and run the same command again; nothing was written"
        )


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
        **_by_class(
            store,
            predicted=cuts.num_labels,
            candidates=cuts.num_candidates,
            quota=cuts.quotas,
            kept=cuts.kept,
            draws=cuts.draws,
        ),
    }


def _by_class(store: Store, **counts: Counts) -> dict[str, Any]:
    names = store.class_names
    empty = np.flatnonzero(counts["kept"] == 0).tolist()
    return {
        **{f"{name}_by_class": values.tolist() for name, values in counts.items()},
        "classes_without_candidate": [names[class_id] for class_id in empty],
    }


def _by_query(
    store: Store, selection: "Selection", pins: Mapping[str, int], stack: ExitStack
) -> Plan:
    query = saved_query(str(selection.query))
    (teacher,) = find_teachers(store, selection.teachers[:1], version=pins["soft_labels"])
    whose = {
        "teacher_id": teacher.label_set.teacher_id,
        "iteration": teacher.label_set.iteration,
    }
    taken = {parameter.name for parameter in query.parameters}
    standing = find_standing(store, pins)
    balance = selection.balance.with_share(standing.num_accepted, len(store.class_names))
    known = {
        **whose,
        "seed": balance.seed,
        "min_confidence": balance.min_confidence,
        "images_per_class": balance.images_per_class,
    }
    parameters = query.check_parameters(
        {**{n: v for n, v in known.items() if n in taken}, **selection.parameters}
    )
    connection = stack.enter_context(connect(store, as_of=pins, limits=Limits(seconds=None)))
    decided = fetch(connection, query.sql, parameters)
    if not decided.num_rows:
        raise InputError(
            f"selection query {query.name!r} returned no rows for teacher "
            f"{whose['teacher_id']!r} and iteration {whose['iteration']} in {store.root}: it "
            "drops them all, or there are no such labels"
        )
    _check_decided(decided, query.name)
    connection.register("decided", decided)
    undecided = fetch(connection, _UNDECIDED)["n"][0].as_py()
    outcomes = fetch(connection, _BY_OUTCOME).to_pylist()
    dropped = {**standing.refused, "not_in_query": undecided}
    for row in outcomes:
        if row["outcome"] != "kept":
            dropped[row["outcome"]] = dropped.get(row["outcome"], 0) + row["n"]
    counts = _outcome_counts(store, outcomes, dropped)
    return Plan(
        query=query.name,
        sql=query.sql,
        parameters=parameters,
        counts=counts,
        rows=lambda: stream(connection, _PSEUDO_ROWS, whose),
    )


def _outcome_counts(
    store: Store, outcomes: Sequence[Mapping[str, Any]], dropped: Mapping[str, int]
) -> dict[str, Any]:
    size = len(store.class_names)
    predicted, kept, draws = (np.zeros(size, np.int64) for _ in range(3))
    for row in outcomes:
        predicted[row["class_id"]] += row["n"]
        if row["outcome"] == "kept":
            kept[row["class_id"]] += row["n"]
            draws[row["class_id"]] += row["draws"]
    named = {why: n for why, n in sorted(dropped.items()) if n}
    return {
        "in": int(kept.sum()) + sum(named.values()),
        "kept": int(kept.sum()),
        "dropped": named,
        "draws": int(draws.sum()),
        **_by_class(store, predicted=predicted, kept=kept, draws=draws),
    }


def _check_decided(decided: pa.Table, name: str) -> None:
    wanted = ("sample_id", "class_id", "confidence", "outcome", "copies")
    missing = [column for column in wanted if column not in decided.column_names]
    if missing:
        raise QueryError(f"selection query {name!r} lacks {', '.join(missing)}")
    num_images = pc.count_distinct(decided["sample_id"]).as_py()
    if num_images != decided.num_rows:
        raise QueryError(
            f"selection query {name!r} gives {decided.num_rows} rows for {num_images} images; "
            "wanted one row an image"
        )
    kept = decided.filter(pc.equal(decided["outcome"], "kept"))
    if kept.num_rows and not pc.min(kept["copies"]).as_py() >= 1:
        raise QueryError(f"selection query {name!r} keeps images with fewer than 1 copy")


def _relabeled(
    store: Store, selection: "Selection", pins: Mapping[str, int], stack: ExitStack
) -> Plan:
    """Keep the images and copies of another view; take labels alone from the teacher.

    The official code's reassign mode (`predict.py --reassign_label`).
    """
    name, _, number = str(selection.relabel).partition("@")
    if number and not number.isdigit():
        raise InputError(f"relabel is {selection.relabel!r}; wanted VIEW or VIEW@VERSION")
    previous = open_view(store, name, int(number) if number else None)
    (teacher,) = find_teachers(store, selection.teachers, version=pins["soft_labels"])
    standing = find_standing(store, pins)
    shards = store.table("soft_labels").shards(pins["soft_labels"], teacher.label_set.partition)
    connection = stack.enter_context(scratch_connection(scratch_folder(store)))
    connection.register("standing", standing.barred)
    rows = store.table("view_rows").dataset_of(previous.shards())
    connection.register("previous", rows)
    register_labels(connection, store, shards, name="labels")
    dropped = {row["why"]: row["n"] for row in fetch(connection, _PREVIOUS).to_pylist()}
    whole = dropped.pop("kept", 0)
    sums = (
        "select class_id, 'kept' as outcome, count(*) as n, sum(copies)::bigint as draws "  # noqa: S608
        f"from ({_RELABELED}) as kept group by class_id order by class_id"
    )
    outcomes = fetch(connection, sums).to_pylist()
    dropped["not_labeled"] = whole - sum(row["n"] for row in outcomes)
    return Plan(
        query="relabel",
        sql=_RELABELED,
        parameters={
            "relabel": previous.key,
            "teachers": [f"{teacher.label_set.teacher_id}@{teacher.label_set.iteration}"],
        },
        counts=_outcome_counts(store, outcomes, dropped),
        rows=lambda: stream(connection, _RELABELED, {}),
    )
