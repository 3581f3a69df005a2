-- How good each teacher is at each class, on validation images.
--
-- grain: one row per (iteration, teacher_id, class_id)
-- needs: soft_labels of validation
-- column iteration integer: the iteration the labels belong to
-- column teacher_id varchar: the teacher
-- column class_id integer: the class
-- column class_name varchar: its name
-- column num_images bigint: validation images of the class
-- column num_predicted bigint: validation images that the teacher says are of it
-- column recall double: of the first, those that the teacher finds, 0 to 1
-- column precision double: of the second, those that are right, 0 to 1
with known as (
    select
        labels.iteration,
        labels.teacher_id,
        labels.class_id,
        images.label
    from soft_labels as labels
    inner join images on labels.sample_id = images.sample_id
    where labels.split = 'validation' and images.label is not null
)

select
    known.iteration,
    known.teacher_id,
    classes.class_id,
    classes.name as class_name,
    count(*) filter (known.label = classes.class_id) as num_images,
    count(*) filter (known.class_id = classes.class_id) as num_predicted,
    count(*) filter (known.class_id = classes.class_id and known.label = classes.class_id)
    / nullif(count(*) filter (known.label = classes.class_id), 0) as recall,
    count(*) filter (known.class_id = classes.class_id and known.label = classes.class_id)
    / nullif(count(*) filter (known.class_id = classes.class_id), 0) as precision
from known
inner join classes on known.label = classes.class_id or known.class_id = classes.class_id
group by known.iteration, known.teacher_id, classes.class_id, classes.name
order by known.iteration asc, known.teacher_id asc, classes.class_id asc
