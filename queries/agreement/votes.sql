-- How many teachers of an iteration agree on an image: what `plstore select --agree` finds.
--
-- Fusions are teachers too, beside their members.
--
-- grain: one row per (iteration, num_teachers, num_agreeing)
-- needs: soft_labels of unlabeled
-- column iteration integer: the iteration the labels belong to
-- column num_teachers bigint: teachers that labeled an image
-- column num_agreeing bigint: the most of them that say the same class
-- column num_images bigint: unlabeled images of which that is so
with votes as (
    select
        iteration,
        sample_id,
        class_id,
        count(*) as num_votes
    from soft_labels
    where split = 'unlabeled'
    group by iteration, sample_id, class_id
),

winners as (
    select
        iteration,
        sample_id,
        sum(num_votes)::bigint as num_teachers,
        max(num_votes) as num_agreeing
    from votes
    group by iteration, sample_id
)

select
    iteration,
    num_teachers,
    num_agreeing,
    count(*) as num_images
from winners
group by iteration, num_teachers, num_agreeing
order by iteration asc, num_teachers asc, num_agreeing asc
