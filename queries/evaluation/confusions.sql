-- The confusion matrix of each teacher, as pairs of classes.
--
-- grain: one row per (iteration, teacher_id, true_name, predicted_name)
-- param split varchar = 'test': of the images
-- param dataset varchar = '': of the images; all unless given
-- param among varchar = 'all': classes that may be said: all, or own, those of the dataset
-- column iteration integer: the iteration the labels belong to
-- column teacher_id varchar: the teacher
-- column true_name varchar: the class an image is of
-- column predicted_name varchar: the class the teacher sees; null: none of those it may say
-- column num_images bigint: such images
-- column mean_confidence double: how sure the teacher is of them, 0 to 1
select
    seen.iteration,
    seen.teacher_id,
    filed.name as true_name,
    said.name as predicted_name,
    count(*) as num_images,
    avg(coalesce(seen.confidence, 0)) as mean_confidence
from evaluated_among($split, $dataset, $among) as seen
inner join classes as filed on seen.true_id = filed.class_id
left join classes as said on seen.class_id = said.class_id
group by seen.iteration, seen.teacher_id, filed.name, said.name
order by
    seen.iteration asc,
    seen.teacher_id asc,
    num_images desc,
    true_name asc,
    predicted_name asc
