-- How good a teacher is at the images that it is surest of: accuracy by coverage.
--
-- grain: one row per (iteration, teacher_id, coverage)
-- param split varchar = 'test': of the images
-- param dataset varchar = '': of the images; all unless given
-- param among varchar = 'all': classes that may be said: all, or own, those of the dataset
-- column iteration integer: the iteration the labels belong to
-- column teacher_id varchar: the teacher
-- column coverage double: share of the images, the surest first, 0.1 to 1
-- column num_images bigint: so many
-- column accuracy double: of them, 0 to 1
-- column min_confidence float: of the least sure one of them, 0 to 1
with ranked as (
    select
        iteration,
        teacher_id,
        coalesce(confidence, 0) as confidence,
        coalesce(class_id = true_id, false)::integer as is_right,
        row_number() over (
            partition by iteration, teacher_id
            order by coalesce(confidence, 0) desc, sample_id asc
        ) as place,
        count(*) over (partition by iteration, teacher_id) as num_all
    from evaluated_among($split, $dataset, $among)
),

tenths as (
    select unnest(range(1, 11)) as tenth
)

select
    ranked.iteration,
    ranked.teacher_id,
    tenths.tenth / 10 as coverage,
    count(*) as num_images,
    avg(ranked.is_right) as accuracy,
    min(ranked.confidence) as min_confidence
from ranked
inner join tenths on ranked.place <= ceil(ranked.num_all * tenths.tenth / 10)
group by ranked.iteration, ranked.teacher_id, tenths.tenth
order by ranked.iteration asc, ranked.teacher_id asc, tenths.tenth asc
