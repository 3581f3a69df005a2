-- What import made of every image: accepted, converted, or refused with the reason.
--
-- grain: one row per (dataset, split, verdict, conversion)
-- column dataset varchar: the collection
-- column split varchar: labeled, unlabeled, validation or test
-- column verdict varchar: accepted, or why the image is not used
-- column conversion varchar: how the stored image differs from the file, null if it does not
-- column num_images bigint: images
select
    dataset,
    split,
    verdict,
    conversion,
    count(*) as num_images
from images
group by dataset, split, verdict, conversion
order by dataset asc, split asc, verdict asc, conversion asc nulls first
