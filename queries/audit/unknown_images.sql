-- Soft labels of images that are not in the store, or were refused at import. None is right.
--
-- grain: one row per (iteration, teacher_id, sample_id)
-- column iteration integer: the iteration the label belongs to
-- column teacher_id varchar: the teacher that gave it
-- column sample_id bigint: the image that should not have a label
-- column verdict varchar: why the image is refused, null where there is no such image
select
    labels.iteration,
    labels.teacher_id,
    labels.sample_id,
    images.verdict
from soft_labels as labels
left join images on labels.sample_id = images.sample_id
where images.verdict is null or images.verdict != 'accepted'
order by labels.iteration asc, labels.teacher_id asc, labels.sample_id asc
