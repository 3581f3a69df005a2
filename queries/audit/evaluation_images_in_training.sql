-- Images of validation, test or evaluation whose very bytes are also among the training images.
--
-- A fault where the newest version of a view trains on the copy and nobody asked for that: with
-- `plstore select --held-out` or `select.held_out`, which a view's record keeps, someone did.
-- All else is a note, for selections leave such copies out by themselves.
--
-- grain: one row per (sample_id, other_id)
-- column sample_id bigint: the image that is held out
-- column split varchar: its split
-- column key varchar: its name in the dataset
-- column other_id bigint: the same image among those that training may read
-- column other_split varchar: labeled or unlabeled
-- column other_key varchar: its name in the dataset
-- column trained_in varchar[]: views whose newest version trains on the copy unasked, or null
-- column finding varchar: fault, or note where there is no such view
with newest as (
    select
        view,
        max(version) as version
    from views
    group by view
),

-- Views of before 0.5 have no record of it, but the recipe of a model that was trained on them.
asked_for as (
    select
        view,
        version
    from views
    where parameters ->> 'held_out' = 'true'
    union
    select
        view,
        view_version as version
    from teachers
    where recipe ->> '$.select.held_out' = 'true'
),

copies as (
    select
        held.sample_id,
        held.split,
        held.key,
        train.sample_id as other_id,
        train.split as other_split,
        train.key as other_key
    from images as held
    inner join images as train on held.content_hash = train.content_hash
    where
        held.split in ('validation', 'test', 'evaluation')
        and train.split in ('labeled', 'unlabeled')
        and held.verdict = 'accepted'
        and train.verdict = 'accepted'
        and train.sample_id not in (select exclusions.sample_id from exclusions)
),

trained as (
    select
        picked.sample_id,
        list(distinct picked.view order by picked.view asc) as trained_in
    from view_rows as picked
    inner join newest on picked.view = newest.view and picked.version = newest.version
    left join asked_for
        on picked.view = asked_for.view and picked.version = asked_for.version
    where
        asked_for.view is null
        and picked.sample_id in (select copies.other_id from copies)
    group by picked.sample_id
)

select
    copies.sample_id,
    copies.split,
    copies.key,
    copies.other_id,
    copies.other_split,
    copies.other_key,
    trained.trained_in,
    case when trained.trained_in is null then 'note' else 'fault' end as finding
from copies
left join trained on copies.other_id = trained.sample_id
order by copies.sample_id asc, copies.other_id asc
