-- Labels that each teacher gave to each class of the unlabeled images above a confidence floor.
--
-- grain: one row per (iteration, teacher_id, class_id)
-- needs: soft_labels of unlabeled
-- param min_confidence float = 0.0: count labels whose confidence (0 to 1) is above this
-- column iteration integer: the iteration the labels belong to
-- column teacher_id varchar: the teacher that gave them
-- column class_id integer: the predicted class
-- column class_name varchar: its name
-- column num_labels bigint: labels above the floor
-- column mean_confidence double: mean confidence of those labels, 0 to 1
select
    labels.iteration,
    labels.teacher_id,
    labels.class_id,
    classes.name as class_name,
    count(*) as num_labels,
    avg(labels.confidence) as mean_confidence
from soft_labels as labels
inner join classes on labels.class_id = classes.class_id
where labels.split = 'unlabeled' and labels.confidence > $min_confidence::float
group by labels.iteration, labels.teacher_id, labels.class_id, classes.name
order by labels.iteration asc, labels.teacher_id asc, labels.class_id asc
