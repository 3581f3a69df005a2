-- How good each teacher is at images that were made worse on purpose, by how and how much.
--
-- `plstore evaluate --corruptions` (or `--sequences`, `--attacks`) makes the labels.
--
-- grain: one row per (teacher_id, perturbation, level)
-- param split varchar = 'test': of the images
-- param kind varchar = 'corruption': corruption, sequence or attack
-- column teacher_id varchar: the teacher
-- column perturbation varchar: its name
-- column level float: severity 1 to 5, number of the frame from 0, or epsilon
-- column num_images bigint: images of known class
-- column accuracy double: top-1, 0 to 1
-- column low double: lower end of its 95 % interval, Wilson's
-- column high double: upper end of it
-- column mean_confidence double: 0 to 1
-- column ece double: expected calibration error over 15 bins of equal width, 0 to 1
with seen as (
    select
        teacher_id,
        perturbation,
        level,
        confidence::double as confidence,
        (class_id = true_id)::integer as is_right
    from perturbed($split, $kind)
),

bins as (
    select
        teacher_id,
        perturbation,
        level,
        count(*) as num_images,
        sum(is_right) as num_right,
        sum(confidence) as confidence
    from seen
    group by teacher_id, perturbation, level, least(floor(confidence * 15), 14)
),

means as (
    select
        teacher_id,
        perturbation,
        level,
        sum(num_images)::bigint as num_images,
        sum(num_right) / sum(num_images) as accuracy,
        sum(confidence) / sum(num_images) as mean_confidence,
        sum(abs(confidence - num_right)) / sum(num_images) as ece
    from bins
    group by teacher_id, perturbation, level
)

select
    teacher_id,
    perturbation,
    level,
    num_images,
    accuracy,
    wilson_low(accuracy, num_images) as low,
    wilson_high(accuracy, num_images) as high,
    mean_confidence,
    ece
from means
order by teacher_id asc, perturbation asc, level asc
