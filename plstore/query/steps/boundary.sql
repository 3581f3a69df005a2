-- Candidates that the cut of their class goes through, and those drawn for one copy more.
select
    near.class_id,
    near.sample_id,
    near.confidence,
    near.draw
from (
    select
        candidates.class_id,
        candidates.sample_id,
        candidates.confidence,
        bounds.up_to,
        bounds.draw_end,
        case when bounds.draw_end >= 0 then lottery(candidates.sample_id, $seed) else -1 end
            as draw
    from candidates
    inner join bounds on candidates.class_id = bounds.class_id
    where
        candidates.confidence > cast($lowest as float)
        and candidates.confidence > bounds.above
        and (bounds.draw_end >= 0 or candidates.confidence <= bounds.up_to)
) as near
where near.draw < near.draw_end or near.draw_end < 0
