-- Balance before and after: each class's share of a view's images, and of its draws.
--
-- grain: one row per (view, version, kind, class_id)
-- column view varchar: the view
-- column version bigint: its version
-- column kind varchar: labeled or pseudo
-- column class_id integer: the class
-- column class_name varchar: its name
-- column num_images bigint: images
-- column num_draws bigint: the sum of their copies
-- column share_of_images double: of the view's images of that kind, 0 to 1
-- column share_of_draws double: of its draws of that kind, 0 to 1
with sums as (
    select
        view,
        version,
        kind,
        class_id,
        count(*) as num_images,
        sum(copies)::bigint as num_draws
    from view_rows
    group by view, version, kind, class_id
)

select
    sums.view,
    sums.version,
    sums.kind,
    sums.class_id,
    classes.name as class_name,
    sums.num_images,
    sums.num_draws,
    sums.num_images
    / sum(sums.num_images) over (partition by sums.view, sums.version, sums.kind)
        as share_of_images,
    sums.num_draws
    / sum(sums.num_draws) over (partition by sums.view, sums.version, sums.kind)
        as share_of_draws
from sums
inner join classes on sums.class_id = classes.class_id
order by sums.view asc, sums.version asc, sums.kind asc, sums.class_id asc
