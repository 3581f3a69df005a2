-- Pairs of images that a model sees as nearly the same, across splits, the most similar first.
--
-- All pairs whose embeddings have a cosine of a least value: exact. What is in training and in
-- the test set flatters a model; plstore duplicates finds copies by their pixels, this finds
-- other pictures of one thing as well.
--
-- grain: one row per (sample_id, other_id)
-- param split varchar = 'test': images of one side
-- param other_split varchar = '': of the other side; all other splits unless given
-- param min_similarity float = 0.98: least cosine of a pair, -1 to 1
-- param num_images integer = 200: how many rows to return; 0 for all
-- param model varchar = '': whose embeddings; those that there are, if of one model alone
-- column sample_id bigint: the image
-- column key varchar: its name in the dataset
-- column label_name varchar: its class, as people say; null if that is not known
-- column other_id bigint: the image of the other side
-- column other_split varchar: its split
-- column other_key varchar: its name in the dataset
-- column other_label_name varchar: its class, as people say; null if that is not known
-- column similarity float: cosine, -1 to 1
with corrected as (
    select
        sample_id,
        arg_max(label, decided_at) as label
    from corrections
    group by sample_id
),

embedded as (
    select
        images.sample_id,
        images.split,
        images.key,
        classes.name as label_name,
        embeddings.vector
    from embeddings_of($model::varchar) as embeddings
    inner join images on embeddings.sample_id = images.sample_id
    left join corrected on images.sample_id = corrected.sample_id
    left join classes on coalesce(corrected.label, images.label) = classes.class_id
    where images.verdict = 'accepted'
),

own as (
    select
        list(sample_id order by sample_id asc) as ids,
        list(vector order by sample_id asc) as vectors
    from embedded
    where split = case
        when $split::varchar in ('labeled', 'unlabeled', 'validation', 'test', 'evaluation')
            then $split::varchar
        else
            error(
                'split is ' || $split::varchar
                || '; wanted labeled, unlabeled, validation, test or evaluation'
            )
    end
),

other as (
    select
        list(sample_id order by sample_id asc) as ids,
        list(vector order by sample_id asc) as vectors
    from embedded
    where
        split = $other_split::varchar
        or ($other_split::varchar = '' and split != $split::varchar)
),

found as (
    select
        own.ids,
        other.ids as other_ids,
        unnest(similar_pairs(own.vectors, other.vectors, $min_similarity::double)) as pair
    from own
    cross join other
),

pairs as (
    select
        ids[pair['place']] as sample_id,
        other_ids[pair['other']] as other_id,
        pair['similarity'] as similarity
    from found
)

select
    pairs.sample_id,
    a.key,
    a.label_name,
    pairs.other_id,
    b.split as other_split,
    b.key as other_key,
    b.label_name as other_label_name,
    pairs.similarity
from pairs
inner join embedded as a on pairs.sample_id = a.sample_id
inner join embedded as b on pairs.other_id = b.sample_id
where a.split != b.split or pairs.sample_id < pairs.other_id
order by pairs.similarity desc, pairs.sample_id asc, pairs.other_id asc
limit nullif($num_images, 0)
