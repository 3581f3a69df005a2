-- What each teacher is worth on images of which several classes are right.
--
-- A source, such as ReaL (Beyer et al. 2020) or ObjectNet, accepts some classes of each image;
-- those of which it accepts none are left out, as its authors do.
--
-- grain: one row per (source, iteration, teacher_id)
-- param split varchar = 'test': of the images
-- param dataset varchar = '': of the images; all unless given
-- param source varchar = '': who accepts classes; everyone unless given
-- param among varchar = 'all': classes that may be said: all, or own, those of the dataset
-- column source varchar: who accepts them
-- column iteration integer: the iteration the labels belong to
-- column teacher_id varchar: the teacher
-- column num_images bigint: images of which the source accepts a class
-- column accuracy double: share whose likeliest class is accepted, 0 to 1
-- column low double: lower end of its 95 % interval, Wilson's
-- column high double: upper end of it
-- column top5_accuracy double: share with an accepted class among the first five, 0 to 1
with seen as (
    select
        source,
        iteration,
        teacher_id,
        coalesce(list_contains(accepted_ids, class_id), false)::integer as is_right,
        coalesce(list_has_any(accepted_ids, label.class_ids[1:5]), false)::integer
            as is_in_five,
        len(label.class_ids) as num_kept
    from accepted($split, $dataset, $source, $among)
),

means as (
    select
        source,
        iteration,
        teacher_id,
        count(*) as num_images,
        avg(is_right) as accuracy,
        avg(is_in_five) as top5_accuracy,
        min(num_kept) as num_kept
    from seen
    group by source, iteration, teacher_id
),

sizes as (
    select count(*) as num_classes
    from classes
)

select
    means.source,
    means.iteration,
    means.teacher_id,
    means.num_images,
    means.accuracy,
    wilson_low(means.accuracy, means.num_images) as low,
    wilson_high(means.accuracy, means.num_images) as high,
    if(means.num_kept >= least(5, sizes.num_classes), means.top5_accuracy, null)
        as top5_accuracy
from means
cross join sizes
order by means.source asc, means.iteration asc, means.teacher_id asc
