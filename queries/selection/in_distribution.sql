-- What becomes of every pseudo-label when images unlike all labeled ones are left out.
--
-- An image is as far as the nearest class mean of the labeled images (the nearest class mean
-- classifier, Mensink et al. 2013; the Mahalanobis detector of Lee et al. 2018, arXiv
-- 1807.03888, with a covariance of 1), between embeddings of length 1. It is out of the
-- distribution if it is further than a share of the known images: validation images as they
-- are, labeled ones from means that leave them out. For n images of a class, leaving one out
-- takes it n / (n - 1) times as far from the mean of its class.
--
-- grain: one row per (sample_id)
-- param teacher_id varchar = newest(unlabeled): the teacher whose labels are selected
-- param iteration integer = newest(unlabeled): the iteration those labels belong to
-- param min_confidence float = 0.3: keep labels whose confidence (0 to 1) is above this
-- param quantile float = 0.95: the share of known images that are nearer than the limit, 0 to 1
-- param model varchar = '': whose embeddings; those that there are, if of one model alone
-- column sample_id bigint: the image
-- column class_id integer: the predicted class
-- column confidence float: the teacher's highest probability, 0 to 1
-- column distance float: to the nearest class mean, 0 to 2; null without an embedding
-- column outcome varchar: kept, out_of_distribution, not_embedded, or why no candidate
-- column copies bigint: 1 if kept, else 0
with pool as (
    select
        sample_id,
        class_id,
        confidence,
        case
            when standing != 'candidate' then standing
            when confidence > $min_confidence::float then 'candidate'
            else 'low_confidence'
        end as standing
    from candidates($teacher_id, $iteration)
),

embedded as (
    select
        sample_id,
        split,
        vector,
        greatest(sqrt(list_inner_product(vector, vector)), 1e-20) as length
    from embeddings_of($model::varchar)
),

entries as (
    select
        labeled.class_id,
        embedded.length,
        unnest(embedded.vector) as entry,
        unnest(range(len(embedded.vector))) as dimension
    from labeled_images() as labeled
    inner join embedded on labeled.sample_id = embedded.sample_id
),

-- Decimals add up exactly, so that a mean is the same on any number of threads.
mean_entries as (
    select
        class_id,
        dimension,
        count(*) as num_images,
        avg((entry / length)::decimal(18, 12))::float as entry
    from entries
    group by class_id, dimension
),

means as (
    select
        class_id,
        max(num_images) as num_images,
        list(entry order by dimension) as center,
        sum(power(entry, 2)::decimal(18, 15))::double as center_squared
    from mean_entries
    group by class_id
),

-- All of them in one row: no pair of an image and a class is ever held.
classes_known as (
    select list(means order by means.class_id) as all_means from means
),

-- |x - m|^2 = 1 - 2 x m + |m|^2 for an x of length 1; nothing is left of the mean of one image.
measured as (
    select
        embedded.sample_id,
        embedded.split,
        labeled.class_id,
        sqrt(list_min(list_transform(
            classes_known.all_means,
            lambda known: greatest(
                1 + known['center_squared']
                - 2 * list_inner_product(embedded.vector, known['center']) / embedded.length,
                0
            )
            * case
                when labeled.class_id is distinct from known['class_id'] then 1
                when known['num_images'] > 1
                    then power(known['num_images'] / (known['num_images'] - 1), 2)
            end
        ))) as distance
    from embedded
    left join labeled_images() as labeled on embedded.sample_id = labeled.sample_id
    cross join classes_known
),

known as (
    select
        distance,
        row_number() over (order by distance asc, sample_id asc) as distance_rank,
        count(*) over () as num_known
    from measured
    where (class_id is not null or split = 'validation') and distance is not null
),

limits as (
    select min(distance) as limit_distance
    from known
    where distance_rank >= $quantile::double * num_known
),

decided as (
    select
        pool.sample_id,
        pool.class_id,
        pool.confidence,
        measured.distance,
        case
            when $quantile::double not between 0 and 1
                then error('quantile is ' || $quantile::varchar || '; wanted 0 to 1')
            when pool.standing != 'candidate' then pool.standing
            when limits.limit_distance is null
                then error(
                    'no labeled image has embeddings of this model, so nothing is known of '
                    || 'their distribution; ''plstore embed'' makes them'
                )
            when measured.sample_id is null then 'not_embedded'
            when measured.distance <= limits.limit_distance then 'kept'
            else 'out_of_distribution'
        end as outcome
    from pool
    cross join limits
    left join measured on pool.sample_id = measured.sample_id
)

select
    sample_id,
    class_id,
    confidence,
    distance::float as distance,
    outcome,
    (outcome = 'kept')::bigint as copies
from decided
order by sample_id asc
