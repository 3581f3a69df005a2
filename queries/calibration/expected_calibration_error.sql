-- The calibration of each teacher in one number, on validation images.
--
-- The expected calibration error (Guo et al. 2017) over 15 bins of equal width: the mean gap
-- between confidence and accuracy, weighted by the images in a bin.
--
-- grain: one row per (iteration, teacher_id)
-- needs: soft_labels of validation
-- column iteration integer: the iteration the labels belong to
-- column teacher_id varchar: the teacher
-- column num_images bigint: validation images
-- column accuracy double: 0 to 1
-- column mean_confidence double: 0 to 1
-- column ece double: expected calibration error, 0 to 1
with bins as (
    select
        labels.iteration,
        labels.teacher_id,
        least(floor(labels.confidence * 15), 14) as bin,
        count(*) as num_images,
        sum(labels.confidence::double) as sum_confidence,
        sum((labels.class_id = images.label)::integer) as num_right
    from soft_labels as labels
    inner join images on labels.sample_id = images.sample_id
    where labels.split = 'validation' and images.label is not null
    group by labels.iteration, labels.teacher_id, bin
)

select
    iteration,
    teacher_id,
    sum(num_images)::bigint as num_images,
    sum(num_right) / sum(num_images) as accuracy,
    sum(sum_confidence) / sum(num_images) as mean_confidence,
    sum(abs(sum_confidence - num_right)) / sum(num_images) as ece
from bins
group by iteration, teacher_id
order by iteration asc, teacher_id asc
