"""What a result means, in words: which model is best, whether students gained, what to try."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

_FEW: Final = 50
_SURE: Final = 0.8
_MOST_LEFT: Final = 0.1
_CERTAIN: Final = 2.0
"""Standard errors of a difference beyond which it is no accident."""


def best_model(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the model with the best validation accuracy; of equals, the earliest.

    The teacher stands before the students, the control is last: what was not shown to be better
    does not take its place. None where validation was not measured.
    """
    models = [result["teacher"], *result["students"], result["control"]]
    return best_of([model for model in models if model is not None])


def best_of(models: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the one with the highest `validation_accuracy`, of equals the first."""
    known = [model for model in models if model.get("validation_accuracy") is not None]
    return max(known, key=lambda model: model["validation_accuracy"], default=None)


def advice(
    result: Mapping[str, Any], num_images: int | None = None, num_validation: int | None = None
) -> list[str]:
    """Return lines that say what came of a run.

    Args:
        result: Of `trainers.run`.
        num_images: Images that the accuracy was measured on, where that is known.
        num_validation: Images of validation, where that is known.
    """
    key = _measured(result)
    last, control = result["students"][-1], result["control"]
    teacher = result["teacher"]
    lines = []
    best = best_model(result)
    if best is not None and best.get("teacher_id"):
        share = _share(best["validation_accuracy"], num_validation)
        lines.append(
            f"the model is {best['teacher_id']}, the best by validation ({share}); 'plstore "
            "predict' takes it"
        )
    if (labels := result.get("best_labels")) is not None:
        lines.append(
            "its labels of the unlabeled images, least sure first: plstore query run "
            f"coverage/labels_by_file --teacher-id {labels['teacher_id']} "
            f"--iteration {labels['iteration']}"
        )
    rivals = {"the control": control, "the teacher": teacher}
    for name, rival in rivals.items():
        if rival is None or rival.get(key) is None or last.get(key) is None:
            continue
        gain = last[key] - rival[key]
        within = num_images is not None and abs(gain) < _CERTAIN * _error(last[key], num_images)
        noise = ", which is within chance" if within else ""
        if gain <= 0 or (within and name == "the control"):
            lines.append(
                f"the last student is {gain:+.2f} points from {name}{noise}. {_try(result)}"
            )
            break
    return lines


def _share(accuracy: float, num_images: int | None) -> str:
    of = "" if num_images is None else f" of {num_images} images"
    few = ", which are few" if num_images is not None and num_images < _FEW else ""
    return f"{accuracy:.2f} %{of}{few}"


def _measured(result: Mapping[str, Any]) -> str:
    has_test = result["students"][-1].get("test_accuracy") is not None
    return "test_accuracy" if has_test else "validation_accuracy"


def _error(accuracy: float, num_images: int) -> float:
    """Return the standard error of a difference of two accuracies, in points."""
    share = min(max(accuracy / 100, 0.01), 0.99)
    return float(100 * (2 * share * (1 - share) / max(num_images, 1)) ** 0.5)


def _floor(student: Mapping[str, Any]) -> list[str]:
    """Return what to do with the floor of confidence.

    On CIFAR-10, 4 labels a class, a student of the 1.5 % of the pool above 0.5 lost 20 points
    to its teacher, a probe; one of all of it gained 7.
    """
    floor, counts = student.get("min_confidence") or 0.0, student.get("counts") or {}
    kept, of = counts.get("kept", 0), counts.get("in", 0)
    if floor and kept < _MOST_LEFT * of:
        lower = "(--set select.min_confidence=0)"
        return [f"lower the floor, which kept {kept:,} of {of:,} images {lower}"]
    return [f"raise the floor (--set select.min_confidence={_SURE})"] if floor < _SURE else []


def _try(result: Mapping[str, Any]) -> str:
    """Return what to try, most likely first."""
    right = result["students"][-1].get("pseudo_label_accuracy")
    ideas = []
    if result["teacher"].get("how", "scratch") == "scratch":
        ideas.append("start from pretrained weights (--weights hub)")
        ideas.append("train longer (--budget, or --set train.steps)")
        ideas.append("use milder noise (--set noise.num_ops=1)")
    else:
        ideas += _floor(result["students"][-1])
        ideas.append("look at more pixels (--resolution)")
    if right is not None and right < 50:  # noqa: PLR2004  more wrong than right
        ideas.append(f"label more images: {100 - right:.0f} % of the pseudo-labels are wrong")
    return f"Try: {'; '.join(ideas)}"
