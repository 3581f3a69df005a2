-- Labeled images whose nearest labeled images are mostly of another class, the surest first.
--
-- The rule that edits a set for nearest neighbours (Wilson 1972, Asymptotic properties of
-- nearest neighbor rules using edited data), by the cosine of embeddings: exact. Labels are
-- those that people corrected. A second opinion beside calibration/likely_label_errors, and
-- one that needs no teacher of these classes.
--
-- grain: one row per (sample_id)
-- param k integer = 10: neighbours that are asked, 1 or more
-- param min_share float = 0.5: least share of them that the other class has, 0 to 1
-- param num_images integer = 100: how many rows to return; 0 for all
-- param model varchar = '': whose embeddings; those that there are, if of one model alone
-- column sample_id bigint: the image
-- column split varchar: its split
-- column key varchar: its name in the dataset
-- column label_name varchar: the class it is filed under
-- column suspected_name varchar: the class that most of its neighbours have
-- column num_suspected bigint: neighbours of that class
-- column num_agreeing bigint: neighbours of the class it is filed under
-- column similarity float: cosine to the nearest of the suspected class, -1 to 1
with corrected as (
    select
        sample_id,
        arg_max(label, decided_at) as label
    from corrections
    group by sample_id
),

known as materialized (
    select
        images.sample_id,
        images.split,
        images.key,
        coalesce(corrected.label, images.label) as class_id,
        embeddings.vector
    from embeddings_of($model::varchar) as embeddings
    inner join images on embeddings.sample_id = images.sample_id
    left join corrected on images.sample_id = corrected.sample_id
    where
        images.verdict = 'accepted'
        and coalesce(corrected.label, images.label) is not null
        and images.sample_id not in (select exclusions.sample_id from exclusions)
),

everyone as (
    select
        list(sample_id order by sample_id asc) as ids,
        list(vector order by sample_id asc) as vectors
    from known
),

-- One more than k: an image is its own nearest.
found as (
    select
        ids,
        unnest(ids) as sample_id,
        unnest(neighbors(
            vectors,
            vectors,
            case
                when $k::integer < 1
                    then error('k is ' || $k::varchar || '; wanted 1 or more')::integer
                else $k::integer + 1
            end
        )) as near
    from everyone
),

others as (
    select
        sample_id,
        ids[unnest(near)['place']] as other_id,
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

votes as (
    select
        ranked.sample_id,
        known.class_id,
        count(*) as num_votes,
        max(ranked.similarity) as similarity
    from ranked
    inner join known on ranked.other_id = known.sample_id
    where ranked.place <= $k::integer
    group by ranked.sample_id, known.class_id
),

counted as (
    select
        votes.sample_id,
        votes.class_id,
        votes.num_votes,
        votes.similarity,
        sum(votes.num_votes) over (partition by votes.sample_id) as num_asked,
        sum(votes.num_votes) filter (votes.class_id = known.class_id) over (
            partition by votes.sample_id
        ) as num_agreeing,
        row_number() over (
            partition by votes.sample_id
            order by votes.num_votes desc, votes.similarity desc, votes.class_id asc
        ) as place
    from votes
    inner join known on votes.sample_id = known.sample_id
)

select
    known.sample_id,
    known.split,
    known.key,
    filed.name as label_name,
    suspected.name as suspected_name,
    counted.num_votes as num_suspected,
    coalesce(counted.num_agreeing, 0)::bigint as num_agreeing,
    counted.similarity
from counted
inner join known on counted.sample_id = known.sample_id
inner join classes as filed on known.class_id = filed.class_id
inner join classes as suspected on counted.class_id = suspected.class_id
where
    counted.place = 1
    and counted.class_id != known.class_id
    and counted.num_votes >= $min_share::float * counted.num_asked
order by num_suspected desc, num_agreeing asc, counted.similarity desc, known.sample_id asc
limit nullif($num_images, 0)
