-- Candidates of each class in each bucket of confidence.
select
    class_id,
    confidence_bucket(confidence) as bucket,
    count(*) as num_labels
from candidates
group by class_id, confidence_bucket(confidence)
