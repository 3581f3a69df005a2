-- Images whose very bytes are there twice, under two classes: one of the labels is wrong.
--
-- grain: one row per (sample_id, other_id)
-- column sample_id bigint: the image that was imported first
-- column split varchar: its split
-- column key varchar: its name in the dataset
-- column class varchar: its class
-- column other_id bigint: the same image under another class
-- column other_split varchar: its split
-- column other_key varchar: its name in the dataset
-- column other_class varchar: its class
with corrected as (
    select
        sample_id,
        arg_max(label, decided_at) as label
    from corrections
    group by sample_id
),

labeled as (
    select
        images.sample_id,
        images.split,
        images.key,
        images.content_hash,
        coalesce(corrected.label, images.label) as class_id
    from images
    left join corrected on images.sample_id = corrected.sample_id
    where
        images.verdict = 'accepted'
        and images.label is not null
        and images.sample_id not in (select exclusions.sample_id from exclusions)
)

select
    one.sample_id,
    one.split,
    one.key,
    class_name(one.class_id) as class,
    other.sample_id as other_id,
    other.split as other_split,
    other.key as other_key,
    class_name(other.class_id) as other_class
from labeled as one
inner join labeled as other
    on one.content_hash = other.content_hash and one.sample_id < other.sample_id
where one.class_id <> other.class_id
order by one.sample_id asc, other.sample_id asc
