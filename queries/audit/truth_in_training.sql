-- Labeled images of a view whose image is of another split: validation or test that leaked.
--
-- grain: one row per (view, version, sample_id)
-- column view varchar: the view
-- column version bigint: its version
-- column sample_id bigint: the image
-- column split varchar: the split it belongs to
select
    picked.view,
    picked.version,
    picked.sample_id,
    images.split
from view_rows as picked
inner join images on picked.sample_id = images.sample_id
where
    (
        picked.kind = 'labeled'
        and images.split != 'labeled'
        and not (
            images.split = 'unlabeled'
            and picked.sample_id in (select corrections.sample_id from corrections)
        )
    )
    or (picked.kind = 'pseudo' and images.split != 'unlabeled')
order by picked.view asc, picked.version asc, picked.sample_id asc
