-- Images that a person's look is most likely to help, by all signs at once: a queue to review.
--
-- Five signs, each from 0 to 1. Disagreement: the divergence from what other labels of this
-- iteration or the one before say, over ln 2, the most that there can be. Torn: 1 less the lead
-- of the first class over the second. Label error, where people say what the image is: how much
-- more probable another class is, by the rule of calibration/likely_label_errors. Near a cut:
-- 1 at the confidence from which the newest view takes the class, 0 from 0.02 away. Copied: 1
-- less 1 over the copies of the image in that view. The score is the chance that one of them is
-- right, were each a chance by itself, the last two halved:
-- 1 - (1 - disagreement) (1 - torn) (1 - label error) (1 - near / 2) (1 - copied / 2).
-- What someone excluded or corrected was looked at, and is left out.
--
-- grain: one row per (sample_id)
-- param teacher_id varchar = newest(unlabeled): the teacher
-- param iteration integer = newest(unlabeled): the iteration of its labels
-- param num_images bigint = 200: rows wanted; 0 for all
-- column sample_id bigint: the image
-- column split varchar: its split
-- column key varchar: its name in the dataset
-- column class_name varchar: the class that the teacher gives it
-- column label_name varchar: the class it is filed under; null where that is not known
-- column other_name varchar: what the labels that disagree most say; null where there are none
-- column score double: how much it is worth a look, 0 to 1
-- column why varchar: the strongest sign
-- column disagreement double: 0 to 1
-- column torn double: 0 to 1
-- column label_error double: 0 to 1
-- column near_cut double: 0 to 1
-- column copied double: 0 to 1
with decided as (
    select sample_id from exclusions
    union
    select sample_id from corrections
),

mine as (
    select
        labels.sample_id,
        labels.split,
        labels.class_id,
        labels.confidence::double as confidence,
        labels.label,
        images.key,
        images.label as filed_as
    from soft_labels as labels
    inner join images on labels.sample_id = images.sample_id
    where
        labels.teacher_id = $teacher_id
        and labels.iteration = $iteration
        and images.verdict = 'accepted'
        and labels.sample_id not in (select decided.sample_id from decided)
),

others as (
    select
        mine.sample_id,
        others.class_id,
        js(mine.label, others.label)::double / ln(2) as divergence
    from mine
    inner join soft_labels as others
        on
            mine.sample_id = others.sample_id
            and (others.iteration = $iteration or others.iteration = $iteration - 1)
            and (others.teacher_id != $teacher_id or others.iteration != $iteration)
),

disputed as (
    select
        sample_id,
        max(divergence) as divergence,
        arg_max(class_id, (divergence, -class_id)) as class_id
    from others
    group by sample_id
),

thresholds as (
    select
        filed_as as class_id,
        avg(prob(label, filed_as)) as threshold
    from mine
    where filed_as is not null
    group by filed_as
),

newest_view as (
    select
        view,
        version
    from views
    order by created_at desc, view asc, version desc
    limit 1
),

picked as (
    select
        view_rows.sample_id,
        view_rows.class_id,
        view_rows.confidence::double as confidence,
        view_rows.copies
    from view_rows
    inner join newest_view
        on view_rows.view = newest_view.view and view_rows.version = newest_view.version
    where view_rows.kind = 'pseudo'
),

cuts as (
    select
        class_id,
        min(confidence) as cut
    from picked
    group by class_id
),

signs as (
    select
        mine.sample_id,
        mine.split,
        mine.key,
        mine.class_id,
        mine.filed_as,
        disputed.class_id as other_id,
        least(coalesce(disputed.divergence, 0), 1) as disagreement,
        1 - (mine.label.probs[1] - coalesce(mine.label.probs[2], 0))::double as torn,
        case
            when mine.class_id != mine.filed_as and mine.confidence >= thresholds.threshold
                then mine.confidence - prob(mine.label, mine.filed_as)::double
            else 0
        end as label_error,
        case
            when mine.split = 'unlabeled' and cuts.cut is not null
                then greatest(1 - abs(mine.confidence - cuts.cut) / 0.02::double, 0)
            else 0
        end as near_cut,
        coalesce(1 - 1::double / picked.copies, 0) as copied
    from mine
    left join disputed on mine.sample_id = disputed.sample_id
    left join thresholds on mine.class_id = thresholds.class_id
    left join cuts on mine.class_id = cuts.class_id
    left join picked on mine.sample_id = picked.sample_id
),

scored as (
    select
        *,
        1 - (1 - disagreement) * (1 - torn) * (1 - label_error)
        * (1 - near_cut / 2) * (1 - copied / 2) as score
    from signs
)

select
    scored.sample_id,
    scored.split,
    scored.key,
    said.name as class_name,
    filed.name as label_name,
    others.name as other_name,
    scored.score::double as score,
    case greatest(
        scored.label_error,
        scored.disagreement,
        scored.torn,
        scored.near_cut / 2,
        scored.copied / 2
    )
        when scored.label_error then 'label error'
        when scored.disagreement then 'disagreement'
        when scored.torn then 'torn'
        when scored.near_cut / 2 then 'near a cut'
        else 'copied'
    end as why,
    scored.disagreement::double as disagreement,
    scored.torn::double as torn,
    scored.label_error::double as label_error,
    scored.near_cut::double as near_cut,
    scored.copied::double as copied
from scored
inner join classes as said on scored.class_id = said.class_id
left join classes as filed on scored.filed_as = filed.class_id
left join classes as others on scored.other_id = others.class_id
order by score desc, scored.sample_id asc
limit nullif($num_images, 0)
