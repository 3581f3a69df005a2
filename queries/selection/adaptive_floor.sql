-- What becomes of every pseudo-label when each class has a floor of its own, from the pool.
--
-- The self-adaptive threshold of FreeMatch (Wang et al. 2023, arXiv 2205.07246): the mean
-- confidence of the pool, times the ratio of the class's mean probability to that of the class
-- where it is largest. So a class that the teacher hardly ever sees has a low floor. FreeMatch
-- follows both as moving averages while it trains; here they are taken once, over the labels
-- that a student is going to train on. As in its code, a confidence at the floor is kept.
--
-- grain: one row per (sample_id)
-- param teacher_id varchar = newest(unlabeled): the teacher whose labels are selected
-- param iteration integer = newest(unlabeled): the iteration those labels belong to
-- column sample_id bigint: the image
-- column class_id integer: the predicted class
-- column confidence float: the teacher's highest probability, 0 to 1
-- column class_floor float: what it must reach, 0 to 1
-- column outcome varchar: kept, excluded, held_out, corrected or low_confidence
-- column copies bigint: 1 if kept, else 0
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
        unnest(probs) as probability,
        unnest(range(len(probs))) as class_id
    from (
        select dense(label) as probs from pool
        where standing = 'candidate'
    ) as distributions
),

-- Decimals add up exactly, so that a floor is the same on any number of threads.
class_means as (
    select
        class_id,
        avg(probability::decimal(18, 12)) as mean_probability
    from probabilities
    group by class_id
),

middle as (
    select avg(confidence::decimal(18, 12)) as mean_confidence from pool
    where standing = 'candidate'
),

floors as (
    select
        class_means.class_id,
        (
            middle.mean_confidence
            * class_means.mean_probability / max(class_means.mean_probability) over ()
        )::float as class_floor
    from class_means
    cross join middle
),

decided as (
    select
        pool.sample_id,
        pool.class_id,
        pool.confidence,
        floors.class_floor,
        case
            when pool.standing != 'candidate' then pool.standing
            when pool.confidence >= floors.class_floor then 'kept'
            else 'low_confidence'
        end as outcome
    from pool
    left join floors on pool.class_id = floors.class_id
)

select
    sample_id,
    class_id,
    confidence,
    class_floor,
    outcome,
    (outcome = 'kept')::bigint as copies
from decided
order by sample_id asc
