-- Pseudo-labeled images with the most copies in a view: what a student sees again and again.
--
-- grain: one row per (view, version, sample_id)
-- param min_copies integer = 2: list images of at least so many copies
-- column view varchar: the view
-- column version bigint: its version
-- column sample_id bigint: the image
-- column key varchar: its name in the dataset
-- column class_name varchar: its pseudo-label
-- column confidence float: of the pseudo-label, 0 to 1
-- column copies integer: draws in one pass over the view
select
    picked.view,
    picked.version,
    picked.sample_id,
    images.key,
    classes.name as class_name,
    picked.confidence,
    picked.copies
from view_rows as picked
inner join images on picked.sample_id = images.sample_id
inner join classes on picked.class_id = classes.class_id
where picked.kind = 'pseudo' and picked.copies >= $min_copies
order by picked.view asc, picked.version asc, picked.copies desc, picked.sample_id asc
