-- Unlabeled images that a teacher is torn about: the smallest lead of the first class.
--
-- grain: one row per (sample_id)
-- param teacher_id varchar = newest(unlabeled): the teacher
-- param iteration integer = newest(unlabeled): the iteration of its labels
-- param num_images bigint = 20: rows wanted; 0 for all
-- column sample_id bigint: the image
-- column key varchar: its name in the dataset
-- column first_name varchar: the most probable class
-- column second_name varchar: the next one
-- column margin float: the probability of the first less that of the second, 0 to 1
-- column entropy float: of the whole distribution, in nats
select
    labels.sample_id,
    images.key,
    firsts.name as first_name,
    seconds.name as second_name,
    (labels.label.probs[1] - labels.label.probs[2])::float as margin,
    labels.entropy
from soft_labels as labels
inner join images on labels.sample_id = images.sample_id
inner join classes as firsts on labels.class_id = firsts.class_id
inner join classes as seconds on labels.label.class_ids[2] = seconds.class_id
where
    labels.teacher_id = $teacher_id
    and labels.iteration = $iteration
    and labels.split = 'unlabeled'
order by margin asc, labels.sample_id asc
limit nullif($num_images, 0)
