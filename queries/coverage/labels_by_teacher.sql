-- How far each teacher has come: its labels of each split, and the share of accepted images.
--
-- grain: one row per (iteration, teacher_id, split)
-- column iteration integer: the iteration the labels belong to
-- column teacher_id varchar: the teacher that gave them
-- column split varchar: labeled, unlabeled, validation or test
-- column num_labels bigint: labels
-- column num_images bigint: accepted images of the split
-- column share double: labels for each image, 0 to 1
with sizes as (
    select
        split,
        count(*) as num_images
    from images
    where verdict = 'accepted'
    group by split
),

given as (
    select
        iteration,
        teacher_id,
        split,
        count(*) as num_labels
    from soft_labels
    group by iteration, teacher_id, split
)

select
    given.iteration,
    given.teacher_id,
    given.split,
    given.num_labels,
    coalesce(sizes.num_images, 0) as num_images,
    given.num_labels / sizes.num_images as share
from given
left join sizes on given.split = sizes.split
order by given.iteration asc, given.teacher_id asc, given.split asc
