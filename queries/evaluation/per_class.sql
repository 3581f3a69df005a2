-- How good each teacher is at each class, with intervals.
--
-- grain: one row per (iteration, teacher_id, class_id)
-- param split varchar = 'test': of the images
-- param dataset varchar = '': of the images; all unless given
-- param among varchar = 'all': classes that may be said: all, or own, those of the dataset
-- column iteration integer: the iteration the labels belong to
-- column teacher_id varchar: the teacher
-- column class_id integer: the class
-- column class_name varchar: its name
-- column num_images bigint: images of the class
-- column recall double: of them, those that the teacher finds, 0 to 1
-- column low double: lower end of its 95 % interval, Wilson's
-- column high double: upper end of it
-- column num_predicted bigint: images that the teacher says are of the class
-- column precision double: of them, those that are right, 0 to 1
with seen as (
    select *
    from evaluated_among($split, $dataset, $among)
),

filed as (
    select
        iteration,
        teacher_id,
        true_id as class_id,
        count(*) as num_images,
        avg(coalesce(class_id = true_id, false)::integer) as recall
    from seen
    group by iteration, teacher_id, true_id
),

said as (
    select
        iteration,
        teacher_id,
        class_id,
        count(*) as num_predicted,
        avg((class_id = true_id)::integer) as precision
    from seen
    where class_id is not null
    group by iteration, teacher_id, class_id
)

select
    coalesce(filed.iteration, said.iteration) as iteration,
    coalesce(filed.teacher_id, said.teacher_id) as teacher_id,
    classes.class_id,
    classes.name as class_name,
    coalesce(filed.num_images, 0) as num_images,
    filed.recall,
    wilson_low(filed.recall, filed.num_images) as low,
    wilson_high(filed.recall, filed.num_images) as high,
    coalesce(said.num_predicted, 0) as num_predicted,
    said.precision
from filed
full outer join said
    on
        filed.iteration = said.iteration
        and filed.teacher_id = said.teacher_id
        and filed.class_id = said.class_id
inner join classes on coalesce(filed.class_id, said.class_id) = classes.class_id
order by iteration asc, teacher_id asc, classes.class_id asc
