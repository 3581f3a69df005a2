-- Soft labels whose class, confidence or sum is not that of their distribution.
--
-- Kept probabilities are rounded to ten bits, so a thousandth is allowed.
--
-- grain: one row per (iteration, teacher_id, sample_id)
-- column iteration integer: the iteration the label belongs to
-- column teacher_id varchar: the teacher that gave it
-- column sample_id bigint: the image
-- column class_id integer: the class it names
-- column first_class_id integer: the most probable class of its distribution
-- column confidence float: the confidence it names
-- column first_prob float: the highest probability of its distribution
-- column probability_sum double: of the kept classes and the rest; 1 is right
select
    labels.iteration,
    labels.teacher_id,
    labels.sample_id,
    labels.class_id,
    labels.label.class_ids[1] as first_class_id,
    labels.confidence,
    labels.label.probs[1] as first_prob,
    list_sum(labels.label.probs)::double + labels.label.residual as probability_sum
from soft_labels as labels
where
    labels.label.class_ids[1] is distinct from labels.class_id
    or not labels.confidence between 0 and 1
    or (
        len(labels.label.probs) > 1
        and abs(labels.confidence - labels.label.probs[1]) > 0.002
    )
    or not abs(list_sum(labels.label.probs)::double + labels.label.residual - 1) < 0.005
order by labels.iteration asc, labels.teacher_id asc, labels.sample_id asc
