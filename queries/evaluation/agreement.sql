-- Teacher, student and control side by side: how alike two of them label the same images.
--
-- Where a teacher says none of the classes that it may, it differs, and has no divergence.
--
-- grain: one row per (teacher_a, iteration_a, teacher_b, iteration_b)
-- param split varchar = 'test': of the images
-- param dataset varchar = '': of the images; all unless given
-- param among varchar = 'all': classes that may be said: all, or own, those of the dataset
-- column teacher_a varchar: one teacher
-- column iteration_a integer: the iteration of its labels
-- column teacher_b varchar: the other one, later in order
-- column iteration_b integer: the iteration of its labels
-- column num_images bigint: images of known class that both labeled
-- column same_top1 double: share of them for which both say the same class, 0 to 1
-- column same_top5 double: mean share of the first five classes of A that are B's too, 0 to 1
-- column mean_kl double: mean Kullback-Leibler divergence of A from B, in nats
-- column only_a double: share of images that A alone has right, 0 to 1
-- column only_b double: share of images that B alone has right, 0 to 1
with seen as (
    select
        *,
        coalesce(class_id = true_id, false) as is_right
    from evaluated_among($split, $dataset, $among)
)

select
    a.teacher_id as teacher_a,
    a.iteration as iteration_a,
    b.teacher_id as teacher_b,
    b.iteration as iteration_b,
    count(*) as num_images,
    avg(coalesce(a.class_id = b.class_id, false)::integer) as same_top1,
    avg(
        len(list_intersect(a.label.class_ids[1:5], b.label.class_ids[1:5]))
        / least(len(a.label.class_ids), 5)
    ) as same_top5,
    avg(kl(a.label, b.label)) as mean_kl,
    avg((a.is_right and not b.is_right)::integer) as only_a,
    avg((b.is_right and not a.is_right)::integer) as only_b
from seen as a
inner join seen as b
    on
        a.sample_id = b.sample_id
        and (a.iteration, a.teacher_id) < (b.iteration, b.teacher_id)
group by a.iteration, a.teacher_id, b.iteration, b.teacher_id
order by a.iteration asc, a.teacher_id asc, b.iteration asc, b.teacher_id asc
