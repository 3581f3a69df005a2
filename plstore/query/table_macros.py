"""Tables that SQL calls like functions: what selections and evaluations begin with.

| table | its rows |
|---|---|
| ``candidates(teacher_id, iteration)`` | a teacher's labels of accepted unlabeled images |
| ``labeled_images()`` | images with a label that students train on |
| ``embeddings_of(model)`` | embeddings of a model; of the only one that there is for ``''`` |
| ``perturbed(split, kind)`` | labels of images of known class that were made worse |
| ``evaluated(split, dataset)`` | labels of images of known class; any dataset for ``''`` |
| ``evaluated_among(split, dataset, among)`` | the same, among ``all`` classes or its ``own`` |
| ``accepted(split, dataset, source, among)`` | the same, with all classes that are right |
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import duckdb


@dataclass(frozen=True, kw_only=True)
class TableMacro:
    """A table written in SQL, with parameters.

    Attributes:
        name: What queries call.
        signature: The name with its parameters.
        reads: Tables of the store.
        body: One SELECT.
    """

    name: str
    signature: str
    reads: tuple[str, ...]
    body: str


_HELD_OUT = """(
    select held_out.content_hash from images as held_out
    where
        held_out.split in ('validation', 'test', 'evaluation')
        and held_out.verdict = 'accepted'
)"""

# `standing` is candidate, or the reason why a selection may not choose the image.
_CANDIDATES = f"""
select
    labels.sample_id,
    labels.class_id,
    labels.confidence,
    labels.label,
    case
        when labels.sample_id in (select exclusions.sample_id from exclusions) then 'excluded'
        when images.content_hash in {_HELD_OUT} then 'held_out'
        when labels.sample_id in (select corrections.sample_id from corrections)
            then 'corrected'
        else 'candidate'
    end as standing
from soft_labels as labels
inner join images on labels.sample_id = images.sample_id
where
    labels.teacher_id = whose
    and labels.iteration = number
    and labels.split = 'unlabeled'
    and images.split = 'unlabeled'
    and images.verdict = 'accepted'
"""  # noqa: S608  no text of a user in it

_LABELED_IMAGES = f"""
select images.sample_id, coalesce(corrected.label, images.label)::integer as class_id
from images
left join (
    select sample_id, arg_max(label, decided_at) as label from corrections group by sample_id
) as corrected on images.sample_id = corrected.sample_id
where
    (images.split = 'labeled' or (images.split = 'unlabeled' and corrected.label is not null))
    and images.verdict = 'accepted'
    and images.sample_id not in (select exclusions.sample_id from exclusions)
    and images.content_hash not in {_HELD_OUT}
"""  # noqa: S608

# An empty store has no embeddings either, and no one to tell. The last condition says nothing
# new: it is what keeps the files of other models from being read.
_EMBEDDINGS_OF = """
select embeddings.sample_id, embeddings.split, embeddings.vector
from embeddings
where embeddings.model = (
    select
        case
            when count(*) > 1
                then error(
                    'there are embeddings of '
                    || string_agg(known.model, ', ' order by known.model)
                    || '; name one of them as the parameter model'
                )
            when count(*) = 0 and exists (select 1 from images)
                then error(
                    'there are no embeddings' || if(wanted = '', '', ' of ' || wanted)
                    || coalesce(
                        ', only of ' || (
                            select string_agg(distinct other.model, ', ' order by other.model)
                            from embeddings as other
                        ), ''
                    )
                    || '; ''plstore embed'' makes them'
                )
            else any_value(known.model)
        end
    from (
        select distinct every.model from embeddings as every where wanted in ('', every.model)
    ) as known
)
    and (wanted = '' or embeddings.model = wanted)
"""

_TRUE_CLASSES = """
select
    images.sample_id,
    images.dataset,
    coalesce(corrected.label, images.label)::integer as true_id
from images
left join (
    select sample_id, arg_max(label, decided_at) as label from corrections group by sample_id
) as corrected on images.sample_id = corrected.sample_id
where
    images.split = which
    and images.verdict = 'accepted'
    and coalesce(corrected.label, images.label) is not null
"""

_EVALUATED = f"""
select
    labels.iteration,
    labels.teacher_id,
    labels.sample_id,
    labels.class_id,
    labels.confidence,
    labels.label,
    known.true_id,
    known.dataset
