-- Images that a teacher has labeled more than once in one iteration. Once is right.
--
-- grain: one row per (iteration, teacher_id, sample_id)
-- column iteration integer: the iteration the labels belong to
-- column teacher_id varchar: the teacher that gave them
-- column sample_id bigint: the image
-- column num_labels bigint: labels, more than one
select
    iteration,
    teacher_id,
    sample_id,
    count(*) as num_labels
from soft_labels
group by iteration, teacher_id, sample_id
having count(*) > 1
order by iteration asc, teacher_id asc, sample_id asc
