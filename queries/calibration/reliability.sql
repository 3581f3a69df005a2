-- Is confidence honest: accuracy on validation images in bins of confidence of 0.1.
--
-- grain: one row per (iteration, teacher_id, bin)
-- needs: soft_labels of validation
-- column iteration integer: the iteration the labels belong to
-- column teacher_id varchar: the teacher
-- column bin integer: 0 to 9; bin n is from n / 10 up to below (n + 1) / 10
-- column num_images bigint: validation images in the bin
-- column mean_confidence double: what the teacher claims, 0 to 1
-- column accuracy double: what is true, 0 to 1
-- column overconfidence double: the first less the second, -1 to 1
select
    labels.iteration,
    labels.teacher_id,
    least(floor(labels.confidence * 10), 9)::integer as bin,
    count(*) as num_images,
    avg(labels.confidence) as mean_confidence,
    avg((labels.class_id = images.label)::integer) as accuracy,
    avg(labels.confidence) - avg((labels.class_id = images.label)::integer) as overconfidence
from soft_labels as labels
inner join images on labels.sample_id = images.sample_id
where labels.split = 'validation' and images.label is not null
group by labels.iteration, labels.teacher_id, bin
order by labels.iteration asc, labels.teacher_id asc, bin asc
