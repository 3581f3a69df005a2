-- Images of validation or test whose very bytes are also among the training images.
--
-- grain: one row per (sample_id, other_id)
-- column sample_id bigint: the validation or test image
-- column split varchar: its split
-- column key varchar: its name in the dataset
-- column other_id bigint: the same image among those that training may read
-- column other_split varchar: labeled or unlabeled
-- column other_key varchar: its name in the dataset
select
    held.sample_id,
    held.split,
    held.key,
    train.sample_id as other_id,
    train.split as other_split,
    train.key as other_key
from images as held
inner join images as train on held.content_hash = train.content_hash
where
    held.split in ('validation', 'test')
    and train.split in ('labeled', 'unlabeled')
    and held.verdict = 'accepted'
    and train.verdict = 'accepted'
    and train.sample_id not in (select exclusions.sample_id from exclusions)
order by held.sample_id asc, train.sample_id asc
