-- Labeled images of a view whose image is of another split: validation or test that leaked.
--
-- In an older version of a view it is a note: no one trains on it any more.
--
-- grain: one row per (view, version, sample_id)
-- column view varchar: the view
-- column version bigint: its version
-- column sample_id bigint: the image
-- column split varchar: the split it belongs to
-- column finding varchar: fault; note in a version that is not the newest of its view
with newest as (
    select
        view,
        max(version) as version
    from views
    group by view
)

select
    picked.view,
    picked.version,
    picked.sample_id,
    images.split,
    case when picked.version < newest.version then 'note' else 'fault' end as finding
from view_rows as picked
inner join images on picked.sample_id = images.sample_id
left join newest on picked.view = newest.view
where
    (
        picked.kind = 'labeled'
        and images.split != 'labeled'
        and not (
            images.split = 'unlabeled'
            and picked.sample_id in (select corrections.sample_id from corrections)
        )
    )
    or (picked.kind = 'pseudo' and images.split != 'unlabeled')
order by picked.view asc, picked.version asc, picked.sample_id asc
