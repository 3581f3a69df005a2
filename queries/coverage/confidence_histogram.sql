-- How confident a teacher is: its labels of the unlabeled images in bins of 0.05.
--
-- grain: one row per (iteration, teacher_id, bin)
-- needs: soft_labels of unlabeled
-- column iteration integer: the iteration the labels belong to
-- column teacher_id varchar: the teacher that gave them
-- column bin integer: 0 to 19
-- column confidence_from double: lower edge of the bin, 0 to 0.95
-- column num_labels bigint: labels in the bin
select
    iteration,
    teacher_id,
    least(floor(confidence * 20), 19)::integer as bin,
    least(floor(confidence * 20), 19)::double / 20 as confidence_from,
    count(*) as num_labels
from soft_labels
where split = 'unlabeled'
group by iteration, teacher_id, bin, confidence_from
order by iteration asc, teacher_id asc, bin asc
