-- Are teachers growing surer: entropy and confidence of their labels, by iteration.
--
-- grain: one row per (iteration, teacher_id, split)
-- column iteration integer: the iteration the labels belong to
-- column teacher_id varchar: the teacher that gave them
-- column split varchar: what was labeled
-- column num_labels bigint: labels
-- column mean_entropy double: in nats
-- column median_entropy double: in nats
-- column mean_confidence double: 0 to 1
-- column share_confident double: labels of a confidence above 0.3 (Noisy Student), 0 to 1
select
    iteration,
    teacher_id,
    split,
    count(*) as num_labels,
    avg(entropy) as mean_entropy,
    median(entropy)::double as median_entropy,
    avg(confidence) as mean_confidence,
    avg((confidence > 0.3::float)::integer) as share_confident
from soft_labels
group by iteration, teacher_id, split
order by iteration asc, teacher_id asc, split asc
