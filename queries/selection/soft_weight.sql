-- What every pseudo-label weighs: less, the further its confidence lies below the pool's mean.
--
-- The truncated Gaussian of SoftMatch (Chen et al. 2023, arXiv 2301.10921): 1 from the mean
-- confidence upwards, exp(-(mean - confidence)^2 / (2 variance)) below it. There is no floor:
-- only what would weigh next to nothing is dropped. SoftMatch follows mean and variance as
-- moving averages while it trains; here they are taken once, over the pool.
--
-- With uniform alignment, confidences are first those of distributions whose classes are
-- divided by their mean probabilities: classes that the teacher hardly ever sees weigh more.
-- The labels themselves stay as they are, as there.
--
-- grain: one row per (sample_id)
-- param teacher_id varchar = newest(unlabeled): the teacher whose labels are selected
-- param iteration integer = newest(unlabeled): the iteration those labels belong to
-- param align integer = 0: 1 for uniform alignment
-- param min_weight float = 0.01: drop images that would weigh less, above 0 and up to 1
-- column sample_id bigint: the image
-- column class_id integer: the predicted class
-- column confidence float: the teacher's highest probability, 0 to 1
-- column outcome varchar: kept, excluded, held_out, corrected or low_weight
-- column copies bigint: 1 if kept, else 0
-- column weight float: what it counts for in the loss, 0 to 1
with pool as (
    select
        sample_id,
        class_id,
        confidence,
        label,
        standing
    from candidates($teacher_id, $iteration)
),

probabilities as (
    select
        sample_id,
        standing,
        unnest(probs) as probability,
        unnest(range(len(probs))) as class_id
    from (
        select
            sample_id,
            standing,
            dense(label) as probs
        from pool
        where $align::integer = 1
    ) as distributions
),

-- Decimals add up exactly, so that a weight is the same on any number of threads.
class_means as (
    select
        class_id,
        avg(probability::decimal(18, 12)) as mean_probability
    from probabilities
    where standing = 'candidate'
    group by class_id
),

aligned as (
    select
        probabilities.sample_id,
        max(probability / mean_probability)
        / sum((probability / mean_probability)::decimal(38, 12))::double as confidence
    from probabilities
    inner join class_means on probabilities.class_id = class_means.class_id
    where class_means.mean_probability > 0
    group by probabilities.sample_id
),

sureness as (
    select
        pool.sample_id,
        pool.class_id,
        pool.confidence,
        pool.standing,
        coalesce(aligned.confidence, pool.confidence) as sure
    from pool
    left join aligned on pool.sample_id = aligned.sample_id
),

middle as (
    select avg(sure::decimal(18, 12)) as mean from sureness
    where standing = 'candidate'
),

spread as (
    select avg(power(sureness.sure - middle.mean, 2)::decimal(18, 15)) as variance
    from sureness
    cross join middle
    where sureness.standing = 'candidate'
),

weighed as (
    select
        sureness.sample_id,
        sureness.class_id,
        sureness.confidence,
        sureness.standing,
        case
            when sureness.sure >= middle.mean or spread.variance = 0 then 1
            else exp(-power(middle.mean - sureness.sure, 2) / (2 * spread.variance))
        end::float as weight
    from sureness
    cross join middle
    cross join spread
),

decided as (
    select
        sample_id,
        class_id,
        confidence,
        weight,
        case
            when $align::integer not in (0, 1)
                then error('align is ' || $align::varchar || '; wanted 0 or 1')
            when not ($min_weight::double > 0 and $min_weight::double <= 1)
                then error(
                    'min_weight is ' || $min_weight::varchar || '; wanted above 0, up to 1'
                )
            when standing != 'candidate' then standing
            when weight >= $min_weight::float then 'kept'
            else 'low_weight'
        end as outcome
    from weighed
)

select
    sample_id,
    class_id,
    confidence,
    outcome,
    (outcome = 'kept')::bigint as copies,
    coalesce(weight, 0) as weight
from decided
order by sample_id asc
