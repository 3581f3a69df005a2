-- Which classes turn into which from one iteration to the next, over the unlabeled images.
--
-- Every teacher of an iteration is compared with every teacher of the one before.
--
-- grain: one row per (iteration, teacher_before, teacher_after, class_before, class_after)
-- needs: soft_labels of unlabeled in 2 iterations
-- column iteration integer: the iteration that sees it differently from the one before
-- column teacher_before varchar: the teacher of the iteration before
-- column teacher_after varchar: the teacher of this one
-- column class_before varchar: the class before
-- column class_after varchar: the class now
-- column num_images bigint: images
-- column mean_confidence_before double: how sure the earlier teacher was of them, 0 to 1
-- column mean_confidence_after double: how sure the later teacher is, 0 to 1
select
    later.iteration,
    earlier.teacher_id as teacher_before,
    later.teacher_id as teacher_after,
    names_before.name as class_before,
    names_after.name as class_after,
    count(*) as num_images,
    avg(earlier.confidence) as mean_confidence_before,
    avg(later.confidence) as mean_confidence_after
from soft_labels as later
inner join soft_labels as earlier
    on
        later.sample_id = earlier.sample_id
        and later.iteration = earlier.iteration + 1
inner join classes as names_before on earlier.class_id = names_before.class_id
inner join classes as names_after on later.class_id = names_after.class_id
where
    later.split = 'unlabeled'
    and earlier.split = 'unlabeled'
    and later.class_id != earlier.class_id
group by
    later.iteration,
    earlier.teacher_id,
    later.teacher_id,
    names_before.name,
    names_after.name
order by
    later.iteration asc,
    teacher_before asc,
    teacher_after asc,
    num_images desc,
    class_before asc,
    class_after asc
