-- Images whose pseudo-label was selected in every one of some views, such as those of a run.
--
-- grain: one row per (sample_id)
-- param views varchar = '%': the views, as a SQL pattern: fashion_mnist-% for those of a run
-- column sample_id bigint: the image
-- column num_views bigint: versions of views that it is in: all of them
-- column num_classes bigint: classes it was selected as
-- column class_name varchar: the one in the view that was made last
-- column min_confidence float: the lowest confidence it was selected with, 0 to 1
-- column max_copies integer: the most copies it had
with chosen as (
    select
        picked.sample_id,
        picked.view,
        picked.version,
        picked.class_id,
        picked.confidence,
        picked.copies,
        views.created_at
    from view_rows as picked
    inner join views on picked.view = views.view and picked.version = views.version
    where picked.view like $views and picked.kind = 'pseudo'
),

sums as (
    select
        sample_id,
        count(*) as num_views,
        count(distinct class_id) as num_classes,
        arg_max(class_id, created_at) as class_id,
        min(confidence) as min_confidence,
        max(copies) as max_copies
    from chosen
    group by sample_id
)

select
    sums.sample_id,
    sums.num_views,
    sums.num_classes,
    classes.name as class_name,
    sums.min_confidence,
    sums.max_copies
from sums
inner join classes on sums.class_id = classes.class_id
where
    sums.num_views
    = (select count(distinct struct_pack(chosen.view, chosen.version)) from chosen)
order by sums.sample_id asc
