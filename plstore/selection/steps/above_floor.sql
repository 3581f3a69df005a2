-- Candidates above the floor, of the bucket that the floor falls into: counted exactly.
select
    class_id,
    count(*) as num_labels
from candidates
where confidence > cast($min_confidence as float) and confidence <= cast($edge as float)
group by class_id
