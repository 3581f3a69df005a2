"""Candidates from the labels of several teachers: agreement, or SQL over their columns.

Shards of one range of sample ids stand side by side in every label set, so teachers are joined
range by range: memory stays that of a few shards. What comes of it is written to files that
look like those of one teacher, and selection goes on from there.
"""

import json
import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from plstore.errors import InputError, QueryError
from plstore.labels import SHARD_IDS, LabelSet, find_label_sets
from plstore.query import Limits, check_read_only, create_functions, fetch, fetch_within, lock
from plstore.schema import TABLES
from plstore.selection.pool import Pool
from plstore.selection.standing import Standing
from plstore.store import Shard, Store

_CHUNK_RANGES = 16
_NOT_OF_ONE_ROW = {
    "WINDOW": "a window",
    "SUBQUERY": "a subquery",
    "STAR": "'*'",
    "PARAMETER": "a parameter",
}
_RANDOM = frozenset(
    {"random", "uuid", "gen_random_uuid", "uuidv4", "uuidv7", "setseed", "nextval", "currval"}
    | {"now", "today", "get_current_time", "get_current_timestamp", "transaction_timestamp"}
    | {"current_date", "current_time", "current_timestamp", "current_localtime"}
    | {"current_localtimestamp", "localtime", "localtimestamp", "txid_current"}
    | {"current_transaction_id", "current_query_id", "current_connection_id"}
)
_OWN_NAMES = frozenset({"standing", "classes", "votes", "agreed", "ids"})
_ALIAS = re.compile(r"[a-z][a-z0-9_]*")
_SCHEMA = pa.schema(
    [
        TABLES["soft_labels"].columns.field(n)
        for n in ("sample_id", "class_id", "confidence", "label")
    ]
)

_AGREEMENT = """
with votes as ({votes}),

agreed as (
    select
        sample_id,
        class_id,
        count(*) as num_votes,
        avg(confidence)::float as confidence,
        arg_min(label, place) as label
    from votes
    group by sample_id, class_id
    having count(*) >= {least}
)

select sample_id, class_id, confidence, label
from agreed
qualify
    row_number() over (
        partition by sample_id order by num_votes desc, confidence desc, class_id asc
    ) = 1
order by sample_id asc
"""
_IDS = "select sample_id from {alias}"
_VOTES = "select sample_id, class_id, confidence, label, {place} as place from {alias}"

_EXPRESSION = """
select
    {first}.sample_id,
    (
        {class_id}
    )::integer as class_id,
    (
        {confidence}
    )::float as confidence,
    {label} as label
from {joined}
where (
    {where}
)
order by 1 asc
"""
"""Each expression ends its own line: it may end in a comment."""

_WHEN = """when {alias}.class_id = (
    {class_id}
) then {alias}.label"""

_LABEL = """case {whens} else struct_pack(
    class_ids := [(
        {class_id}
    )::integer],
    probs := [1::float],
    residual := 0::float,
    tail := null::blob
) end"""

_JOINED = """
select
    count(*) filter (standing.sample_id is null) as num_pool,
    count(*) filter (standing.why = 'excluded') as excluded,
    count(*) filter (standing.why = 'held_out') as held_out,
    count(*) filter (standing.why = 'corrected') as corrected
from ({ids}) as ids left join standing on ids.sample_id = standing.sample_id
"""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How the labels of teachers become candidates.

    Attributes:
        agree: At least this many must name the same class; its confidence is the mean of
            theirs. None where the expressions decide.
        where: SQL that is true for candidates, over teachers' columns such as
            ``a.confidence > 0.5 and a.class_id = b.class_id``. Like all expressions it is of
            one row, without subqueries, windows or parameters; comments may be in it.
        class_id: SQL for the class; the first teacher's unless given. The label is that of the
            first teacher that says so, and a hard one where none does.
        confidence: SQL for the confidence, 0 to 1; the first teacher's unless given.
    """

    agree: int | None = None
    where: str | None = None
    class_id: str | None = None
    confidence: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do: one teacher's labels as they are."""
        return all(value is None for value in vars(self).values())

    def sql(self, aliases: Sequence[str]) -> str:
        """Return the query over one relation an alias.

        Raises:
            InputError: If it asks for more teachers than there are, or for both kinds at once.
        """
        expressions = (self.where, self.class_id, self.confidence)
        if self.agree is not None:
            if any(text is not None for text in expressions):
                raise InputError("a selection has both agree and SQL expressions; wanted one")
            if not 1 <= self.agree <= len(aliases):
                raise InputError(
                    f"agreement of at least {self.agree} of {len(aliases)} teachers; wanted 1 "
                    f"to {len(aliases)}"
                )
            votes = [_VOTES.format(place=n, alias=a) for n, a in enumerate(aliases)]
            return _AGREEMENT.format(votes=" union all ".join(votes), least=self.agree)
        for text in expressions:
            if text is not None:
                _check_of_one_row(_bare(text))
        first = aliases[0]
        joined = first + "".join(
            f" inner join {a} on {first}.sample_id = {a}.sample_id" for a in aliases[1:]
        )
        chosen = _bare(self.class_id or f"{first}.class_id")
        whens = " ".join(_WHEN.format(alias=a, class_id=chosen) for a in aliases)
        return _EXPRESSION.format(
            first=first,
            label=f"{first}.label"
            if self.class_id is None
            else _LABEL.format(whens=whens, class_id=chosen),
            joined=joined,
            class_id=chosen,
            confidence=_bare(self.confidence or f"{first}.confidence"),
            where=_bare(self.where or "true"),
        )


