-- Views that lost images since they were made. None is as it was trained on then.
--
-- A note where as many images were deleted by someone (`plstore delete`), a fault otherwise.
--
-- grain: one row per (view, version)
-- column view varchar: the view
-- column version bigint: its version
-- column num_images bigint: images when it was made
-- column num_deleted bigint: images lost since
-- column finding varchar: note; fault where it lost more than the deletions of the store
with lost as (
    select
        views.view,
        views.version,
        views.num_images,
        views.num_images - count(view_rows.sample_id) as num_deleted
    from views
    left join view_rows
        on views.view = view_rows.view and views.version = view_rows.version
    group by views.view, views.version, views.num_images
)

select
    view,
    version,
    num_images,
    num_deleted,
    case
        when num_deleted > (select count(deletions.sample_id) from deletions) then 'fault'
        else 'note'
    end as finding
from lost
where num_deleted > 0
order by view asc, version asc
