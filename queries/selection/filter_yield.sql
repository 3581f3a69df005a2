-- What a floor of confidence leaves of each class, before any balancing.
--
-- grain: one row per (class_id)
-- param teacher_id varchar = newest(unlabeled): the teacher whose labels would be selected
-- param iteration integer = newest(unlabeled): the iteration those labels belong to
-- param min_confidence float = 0.3: keep labels whose confidence (0 to 1) is above this
-- column class_id integer: the predicted class
-- column class_name varchar: its name
-- column num_labels bigint: unlabeled images that are predicted to be of it
-- column num_kept bigint: of them, those above the floor
-- column yield double: the share that is kept, 0 to 1; null where nothing is predicted
with labels as (
    select
        class_id,
        confidence
    from soft_labels
    where teacher_id = $teacher_id and iteration = $iteration and split = 'unlabeled'
)

select
    classes.class_id,
    classes.name as class_name,
    count(labels.class_id) as num_labels,
    count(*) filter (labels.confidence > $min_confidence::float) as num_kept,
    count(*) filter (labels.confidence > $min_confidence::float)
    / nullif(count(labels.class_id), 0) as yield
from classes
left join labels on classes.class_id = labels.class_id
group by classes.class_id, classes.name
order by classes.class_id asc
