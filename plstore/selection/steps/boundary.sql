-- Candidates that the cut of their class goes through, and those drawn for one copy more.
select
    near.class_id,
    near.sample_id,
    near.confidence,
    near.ticket
from (
    select
        candidates.class_id,
        candidates.sample_id,
        candidates.confidence,
        bounds.ticket_from,
        bounds.ticket_end,
        cast(
            case
                when bounds.ticket_end >= 0 then lottery(candidates.sample_id, $seed) else -1
            end
            as integer
        ) as ticket
    from candidates
    inner join bounds on candidates.class_id = bounds.class_id
    where
        candidates.confidence > cast($lowest as float)
        -- One condition, not several: DuckDB looks up a class by its number then.
        and case
            when candidates.confidence <= bounds.above then false
            when bounds.ticket_end >= 0 then true
            else candidates.confidence <= bounds.up_to
        end
) as near
where near.ticket_end < 0 or (near.ticket >= near.ticket_from and near.ticket < near.ticket_end)
