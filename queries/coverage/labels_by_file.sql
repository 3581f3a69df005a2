-- Every file with the class that a teacher gives it, the least sure first: a list to review.
--
-- Printed as CSV, it goes back in: fill in `label` where you looked, leave it empty elsewhere,
-- and `plstore correct --file` takes it.
--
-- grain: one row per (sample_id)
-- param split varchar = 'unlabeled': of the images: labeled, unlabeled, validation or test
-- param teacher_id varchar = newest($split): whose labels
-- param iteration integer = newest($split): the iteration of those labels
-- param num_images bigint = 0: rows wanted; 0 for all
-- column key varchar: the file: its name in the dataset
-- column class_name varchar: the most probable class
-- column confidence float: its probability, 0 to 1
-- column margin float: the same less that of the second class, 0 to 1; null for a hard label
-- column second_class varchar: the next class, null for a hard label
-- column label varchar: the class that a person gave it; null until then
-- column teacher_id varchar: whose label it is
-- column iteration integer: the iteration it belongs to
-- column sample_id bigint: the image
with corrected as (
    select
        sample_id,
        arg_max(label, decided_at) as label
    from corrections
    group by sample_id
)

select
    images.key,
    class_name(labels.class_id) as class_name,
    labels.confidence,
    (labels.label.probs[1] - labels.label.probs[2])::float as margin,
    class_name(labels.label.class_ids[2]) as second_class,
    class_name(corrected.label) as label,
    labels.teacher_id,
    labels.iteration,
    labels.sample_id
from soft_labels as labels
inner join images on labels.sample_id = images.sample_id
left join corrected on labels.sample_id = corrected.sample_id
where
    labels.teacher_id = $teacher_id
    and labels.iteration = $iteration
    and labels.split = $split
order by labels.confidence asc, labels.sample_id asc
limit nullif($num_images, 0)
