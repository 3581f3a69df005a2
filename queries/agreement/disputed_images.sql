-- Unlabeled images that two teachers see most differently: the ones worth a person's look.
--
-- grain: one row per (sample_id)
-- param teacher_a varchar = previous(unlabeled): one teacher
-- param iteration_a integer = previous(unlabeled): the iteration of its labels
-- param teacher_b varchar = newest(unlabeled): the other teacher
-- param iteration_b integer = newest(unlabeled): the iteration of its labels
-- param num_images bigint = 20: rows wanted; 0 for all
-- column sample_id bigint: the image
-- column key varchar: its name in the dataset
-- column class_a varchar: what teacher A says
-- column class_b varchar: what teacher B says
-- column confidence_a float: how sure A is, 0 to 1
-- column confidence_b float: how sure B is, 0 to 1
-- column js float: Jensen-Shannon divergence, in nats: 0 to 0.69
select
    a.sample_id,
    images.key,
    names_a.name as class_a,
    names_b.name as class_b,
    a.confidence as confidence_a,
    b.confidence as confidence_b,
    js(a.label, b.label) as js
from soft_labels as a
inner join soft_labels as b on a.sample_id = b.sample_id
inner join images on a.sample_id = images.sample_id
inner join classes as names_a on a.class_id = names_a.class_id
inner join classes as names_b on b.class_id = names_b.class_id
where
    a.teacher_id = $teacher_a
    and a.iteration = $iteration_a
    and a.split = 'unlabeled'
    and b.teacher_id = $teacher_b
    and b.iteration = $iteration_b
    and b.split = 'unlabeled'
order by js desc, a.sample_id asc
limit nullif($num_images, 0)
