-- The confusion matrix of each teacher on validation images, as pairs of classes.
--
-- grain: one row per (iteration, teacher_id, label_name, predicted_name)
-- needs: soft_labels of validation
-- column iteration integer: the iteration the labels belong to
-- column teacher_id varchar: the teacher
-- column label_name varchar: the class an image is filed under
-- column predicted_name varchar: the class the teacher sees
-- column num_images bigint: validation images
-- column mean_confidence double: how sure the teacher is of them, 0 to 1
select
    labels.iteration,
    labels.teacher_id,
    filed.name as label_name,
    seen.name as predicted_name,
    count(*) as num_images,
    avg(labels.confidence) as mean_confidence
from soft_labels as labels
inner join images on labels.sample_id = images.sample_id
inner join classes as filed on images.label = filed.class_id
inner join classes as seen on labels.class_id = seen.class_id
where labels.split = 'validation'
group by labels.iteration, labels.teacher_id, filed.name, seen.name
order by
    labels.iteration asc,
    labels.teacher_id asc,
    num_images desc,
    label_name asc,
    predicted_name asc
