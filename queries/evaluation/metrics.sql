-- What each teacher is worth on labeled images that no one trains on: every metric, a row each.
--
-- By the labels that people corrected. The interval of the accuracy is Wilson's; the expected
-- calibration error (Guo et al. 2017) has 15 bins of equal width; the Brier score sums over
-- classes. Classes that a label does not keep share what is left of it; null is what labels do
-- not tell: those of fewer than five classes, or of one.
--
-- grain: one row per (iteration, teacher_id)
-- param split varchar = 'test': of the images
-- param dataset varchar = '': of the images; all unless given
-- param among varchar = 'all': classes that may be said: all, or own, those of the dataset
-- column iteration integer: the iteration the labels belong to
-- column teacher_id varchar: the teacher
-- column num_images bigint: images of known class that it labeled
-- column accuracy double: top-1, 0 to 1
-- column low double: lower end of its 95 % interval
-- column high double: upper end of it
-- column top5_accuracy double: share of images whose class is among the first five, 0 to 1
-- column nll double: negative log-likelihood, in nats
-- column brier double: Brier score, 0 to 2
-- column ece double: expected calibration error, 0 to 1
-- column mean_confidence double: 0 to 1
with seen as (
    select
        iteration,
        teacher_id,
        confidence,
        prob(label, true_id)::double as probability,
        coalesce(class_id = true_id, false)::integer as is_right,
        coalesce(list_contains(label.class_ids[1:5], true_id), false)::integer as is_in_five,
        len(label.class_ids) as num_kept,
        list_sum(list_transform(dense(label), lambda p: p::double * p)) as squares
    from evaluated_among($split, $dataset, $among)
),

gaps as (
    select
        iteration,
        teacher_id,
        abs(sum(coalesce(confidence, 0)::double) - sum(is_right)) as gap
    from seen
    group by iteration, teacher_id, least(floor(coalesce(confidence, 0) * 15), 14)
),

calibration as (
    select
        iteration,
        teacher_id,
        sum(gap) as gap
    from gaps
    group by iteration, teacher_id
),

means as (
    select
        iteration,
        teacher_id,
        count(*) as num_images,
        avg(is_right) as accuracy,
        min(num_kept) as num_kept,
        avg(is_in_five) as top5_accuracy,
        avg(-ln(greatest(probability, 1e-12))) as nll,
        avg(squares - 2 * probability + 1) as brier,
        avg(coalesce(confidence, 0)::double) as mean_confidence
    from seen
    group by iteration, teacher_id
),

sizes as (
    select count(*) as num_classes
    from classes
)

select
    means.iteration,
    means.teacher_id,
    means.num_images,
    means.accuracy,
    wilson_low(means.accuracy, means.num_images) as low,
    wilson_high(means.accuracy, means.num_images) as high,
    if(means.num_kept >= least(5, sizes.num_classes), means.top5_accuracy, null)
        as top5_accuracy,
    if(means.num_kept >= least(2, sizes.num_classes), means.nll, null) as nll,
    if(means.num_kept >= least(2, sizes.num_classes), means.brier, null) as brier,
    calibration.gap / means.num_images as ece,
    means.mean_confidence
from means
inner join calibration
    on means.iteration = calibration.iteration and means.teacher_id = calibration.teacher_id
cross join sizes
order by means.iteration asc, means.teacher_id asc
