-- True labels of the accepted images, by split: how unbalanced the labeled set is.
--
-- grain: one row per (split, class_id)
-- column split varchar: labeled, validation or test
-- column class_id integer: the class
-- column class_name varchar: its name
-- column num_images bigint: images of that class
-- column share double: of the split's images, 0 to 1
select
    images.split,
    images.label as class_id,
    classes.name as class_name,
    count(*) as num_images,
    count(*) / sum(count(*)) over (partition by images.split) as share
from images
inner join classes on images.label = classes.class_id
where images.verdict = 'accepted'
group by images.split, images.label, classes.name
order by images.split asc, class_id asc
