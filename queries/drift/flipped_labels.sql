-- Unlabeled images whose pseudo-label changed from one iteration to the next.
--
-- Every teacher of an iteration is compared with every teacher of the one before; a store with
-- one run has one of each.
--
-- grain: one row per (iteration, teacher_before, teacher_after, sample_id)
-- needs: soft_labels of unlabeled in 2 iterations
-- column iteration integer: the iteration that sees it differently from the one before
-- column teacher_before varchar: the teacher of the iteration before
-- column teacher_after varchar: the teacher of this one
-- column sample_id bigint: the image
-- column class_before varchar: the class before
-- column class_after varchar: the class now
-- column confidence_before float: how sure the earlier teacher was, 0 to 1
-- column confidence_after float: how sure the later teacher is, 0 to 1
select
    later.iteration,
    earlier.teacher_id as teacher_before,
    later.teacher_id as teacher_after,
    later.sample_id,
    names_before.name as class_before,
    names_after.name as class_after,
    earlier.confidence as confidence_before,
    later.confidence as confidence_after
from soft_labels as later
inner join soft_labels as earlier
    on
        later.sample_id = earlier.sample_id
        and later.iteration = earlier.iteration + 1
inner join classes as names_before on earlier.class_id = names_before.class_id
inner join classes as names_after on later.class_id = names_after.class_id
where later.split = 'unlabeled' and later.class_id != earlier.class_id
order by
    later.iteration asc,
    earlier.teacher_id asc,
    later.teacher_id asc,
    later.confidence desc,
    later.sample_id asc
