-- How often a teacher changes its mind where an image changes little, by perturbation.
--
-- Hendrycks and Dietterich 2019, section 3.2: frames of noise are compared with the first one,
-- all others with the one before. `plstore evaluate --sequences` makes the labels.
--
-- grain: one row per (teacher_id, perturbation)
-- param split varchar = 'test': of the images
-- column teacher_id varchar: the teacher
-- column perturbation varchar: its name
-- column num_images bigint: images of known class
-- column num_frames bigint: of each
-- column flip_probability double: share of frames of another class than their like, 0 to 1
-- column accuracy double: of all frames, 0 to 1
with frames as (
    select
        teacher_id,
        perturbation,
        sample_id,
        level,
        class_id,
        (class_id = true_id)::integer as is_right,
        case
            when perturbation in ('gaussian_noise', 'shot_noise')
                then first_value(class_id) over (
                    partition by teacher_id, perturbation, sample_id order by level asc
                )
            else lag(class_id) over (
                partition by teacher_id, perturbation, sample_id order by level asc
            )
        end as compared_id,
        row_number() over (
            partition by teacher_id, perturbation, sample_id order by level asc
        ) as place
    from perturbed($split, 'sequence')
)

select
    teacher_id,
    perturbation,
    count(distinct sample_id) as num_images,
    max(place) as num_frames,
    avg((class_id != compared_id)::integer) filter (place > 1) as flip_probability,
    avg(is_right) as accuracy
from frames
group by teacher_id, perturbation
order by teacher_id asc, perturbation asc
