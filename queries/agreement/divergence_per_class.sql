-- How far apart the distributions of two teachers are, by the class that the first one says.
--
-- grain: one row per (class_id)
-- param teacher_a varchar = previous(unlabeled): one teacher
-- param iteration_a integer = previous(unlabeled): the iteration of its labels
-- param teacher_b varchar = newest(unlabeled): the other teacher
-- param iteration_b integer = newest(unlabeled): the iteration of its labels
-- column class_id integer: what teacher A says
-- column class_name varchar: its name
-- column num_images bigint: unlabeled images that both have labeled
-- column share_agreed double: of them, those for which B says the same, 0 to 1
-- column mean_js double: mean Jensen-Shannon divergence, in nats: 0 to 0.69
select
    a.class_id,
    classes.name as class_name,
    count(*) as num_images,
    avg((a.class_id = b.class_id)::integer) as share_agreed,
    avg(js(a.label, b.label)) as mean_js
from soft_labels as a
inner join soft_labels as b on a.sample_id = b.sample_id
inner join classes on a.class_id = classes.class_id
where
    a.teacher_id = $teacher_a
    and a.iteration = $iteration_a
    and a.split = 'unlabeled'
    and b.teacher_id = $teacher_b
    and b.iteration = $iteration_b
    and b.split = 'unlabeled'
group by a.class_id, classes.name
order by mean_js desc, a.class_id asc
