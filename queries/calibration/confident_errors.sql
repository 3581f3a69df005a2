-- Validation images that a teacher gets wrong and is sure of: often a wrong label.
--
-- grain: one row per (iteration, teacher_id, sample_id)
-- needs: soft_labels of validation
-- param min_confidence float = 0.9: a mistake is confident above this confidence (0 to 1)
-- column iteration integer: the iteration the label belongs to
-- column teacher_id varchar: the teacher
-- column sample_id bigint: the image
-- column key varchar: its name in the dataset
-- column label_name varchar: the class it is filed under
-- column predicted_name varchar: the class the teacher sees
-- column confidence float: how sure the teacher is, 0 to 1
select
    labels.iteration,
    labels.teacher_id,
    labels.sample_id,
    images.key,
    filed.name as label_name,
    seen.name as predicted_name,
    labels.confidence
from soft_labels as labels
inner join images on labels.sample_id = images.sample_id
inner join classes as filed on images.label = filed.class_id
inner join classes as seen on labels.class_id = seen.class_id
where
    labels.split = 'validation'
    and labels.class_id != images.label
    and labels.confidence > $min_confidence::float
order by
    labels.iteration asc, labels.teacher_id asc, labels.confidence desc, labels.sample_id asc