def _bare(text: str) -> str:
    """Return an expression without the ';' that people end SQL with."""
    return text.rstrip().rstrip(";").rstrip()


def _check_of_one_row(text: str) -> None:
    """Refuse what is not one expression, or depends on more than the row.

    Rows are decided range by range of ids; and an expression must not leave its parentheses, in
    which it is put into the query.
    """
    found = ""
    for sql in (f"select {text}\n", f"select (\n{text}\n)"):  # alone, and in its place
        found = _parsed(text, sql)
        if len(json.loads(found)["statements"][0]["node"].get("select_list", ())) != 1:
            raise QueryError(f"the expression {text!r} is several; wanted one")
    for mark, what in _NOT_OF_ONE_ROW.items():
        if f'"class":"{mark}"' in found:
            raise QueryError(
                f"the expression {text!r} has {what}; wanted one of the columns of one image"
            )
    if any(
        f'"function_name":"{name}"' in found or f'"column_names":["{name}"]' in found
        for name in _RANDOM
    ):
        raise QueryError(f"the expression {text!r} is another one each time it is computed")


def _parsed(text: str, sql: str) -> str:
    """Return the tree of one statement as JSON.

    Raises:
        QueryError: If it is none, or more than one.
    """
    with closing(duckdb.connect(":memory:")) as connection:
        query = "select json_serialize_sql($sql)"
        try:
            found = str(connection.execute(query, {"sql": sql}).fetchall()[0][0])
        except duckdb.Error as error:
            raise QueryError(f"cannot parse the expression {text!r}: {error}") from error
    tree = json.loads(found)
    if tree["error"] or len(tree["statements"]) != 1:
        why = tree.get("error_message", "more than one statement")
        raise QueryError(
            f"cannot parse the expression {text!r}: {why}; wanted one expression, with its "
            "parentheses closed and no ';' in it"
        )
    return found


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Whose labels, and what SQL calls them."""

    alias: str
    label_set: LabelSet


@cache
def _reserved() -> frozenset[str]:
    """Return the names that an expression cannot call a teacher."""
    sql = "select keyword_name from duckdb_keywords() where keyword_category <> 'unreserved'"
    with closing(duckdb.connect(":memory:")) as connection:
        return frozenset(name for (name,) in connection.execute(sql).fetchall()) | _OWN_NAMES


def find_teachers(store: Store, texts: Sequence[str], *, version: int) -> list[Teacher]:
    """Read teachers as people write them: ``[ALIAS=]TEACHER[@ITERATION]``.

    The alias is what SQL expressions call them: the teacher's own name, where it is a name in
    SQL, or else ``t1``, ``t2``, in their order. The iteration is the last that the teacher has
    labeled, unless given.

    Raises:
        InputError: If one is not that, has no labels of unlabeled images, or aliases repeat.
    """
    found = []
    for number, text in enumerate(texts, start=1):
        head, equals, tail = text.partition("=")
        name = tail if equals else head
        teacher_id, at, iteration = name.partition("@")
        if at and not iteration.isdigit():
            raise InputError(f"teacher {text!r}; wanted [ALIAS=]TEACHER[@ITERATION]")
        sets = find_label_sets(
            store, teacher_id, iteration=int(iteration) if at else None, version=version
        )
        unlabeled = [s for s in sets if s.split == "unlabeled"]
        if not unlabeled:
            raise InputError(
                f"{teacher_id!r} has labeled no unlabeled image in {store.root}; 'plstore "
                "label' does it"
            )
        alias = head if equals else teacher_id
        if not _ALIAS.fullmatch(alias) or alias in _reserved():
            if equals:
                raise InputError(
                    f"alias {alias!r} may hold only a to z, 0 to 9 and '_', and be no word of "
                    "SQL"
                )
            alias = f"t{number}"
        found.append(Teacher(alias=alias, label_set=unlabeled[0]))
    aliases = [teacher.alias for teacher in found]
    if len(set(aliases)) < len(aliases) or not aliases:
        raise InputError(
            f"teachers are {', '.join(texts) or 'none'}; wanted one or more, each once, or "
            "with an alias of its own: a=TEACHER@1"
        )
    return found


def pool_of_rule(
    store: Store,
    teachers: Sequence[Teacher],
    rule: Rule,
    *,
    version: int,
    standing: Standing,
    folder: Path,
    limits: Limits,
) -> Pool:
    """Apply a rule range by range of sample ids, and write what comes of it to a folder.

    Labels of the candidates are those of the first teacher, or of the first that agrees. The
    rule is held to the limits in each range alone.

    Raises:
        QueryError: If an expression fails, or gives no class or confidence.
    """
    sql = rule.sql([teacher.alias for teacher in teachers])
    check_read_only(sql)
    table = store.table("soft_labels")
    classes = store.table("classes").read()
    chunks: dict[int, dict[str, list[Shard]]] = {}
    for teacher in teachers:
        for shard in table.shards(version, teacher.label_set.partition):
            chunk = chunks.setdefault(shard.first_id // SHARD_IDS // _CHUNK_RANGES, {})
            chunk.setdefault(teacher.alias, []).append(shard)
    files: list[Path] = []
    joined = candidates = 0
    dropped = {"excluded": 0, "held_out": 0, "corrected": 0}
    for number, members in sorted(chunks.items()):
        with closing(limits.open()) as connection:
            for teacher in teachers:
                shards = members.get(teacher.alias, [])
                connection.register(teacher.alias, table.dataset_of(shards))
            connection.register("standing", standing.barred)
            connection.register("classes", classes)
            create_functions(connection, classes.num_rows)
            lock(connection)
            seen = fetch(connection, _joined(rule, teachers)).to_pylist()[0]
            found = fetch_within(connection, sql, None, limits)
            rows = _checked(found, len(store.class_names))
        joined += seen["num_pool"] + sum(seen[why] for why in dropped)
        dropped = {why: n + seen[why] for why, n in dropped.items()}
        barred = pc.is_in(rows["sample_id"], standing.barred["sample_id"].combine_chunks())
        candidates += rows.num_rows - pc.sum(barred).as_py() if rows.num_rows else 0
        files.append(folder / f"candidates-{number:06d}.parquet")
        pq.write_table(rows, files[-1], compression="zstd")
    why = "no_agreement" if rule.agree is not None else "not_in_rule"
    dropped[why] = joined - sum(dropped.values()) - candidates
    return Pool(
        store=store,
        files=files,
        standing=standing,
        num_labels=joined,
        dropped={reason: n for reason, n in dropped.items() if n},
    )


def _joined(rule: Rule, teachers: Sequence[Teacher]) -> str:
    """Return the query that counts the images a rule decides on: labeled by one, or by all."""
    aliases = [teacher.alias for teacher in teachers]
    each = [_IDS.format(alias=alias) for alias in aliases]
    return _JOINED.format(
        ids=(" union " if rule.agree is not None else " intersect ").join(each)
    )


def _checked(rows: pa.Table, num_classes: int) -> pa.Table:
    for name, low, high in (("class_id", 0, num_classes - 1), ("confidence", 0, 1)):
        bounds = pc.min_max(rows[name]).as_py()
        if not rows.num_rows:
            break
        bad = rows[name].null_count or not low <= bounds["min"] <= bounds["max"] <= high
        if bad or (name == "confidence" and pc.any(pc.is_nan(rows[name])).as_py()):
            raise QueryError(
                f"the expression for {name} gives {bounds['min']} to {bounds['max']} and "
                f"{rows[name].null_count} nulls; wanted {low} to {high} for every candidate"
            )
    if pc.any(pc.equal(pc.pairwise_diff(rows["sample_id"].combine_chunks()), 0)).as_py():
        raise QueryError("an expression gives several rows for one image; wanted one value")
    return rows.filter(pc.greater(rows["confidence"], 0)).cast(_SCHEMA)  # 0 is above no floor