from soft_labels as labels
inner join ({_TRUE_CLASSES}) as known on labels.sample_id = known.sample_id
where labels.split = which and whose in ('', known.dataset)
"""  # noqa: S608

# What a model says where it may choose among some classes is what it says of all, less the
# others and made to add up to 1. What a label does not keep is nobody's: an image of whose
# label none of the classes is left, or none with a probability, has class, confidence and label
# null.
_EVALUATED_AMONG = f"""
with labeled as (
    {_EVALUATED.strip()}
),
known as (
    {_TRUE_CLASSES.strip()}
),
right_ones as (
    select known.dataset, known.true_id as class_id from known
    union all
    select known.dataset, accepted_classes.label as class_id
    from accepted_classes
    inner join known
        on accepted_classes.sample_id = known.sample_id
        and accepted_classes.source = known.dataset
),
own as (
    select dataset, list_distinct(list(class_id)) as class_ids
    from right_ones
    group by dataset
),
flags as (
    select
        own.dataset,
        list(list_contains(own.class_ids, classes.class_id) order by classes.class_id) as is_own
    from own
    cross join classes
    group by own.dataset
),
kept as (
    select
        labeled.* exclude (class_id, confidence, label),
        list_filter(
            list_zip(labeled.label.class_ids, labeled.label.probs),
            lambda one: flags.is_own[one[1] + 1]
        ) as pairs
    from labeled
    inner join flags on labeled.dataset = flags.dataset
    where among = 'own'
),
summed as (
    select
        kept.* exclude (pairs),
        list_sum(list_transform(kept.pairs, lambda one: one[2]::double)) as total,
        if(total > 0, kept.pairs, kept.pairs[1:0]) as pairs
    from kept
)
select
    summed.iteration,
    summed.teacher_id,
    summed.sample_id,
    summed.dataset,
    summed.pairs[1][1] as class_id,
    (summed.pairs[1][2] / summed.total)::float as confidence,
    if(
        len(summed.pairs) = 0,
        null,
        struct_pack(
            class_ids := list_transform(summed.pairs, lambda one: one[1]),
            probs := list_transform(
                summed.pairs, lambda one: (one[2] / summed.total)::float
            ),
            residual := 0::float,
            tail := null::blob
        )
    ) as label,
    summed.true_id
from summed
union all
select
    labeled.iteration,
    labeled.teacher_id,
    labeled.sample_id,
    labeled.dataset,
    labeled.class_id,
    labeled.confidence,
    labeled.label,
    labeled.true_id
from labeled
where case
    when among in ('all', 'own') then among
    else error('among is ' || among || '; wanted all or own')
end = 'all'
"""  # noqa: S608

_ACCEPTED = f"""
select labeled.*, right_ones.source, right_ones.class_ids as accepted_ids
from ({_EVALUATED_AMONG.strip()}) as labeled
inner join (
    select source, sample_id, list_distinct(list(label)) as class_ids
    from accepted_classes
    where judge in ('', accepted_classes.source)
    group by source, sample_id
) as right_ones on labeled.sample_id = right_ones.sample_id
"""  # noqa: S608

_PERTURBED = f"""
select
    labels.teacher_id,
    labels.perturbation,
    labels.level,
    labels.sample_id,
    labels.class_id,
    labels.confidence,
    labels.label,
    known.true_id
from perturbed_labels as labels
inner join ({_TRUE_CLASSES}) as known on labels.sample_id = known.sample_id
where labels.split = which and labels.kind = how
"""  # noqa: S608

TABLE_MACROS: Final = (
    TableMacro(
        name="candidates",
        signature="candidates(whose, number)",
        reads=("soft_labels", "images", "exclusions", "corrections"),
        body=_CANDIDATES,
    ),
    TableMacro(
        name="labeled_images",
        signature="labeled_images()",
        reads=("images", "exclusions", "corrections"),
        body=_LABELED_IMAGES,
    ),
    TableMacro(
        name="embeddings_of",
        signature="embeddings_of(wanted)",
        reads=("embeddings", "images"),
        body=_EMBEDDINGS_OF,
    ),
    TableMacro(
        name="evaluated",
        signature="evaluated(which, whose)",
        reads=("soft_labels", "images", "corrections"),
        body=_EVALUATED,
    ),
    TableMacro(
        name="evaluated_among",
        signature="evaluated_among(which, whose, among)",
        reads=("soft_labels", "images", "corrections", "classes", "accepted_classes"),
        body=_EVALUATED_AMONG,
    ),
    TableMacro(
        name="accepted",
        signature="accepted(which, whose, judge, among)",
        reads=("soft_labels", "images", "corrections", "classes", "accepted_classes"),
        body=_ACCEPTED,
    ),
    TableMacro(
        name="perturbed",
        signature="perturbed(which, how)",
        reads=("perturbed_labels", "images", "corrections"),
        body=_PERTURBED,
    ),
)


def named_in(sql: str) -> list[TableMacro]:
    """Return the tables of the module that a text may call."""
    return [m for m in TABLE_MACROS if re.search(rf"\b{m.name}\s*\(", sql, re.IGNORECASE)]


def create_table_macros(
    connection: duckdb.DuckDBPyConnection, macros: Iterable[TableMacro] = TABLE_MACROS
) -> None:
    """Add them to a connection that has the tables that they read, and is not locked yet."""
    for macro in macros:
        connection.execute(f"create macro {macro.signature} as table {macro.body}")
