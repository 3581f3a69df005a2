-- The images that a model sees as most similar to one image, the most similar first.
--
-- By the cosine of their embeddings, compared with every image that has one: exact.
--
-- grain: one row per (sample_id)
-- param sample_id bigint = -1: the image; -1 for the first that has an embedding
-- param num_images integer = 20: how many rows to return; 0 for all
-- param model varchar = '': whose embeddings; those that there are, if of one model alone
-- column sample_id bigint: an image like it
-- column split varchar: its split
-- column key varchar: its name in the dataset
-- column label_name varchar: its class, as people say; null if that is not known
-- column similarity float: cosine, -1 to 1
with corrected as (
    select
        sample_id,
        arg_max(label, decided_at) as label
    from corrections
    group by sample_id
),

embedded as materialized (
    select
        embeddings.sample_id,
        embeddings.vector
    from embeddings_of($model::varchar) as embeddings
),

asked as (
    select
        case
            when $sample_id::bigint = -1 then min(embedded.sample_id)
            when count(*) > 0 and count(*) filter (embedded.sample_id = $sample_id::bigint) = 0
                then error('image ' || $sample_id::varchar || ' has no embedding of this model')
            else $sample_id::bigint
        end as sample_id
    from embedded
),

-- One row: the vector of the image that was asked about.
own as (
    select
        min(embedded.sample_id) as sample_id,
        any_value(embedded.vector) as vector
    from embedded
    inner join asked on embedded.sample_id = asked.sample_id
),

compared as (
    select
        embedded.sample_id,
        list_cosine_similarity(embedded.vector, own.vector)::float as similarity
    from embedded
    cross join own
    where embedded.sample_id != own.sample_id
)

select
    images.sample_id,
    images.split,
    images.key,
    classes.name as label_name,
    compared.similarity
from compared
inner join images on compared.sample_id = images.sample_id
left join corrected on images.sample_id = corrected.sample_id
left join classes on coalesce(corrected.label, images.label) = classes.class_id
where images.verdict = 'accepted'
order by compared.similarity desc, images.sample_id asc
limit nullif($num_images, 0)
