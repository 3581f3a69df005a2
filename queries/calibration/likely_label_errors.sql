-- Labeled images that are probably filed under the wrong class, by confident learning.
--
-- After Northcutt et al. 2021, section 3.1: a class's threshold is its mean probability over
-- the images filed under it; an image filed elsewhere whose most probable class it is, at or
-- above that threshold, is a suspect. Of all splits that the teacher has labeled and whose
-- label is known.
--
-- grain: one row per (sample_id)
-- param teacher_id varchar = newest(labeled,validation,test): the teacher that is asked
-- param iteration integer = newest(labeled,validation,test): the iteration of its labels
-- column sample_id bigint: the image
-- column split varchar: its split
-- column key varchar: its name in the dataset
-- column label_name varchar: the class it is filed under
-- column suspected_name varchar: the class it probably is
-- column probability_of_label float: what the teacher gives the class it is filed under, 0 to 1
-- column probability double: what the teacher gives the suspected class, 0 to 1
-- column threshold double: of the suspected class, 0 to 1
with known as (
    select
        labels.sample_id,
        labels.split,
        labels.class_id,
        labels.confidence,
        labels.label,
        images.key,
        images.label as filed_as
    from soft_labels as labels
    inner join images on labels.sample_id = images.sample_id
    where
        labels.teacher_id = $teacher_id
        and labels.iteration = $iteration
        and images.label is not null
),

thresholds as (
    select
        filed_as as class_id,
        avg(prob(label, filed_as)) as threshold
    from known
    group by filed_as
)

select
    known.sample_id,
    known.split,
    known.key,
    filed.name as label_name,
    suspected.name as suspected_name,
    prob(known.label, known.filed_as)::float as probability_of_label,
    known.confidence::double as probability,
    thresholds.threshold
from known
inner join thresholds on known.class_id = thresholds.class_id
inner join classes as filed on known.filed_as = filed.class_id
inner join classes as suspected on known.class_id = suspected.class_id
where known.class_id != known.filed_as and known.confidence >= thresholds.threshold
order by probability_of_label asc, known.sample_id asc
