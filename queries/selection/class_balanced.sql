-- What becomes of every pseudo-label: kept with how many copies, or dropped for which reason.
--
-- The policy `exact` of `plstore select` in one readable query, row by row the same. It sorts
-- all labels; `plstore select` does not, and takes a fraction of the time and memory.
--
-- The filter and balance step of Noisy Student (Xie et al. 2020, section 2 and 3.1): keep
-- confidence above the floor, at most the K most confident of each class, and duplicate the
-- images of smaller classes until the copies of every class add up to exactly K. The official
-- code rounds copies at random; here the remainder goes to images drawn by a seeded hash.
--
-- grain: one row per (sample_id)
-- param teacher_id varchar = newest(unlabeled): the teacher whose labels are selected
-- param iteration integer = newest(unlabeled): the iteration those labels belong to
-- param min_confidence float = 0.3: keep labels whose confidence (0 to 1) is above this
-- param images_per_class bigint = 0: K, what a class's copies add up to; 0 for an even share
-- param seed bigint = 0: draws the images that get one copy more
-- column sample_id bigint: the image
-- column class_id integer: the predicted class
-- column confidence float: the teacher's highest probability, 0 to 1
-- column outcome varchar: kept, excluded, held_out, corrected, low_confidence or over_quota
-- column copies bigint: draws in one pass over the view, 0 unless kept
with held_out as (
    select content_hash from images
    where split in ('validation', 'test', 'evaluation') and verdict = 'accepted'
),

-- An even share is one of the accepted unlabeled images, whole and 1 at least.
quota as (
    select
        case
            when $images_per_class::bigint > 0 then $images_per_class::bigint
            when $images_per_class::bigint < 0
                then error(
                    'images_per_class is ' || $images_per_class::varchar || '; wanted 0 or more'
                )
            else greatest(count(*) // (select greatest(count(*), 1) from classes), 1)
        end as images_per_class
    from images
    where split = 'unlabeled' and verdict = 'accepted'
),

candidates as (
    select
        labels.sample_id,
        labels.class_id,
        labels.confidence,
        case
            when labels.sample_id in (select exclusions.sample_id from exclusions)
                then 'excluded'
            -- The very bytes of an image that is held out.
            when images.content_hash in (select held_out.content_hash from held_out)
                then 'held_out'
            when labels.sample_id in (select corrections.sample_id from corrections)
                then 'corrected'
            when labels.confidence > $min_confidence::float then 'candidate'
            else 'low_confidence'
        end as standing
    from soft_labels as labels
    inner join images on labels.sample_id = images.sample_id
    where
        labels.teacher_id = $teacher_id
        and labels.iteration = $iteration
        and labels.split = 'unlabeled'
        and images.split = 'unlabeled'
        and images.verdict = 'accepted'
),

ranked as (
    select
        sample_id,
        class_id,
        confidence,
        standing,
        row_number() over (
            partition by class_id, standing
            order by confidence desc, sample_id asc
        ) as confidence_rank,
        row_number() over (
            partition by class_id, standing
            order by lottery(sample_id, $seed) asc, sample_id asc
        ) as lottery_rank,
        count(*) over (partition by class_id, standing) as num_candidates
    from candidates
)

select
    ranked.sample_id,
    ranked.class_id,
    ranked.confidence,
    case
        when ranked.standing != 'candidate' then ranked.standing
        when ranked.confidence_rank <= quota.images_per_class then 'kept'
        else 'over_quota'
    end as outcome,
    case
        when ranked.standing != 'candidate' or ranked.confidence_rank > quota.images_per_class
            then 0
        when ranked.num_candidates >= quota.images_per_class then 1
        else
            quota.images_per_class // ranked.num_candidates
            + (ranked.lottery_rank <= quota.images_per_class % ranked.num_candidates)::bigint
    end as copies
from ranked
cross join quota
order by ranked.sample_id asc
