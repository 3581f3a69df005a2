-- Views that lost images to a deletion since they were made. None is as it was trained on then.
--
-- grain: one row per (view, version)
-- column view varchar: the view
-- column version bigint: its version
-- column num_images bigint: images when it was made
-- column num_deleted bigint: images deleted since
select
    views.view,
    views.version,
    views.num_images,
    views.num_images - count(view_rows.sample_id) as num_deleted
from views
left join view_rows
    on views.view = view_rows.view and views.version = view_rows.version
group by views.view, views.version, views.num_images
having views.num_images > count(view_rows.sample_id)
order by views.view asc, views.version asc
