-- Pairs of classes that two teachers disagree on most, over the unlabeled images.
--
-- grain: one row per (class_a, class_b)
-- param teacher_a varchar = previous(unlabeled): one teacher
-- param iteration_a integer = previous(unlabeled): the iteration of its labels
-- param teacher_b varchar = newest(unlabeled): the other teacher
-- param iteration_b integer = newest(unlabeled): the iteration of its labels
-- column class_a varchar: what teacher A says
-- column class_b varchar: what teacher B says
-- column num_images bigint: images on which they say so
-- column mean_confidence_a double: how sure A is, 0 to 1
-- column mean_confidence_b double: how sure B is, 0 to 1
select
    names_a.name as class_a,
    names_b.name as class_b,
    count(*) as num_images,
    avg(a.confidence) as mean_confidence_a,
    avg(b.confidence) as mean_confidence_b
from soft_labels as a
inner join soft_labels as b on a.sample_id = b.sample_id
inner join classes as names_a on a.class_id = names_a.class_id
inner join classes as names_b on b.class_id = names_b.class_id
where
    a.teacher_id = $teacher_a
    and a.iteration = $iteration_a
    and a.split = 'unlabeled'
    and b.teacher_id = $teacher_b
    and b.iteration = $iteration_b
    and b.split = 'unlabeled'
    and a.class_id != b.class_id
group by names_a.name, names_b.name
order by num_images desc, class_a asc, class_b asc
