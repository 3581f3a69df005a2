-- The images that are least like any others, as a model sees them, the least first.
--
-- By the cosine of an image's embedding to that of its k-th nearest among all images: exact.
-- The score of Ramaswamy et al. 2000, section 3, and of Sun et al. 2022 (arXiv 2204.06507).
-- Often what belongs to no class, was cut off, or is of another kind.
--
-- grain: one row per (sample_id)
-- param split varchar = 'unlabeled': whose images; all with ''
-- param k integer = 5: the similarity is that to the k-th nearest image, 1 or more
-- param num_images integer = 100: how many rows to return; 0 for all
-- param model varchar = '': whose embeddings; those that there are, if of one model alone
-- column sample_id bigint: the image
-- column split varchar: its split
-- column key varchar: its name in the dataset
-- column similarity float: cosine to its k-th nearest, or the last of fewer, -1 to 1
-- column nearest_id bigint: the image that is most similar to it
-- column nearest_similarity float: cosine to that, -1 to 1
with embedded as (
    select
        images.sample_id,
        images.split,
        images.key,
        embeddings.vector
    from embeddings_of($model::varchar) as embeddings
    inner join images on embeddings.sample_id = images.sample_id
    where
        images.verdict = 'accepted'
        and images.sample_id not in (select exclusions.sample_id from exclusions)
),

everyone as (
    select
        list(sample_id order by sample_id asc) as ids,
        list(vector order by sample_id asc) as vectors
    from embedded
),

asked as (
    select
        list(sample_id order by sample_id asc) as ids,
        list(vector order by sample_id asc) as vectors
    from embedded
    where case
        when $split::varchar in ('', 'labeled', 'unlabeled', 'validation', 'test', 'evaluation')
            then $split::varchar
        else
            error(
                'split is ' || $split::varchar
                || '; wanted labeled, unlabeled, validation, test or evaluation'
            )
    end in ('', split)
),

-- One more than k: an image is its own nearest.
found as (
    select
        everyone.ids as everyone_ids,
        unnest(asked.ids) as sample_id,
        unnest(neighbors(
            asked.vectors,
            everyone.vectors,
            case
                when $k::integer < 1
                    then error('k is ' || $k::varchar || '; wanted 1 or more')::integer
                else $k::integer + 1
            end
        )) as near
    from asked
    cross join everyone
),

others as (
    select
        sample_id,
        everyone_ids[unnest(near)['place']] as other_id,
        unnest(near)['similarity'] as similarity
    from found
),

ranked as (
    select
        sample_id,
        other_id,
        similarity,
        row_number() over (
            partition by sample_id order by similarity desc, other_id asc
        ) as place
    from others
    where other_id != sample_id
),

scores as (
    select
        sample_id,
        min(similarity) as similarity,
        min(other_id) filter (place = 1) as nearest_id,
        max(similarity) as nearest_similarity
    from ranked
    where place <= $k::integer
    group by sample_id
)

select
    scores.sample_id,
    embedded.split,
    embedded.key,
    scores.similarity,
    scores.nearest_id,
    scores.nearest_similarity
from scores
inner join embedded on scores.sample_id = embedded.sample_id
order by scores.similarity asc, scores.sample_id asc
limit nullif($num_images, 0)
