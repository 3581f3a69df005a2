-- What becomes of every pseudo-label when only what looks like its class is retrieved.
--
-- Of the images that are predicted to be of a class, those are kept whose embeddings have the
-- highest cosine similarity to the labeled images of that class: to their mean (a prototype, as
-- in Snell et al. 2017, arXiv 1703.05175), or to the nearest of them. That takes a comparison
-- an image for the mean, and one for each labeled image of the class for the nearest.
--
-- grain: one row per (sample_id)
-- param teacher_id varchar = newest(unlabeled): the teacher whose labels are selected
-- param iteration integer = newest(unlabeled): the iteration those labels belong to
-- param min_confidence float = 0.3: keep labels whose confidence (0 to 1) is above this
-- param share float = 0.5: of each class, keep the most similar, 0 to 1 of its candidates
-- param near varchar = 'mean': mean, or image for the nearest labeled image of the class
-- param model varchar = '': whose embeddings; those that there are, if of one model alone
-- column sample_id bigint: the image
-- column class_id integer: the predicted class
-- column confidence float: the teacher's highest probability, 0 to 1
-- column similarity float: cosine, -1 to 1; null if it was not compared
-- column outcome varchar: kept, far, not_embedded, class_not_embedded, or why no candidate
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
        vector,
        greatest(sqrt(list_inner_product(vector, vector)), 1e-20) as length
    from embeddings_of($model::varchar)
),

labeled as (
    select
        images.class_id,
        embedded.vector,
        embedded.length
    from labeled_images() as images
    inner join embedded on images.sample_id = embedded.sample_id
),

entries as (
    select
        class_id,
        length,
        unnest(vector) as entry,
        unnest(range(len(vector))) as dimension
    from labeled
    where $near::varchar = 'mean'
),

-- Of unit vectors. Decimals add up exactly: it is the same on any number of threads.
means as (
    select
        class_id,
        dimension,
        avg((entry / length)::decimal(18, 12)) as entry
    from entries
    group by class_id, dimension
),

anchors as (
    select
        class_id,
        list(entry::float order by dimension) as vector,
        greatest(sqrt(sum(power(entry, 2)::decimal(18, 15))), 1e-20) as length
    from means
    group by class_id
    union all
    select
        class_id,
        vector,
        length
    from labeled
    where $near::varchar = 'image'
),

-- All of them in one row: no pair of an image and an anchor is ever held.
compared_with as (
    select list(anchors) as all_anchors from anchors
),

compared as (
    select
        pool.sample_id,
        list_max(list_transform(
            compared_with.all_anchors,
            lambda anchor: case
                when anchor['class_id'] = pool.class_id
                    then
                        list_inner_product(embedded.vector, anchor['vector'])
                        / (embedded.length * anchor['length'])
            end
        ))::float as similarity
    from pool
    inner join embedded on pool.sample_id = embedded.sample_id
    cross join compared_with
    where pool.standing = 'candidate'
),

ranked as (
    select
        compared.sample_id,
        compared.similarity,
        row_number() over (
            partition by pool.class_id
            order by compared.similarity desc, pool.sample_id asc
        ) as class_rank,
        count(*) over (partition by pool.class_id) as num_compared
    from compared
    inner join pool on compared.sample_id = pool.sample_id
),

decided as (
    select
        pool.sample_id,
        pool.class_id,
        pool.confidence,
        ranked.similarity,
        case
            when $near::varchar not in ('mean', 'image')
                then error('near is ' || $near::varchar || '; wanted mean or image')
            when $share::double not between 0 and 1
                then error('share is ' || $share::varchar || '; wanted 0 to 1')
            when pool.standing != 'candidate' then pool.standing
            when ranked.sample_id is null then 'not_embedded'
            when ranked.similarity is null then 'class_not_embedded'
            when ranked.class_rank <= ceil($share::double * ranked.num_compared) then 'kept'
            else 'far'
        end as outcome
    from pool
    left join ranked on pool.sample_id = ranked.sample_id
)

select
    sample_id,
    class_id,
    confidence,
    similarity,
    outcome,
    (outcome = 'kept')::bigint as copies
from decided
order by sample_id asc
