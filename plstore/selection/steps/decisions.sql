-- Candidates that are kept, with their copies. Each row is decided alone, by the limits of its
-- class: above a confidence, or at it with a sample id up to the last; one copy more for a low
-- ticket. Candidates have a label where it is asked for.
select *  -- noqa: AM04
from (
    select
        candidates.*,
        cast(
            limits.copies
            + case
                when limits.ticket_limit < 0 then 0
                when lottery(candidates.sample_id, $seed) < limits.ticket_limit then 1
                when
                    lottery(candidates.sample_id, $seed) = limits.ticket_limit
                    and candidates.sample_id <= limits.ticket_last_id
                    then 1
                else 0
            end as integer
        ) as copies
    from candidates
    inner join limits on candidates.class_id = limits.class_id
    where
        candidates.confidence >= cast($lowest as float)
        and (
            candidates.confidence > limits.min_confidence
            or (
                candidates.confidence = limits.min_confidence
                and candidates.sample_id <= limits.last_id
            )
        )
) as kept
where copies > 0
