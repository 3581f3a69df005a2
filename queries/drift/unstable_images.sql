-- Unlabeled images that teachers keep changing their minds about, over all iterations.
--
-- grain: one row per (sample_id)
-- needs: soft_labels of unlabeled in 2 iterations
-- param min_classes bigint = 2: list images that were called so many classes, 2 or more
-- column sample_id bigint: the image
-- column key varchar: its name in the dataset
-- column num_labels bigint: labels it was given
-- column num_classes bigint: different classes among them
-- column class_names varchar[]: those, in the order of their names
-- column mean_confidence double: of its labels, 0 to 1
select
    labels.sample_id,
    images.key,
    count(*) as num_labels,
    count(distinct labels.class_id) as num_classes,
    list(distinct classes.name order by classes.name asc) as class_names,
    avg(labels.confidence) as mean_confidence
from soft_labels as labels
inner join images on labels.sample_id = images.sample_id
inner join classes on labels.class_id = classes.class_id
where labels.split = 'unlabeled'
group by labels.sample_id, images.key
having count(distinct labels.class_id) >= $min_classes
order by num_classes desc, mean_confidence desc, labels.sample_id asc
