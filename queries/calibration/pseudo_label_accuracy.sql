-- How often the pseudo-labels that a student trained on are right, where the truth is known.
--
-- An evaluation query: it reads the truth that selection and training never see.
--
-- grain: one row per (view, version)
-- column view varchar: the view
-- column version bigint: its version
-- column num_images bigint: pseudo-labeled images of known truth
-- column accuracy double: share of them whose pseudo-label is right, 0 to 1
-- column accuracy_by_draws double: the same, weighted by copies
select
    picked.view,
    picked.version,
    count(*) as num_images,
    avg((picked.class_id = truth.label)::integer) as accuracy,
    sum((picked.class_id = truth.label)::integer * picked.copies)
    / sum(picked.copies) as accuracy_by_draws
from view_rows as picked
inner join truth on picked.sample_id = truth.sample_id
where picked.kind = 'pseudo'
group by picked.view, picked.version
order by picked.view asc, picked.version asc
