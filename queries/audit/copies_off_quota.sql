-- Classes of an exactly balanced view whose copies do not add up to its quota. None is right.
--
-- Of views with the policy `exact` and one quota for every class, that lost no image since. In
-- an older version of a view it is a note: select the view again, and it is no fault any more.
--
-- grain: one row per (view, version, class_id)
-- column view varchar: the view
-- column version bigint: its version
-- column class_id integer: the class
-- column num_draws bigint: the sum of its copies
-- column quota bigint: what it should be
-- column finding varchar: fault; note in a version that is not the newest of its view
with newest as (
    select
        view,
        max(version) as version
    from views
    group by view
),

quotas as (
    select
        view,
        version,
        num_images,
        (parameters ->> 'images_per_class')::bigint as quota
    from views
    where query = 'balance/exact' and parameters ->> 'images_per_class' is not null
),

whole as (
    select
        quotas.view,
        quotas.version,
        quotas.quota
    from quotas
    inner join view_rows
        on quotas.view = view_rows.view and quotas.version = view_rows.version
    group by quotas.view, quotas.version, quotas.quota, quotas.num_images
    having count(*) = quotas.num_images
)

select
    whole.view,
    whole.version,
    picked.class_id,
    sum(picked.copies)::bigint as num_draws,
    whole.quota,
    case when whole.version < newest.version then 'note' else 'fault' end as finding
from whole
inner join view_rows as picked
    on whole.view = picked.view and whole.version = picked.version
inner join newest on whole.view = newest.view
where picked.kind = 'pseudo'
group by whole.view, whole.version, picked.class_id, whole.quota, newest.version
having sum(picked.copies) != whole.quota
order by whole.view asc, whole.version asc, picked.class_id asc
