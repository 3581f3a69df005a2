-- Do predictions drift towards some classes: each class's share of the labels, by iteration.
--
-- grain: one row per (iteration, teacher_id, class_id)
-- needs: soft_labels of unlabeled
-- column iteration integer: the iteration the labels belong to
-- column teacher_id varchar: the teacher that gave them
-- column class_id integer: the predicted class
-- column class_name varchar: its name
-- column num_labels bigint: unlabeled images predicted to be of it
-- column share double: of that teacher's labels, 0 to 1
-- column share_of_labeled double: the class's share of the labeled images, 0 to 1
with truths as (
    select
        label as class_id,
        count(*) / sum(count(*)) over () as share
    from images
    where split = 'labeled' and verdict = 'accepted'
    group by label
),

sums as (
    select
        iteration,
        teacher_id,
        class_id,
        count(*) as num_labels
    from soft_labels
    where split = 'unlabeled'
    group by iteration, teacher_id, class_id
)

select
    sums.iteration,
    sums.teacher_id,
    sums.class_id,
    classes.name as class_name,
    sums.num_labels,
    sums.num_labels
    / sum(sums.num_labels) over (partition by sums.iteration, sums.teacher_id) as share,
    coalesce(truths.share, 0) as share_of_labeled
from sums
inner join classes on sums.class_id = classes.class_id
left join truths on sums.class_id = truths.class_id
order by sums.iteration asc, sums.teacher_id asc, sums.class_id asc
