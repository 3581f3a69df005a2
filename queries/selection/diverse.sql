-- What becomes of every pseudo-label when no neighbourhood of the pool may crowd out others.
--
-- Embeddings are dealt into buckets by locality-sensitive hashing with random projections
-- (Charikar 2002, "Similarity estimation techniques from rounding algorithms"; entries of +1
-- and -1, Achlioptas 2003): each bit of a bucket's number says on which side of a random
-- hyperplane through the pool's middle the image lies. Of a bucket that holds too many, the
-- most confident are kept: near-copies go, and what is rare stays.
--
-- grain: one row per (sample_id)
-- param teacher_id varchar = newest(unlabeled): the teacher whose labels are selected
-- param iteration integer = newest(unlabeled): the iteration those labels belong to
-- param min_confidence float = 0.3: keep labels whose confidence (0 to 1) is above this
-- param per_bucket bigint = 0: keep at most so many of a bucket; 0 for the mean of the buckets
-- param num_bits integer = 8: hyperplanes, up to 30: two to this power are the most buckets
-- param model varchar = '': whose embeddings; those that there are, if of one model alone
-- param seed bigint = 0: draws the hyperplanes
-- column sample_id bigint: the image
-- column class_id integer: the predicted class
-- column confidence float: the teacher's highest probability, 0 to 1
-- column bucket bigint: where it was dealt; null if it was not
-- column outcome varchar: kept, crowded, not_embedded, or why it is no candidate
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

dimensions as (
    select unnest(range((
        select max(len(vector)) from embeddings_of($model::varchar)
    ))) as dimension
),

planes as (
    select
        bits.bit,
        list(
            case
                when lottery(bits.bit * 65536 + dimensions.dimension, $seed::bigint) % 2 = 0
                    then 1::float
                else -1::float
            end
            order by dimensions.dimension
        ) as plane
    from (select unnest(range($num_bits::integer)) as bit) as bits
    cross join dimensions
    group by bits.bit
),

-- All planes in one row: no pair of an image and a plane is ever held.
hashing as (
    select list(plane order by bit) as all_planes from planes
),

projected as (
    select
        sample_id,
        list_transform(
            all_planes,
            lambda plane: list_inner_product(vector, plane)
            / greatest(sqrt(list_inner_product(vector, vector)), 1e-20)
        ) as places
    from embeddings_of($model::varchar)
    cross join hashing
    where split = 'unlabeled'
),

projections as (
    select
        pool.sample_id,
        unnest(projected.places) as place,
        unnest(range($num_bits::integer)) as bit
    from pool
    inner join projected on pool.sample_id = projected.sample_id
    where pool.standing = 'candidate'
),

-- Decimals add up exactly, so that the middle is the same on any number of threads.
middles as (
    select
        bit,
        avg(place::decimal(18, 9)) as middle
    from projections
    group by bit
),

buckets as (
    select
        projections.sample_id,
        sum(
            case
                when projections.place > middles.middle then power(2, projections.bit)
                else 0
            end
        )::bigint as bucket
    from projections
    inner join middles on projections.bit = middles.bit
    group by projections.sample_id
),

ranked as (
    select
        buckets.sample_id,
        buckets.bucket,
        row_number() over (
            partition by buckets.bucket
            order by pool.confidence desc, pool.sample_id asc
        ) as bucket_rank
    from buckets
    inner join pool on buckets.sample_id = pool.sample_id
),

quotas as (
    select
        case
            when $per_bucket::bigint > 0 then $per_bucket::bigint
            else ceil(count(*) / count(distinct bucket))
        end as quota
    from ranked
),

decided as (
    select
        pool.sample_id,
        pool.class_id,
        pool.confidence,
        ranked.bucket,
        case
            when $num_bits::integer not between 1 and 30
                then error('num_bits is ' || $num_bits::varchar || '; wanted 1 to 30')
            when $per_bucket::bigint < 0
                then error('per_bucket is ' || $per_bucket::varchar || '; wanted 0 or more')
            when pool.standing != 'candidate' then pool.standing
            when ranked.bucket is null then 'not_embedded'
            when ranked.bucket_rank <= (select quotas.quota from quotas) then 'kept'
            else 'crowded'
        end as outcome
    from pool
    left join ranked on pool.sample_id = ranked.sample_id
)

select
    sample_id,
    class_id,
    confidence,
    bucket,
    outcome,
    (outcome = 'kept')::bigint as copies
from decided
order by sample_id asc
