-- Images of the newest version of a view that a person excluded since: select it again.
--
-- Older versions are left alone: no one trains on them any more.
--
-- grain: one row per (view, version, sample_id)
-- column view varchar: the view
-- column version bigint: its newest version
-- column sample_id bigint: the image
-- column kind varchar: labeled or pseudo
-- column reason varchar: why it was excluded
with newest as (
    select
        view,
        max(version) as version
    from views
    group by view
),

reasons as (
    select
        sample_id,
        arg_max(reason, decided_at) as reason
    from exclusions
    group by sample_id
)

select
    picked.view,
    picked.version,
    picked.sample_id,
    picked.kind,
    reasons.reason
from view_rows as picked
inner join newest on picked.view = newest.view and picked.version = newest.version
inner join reasons on picked.sample_id = reasons.sample_id
order by picked.view asc, picked.version asc, picked.sample_id asc
