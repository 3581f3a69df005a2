"""Without weights: Noisy Student from scratch, by the largest net that has time to learn.

Of few labels the net learns from the unlabeled images alone first, and the teacher starts from
that.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from plstore.errors import InputError
from trainers.planning.census import Census
from trainers.planning.wishes import Plan, Timer, Wishes
from trainers.sections import Model
from trainers.training.timing import DECODING, Timed

_SPENT: Final = 0.8
"""Share of the budget that is planned: import, files and a busy machine take the rest."""

_SMALL: Final = (
    ("resnet18", 2.0),
    ("resnet10t", 2.0),
    ("test_resnet", 2.0),
    ("test_resnet", 1.5),
    ("test_resnet", 1.0),
)
"""For images up to 64 px, from the best to the fastest: at how many times their side."""

_MILD: Final = {"crop_min_area": 0.6, "num_ops": 1}
"""Noise of images up to 64 px: CIFAR-10, 400 labels, 43.3 % against 41.0 of a recipe's own."""

_LARGE: Final = (
    ("resnet50", 224),
    ("resnet18", 128),
    ("resnet18", 96),
    ("resnet10t", 96),
    ("resnet10t", 64),
    ("test_resnet", 128),
    ("test_resnet", 96),
    ("test_resnet", 64),
)
"""For photos: at how many pixels a side, and not more than they have. Imagenette, 500 labels: a
student of 61.4 % at 96 px after 25 passes of pretraining, 59.7 at 64 after 50."""

_FEW_PIXELS: Final = 64
_BATCH: Final = 64
_RATIO: Final = 3
_STEP: Final = _BATCH * (1 + _RATIO)
"""Images of a step."""
_LEAST_STEPS: Final = 20
_MOST_EPOCHS: Final = 15
"""Of all images, in each training: twice as long gained nothing on CIFAR-10, 400 labels."""

_MANY_LABELS: Final = 100
"""Labeled images of each class from which students train longer, and there may be several."""

_LONGER: Final = 2
"""Times as long as its teacher a student of many labels trains, before there is a second:
CIFAR-10, 4,000 labels, three seeds, 69.4 % against 68.9 of the best of three that are not."""

_LEAST_POOL: Final = 2000
"""Unlabeled images of which something can be learnt without labels."""

_MOST_PASSES: Final = 50
"""Over the unlabeled images, of what is learnt of them without labels."""

_TRAINED: Final = 0.6
"""Share of the time for students and control, where a net is pretrained in the rest."""

_TEACHER_STEPS: Final = 400
"""Of a pretrained teacher, on labels alone: CIFAR-10, 400 labels, no better after 800."""

_PRETRAINED_BATCH: Final = 256

_ENOUGH: Final = 250_000
"""Images that a training sees, at least, before a larger net is worth its time."""

_LEAST: Final = 150_000
"""Images that a training sees, at least: of fewer, students do not beat their teacher."""


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """A net from scratch, and what it has the time for."""

    architecture: str
    size: int
    iterations: int
    timed: Timed
    draws: int
    """Images that each student sees, and the control."""
    most: int
    """Images that a teacher sees at most, where nothing is learnt without labels."""
    learnt: int = 0
    """Images, of which each may be many, that are learnt without labels; 0 for none."""

    @property
    def steps(self) -> int:
        """Of each student, and of the control."""
        return _steps(self.draws)

    @property
    def teacher_steps(self) -> int:
        """Of the teacher."""
        return min(self.steps, _TEACHER_STEPS if self.learnt else _steps(self.most))

    @property
    def seen(self) -> int:
        """Images that are trained on in all; those of a pretrained teacher are labeled."""
        teacher = self.teacher_steps * (_BATCH if self.learnt else _STEP)
        return teacher + (self.iterations + 1) * self.steps * _STEP + self.learnt


def plan_trained(census: Census, wishes: Wishes, timer: Timer) -> Plan:
    """Plan a teacher and students that are trained, all weights of them."""
    choice = _choose(census, wishes, timer)
    looks = census.splits.get("unlabeled", 0) * choice.iterations
    seconds = choice.seen * choice.timed.train_seconds
    seconds += looks * choice.timed.clean_seconds
    return Plan(
        values=_values(census, wishes, choice),
        reasons=_reasons(census, wishes, choice),
        seconds=seconds * DECODING,
    )


def _choose(census: Census, wishes: Wishes, timer: Timer) -> _Choice:
    """Return the largest net that sees enough images; else the one that sees most.

    Nets are tried from the fastest on, so that none is timed that has no chance.
    """
    best: _Choice | None = None
    for architecture, size in _nets(census, wishes):
        timed = timer(Model(resolution=size, channels=census.channels), architecture)
        choice = _choice(census, wishes, architecture, size, timed)
        if best is not None and choice.draws < min(_ENOUGH, _most_draws(census)):
            break
        best = choice
    if best is None:
        raise InputError("there is no net to plan with")
    return best


def _choice(
    census: Census, wishes: Wishes, architecture: str, size: int, timed: Timed
) -> _Choice:
    """Return as many iterations as leave each training its full length, or one.

    One student of few labels: of three on CIFAR-10 with 40 of each class, each was worse than
    the one before, because so many pseudo-labels are wrong. With 400 of each class one that
    trains longer is better than three, of which the first was the best; with Fashion-MNIST's
    the third was: one that does not gain ends the run.
    """
    longest = _longest(census, wishes)
    numbers = (3, 2, 1) if census.least >= _MANY_LABELS else (1,)
    by_number = {n: _draws(census, wishes, timed, n) for n in numbers}
    iterations = next((n for n, (draws, _) in by_number.items() if draws >= longest), 1)
    draws, learnt = by_number[iterations]
    return _Choice(
        architecture=architecture,
        size=size,
        iterations=iterations,
        timed=timed,
        draws=draws,
        most=_most_draws(census),
        learnt=learnt,
    )


def _is_pretrained(census: Census, wishes: Wishes) -> bool:
    """Whether the net is to learn from unlabeled images alone at first."""
    said = (wishes.has_weights, wishes.teacher is not None, wishes.also, wishes.is_taught)
    pool = census.splits.get("unlabeled", 0)
    return not any(said) and census.least < _MANY_LABELS and pool >= _LEAST_POOL


def _nets(census: Census, wishes: Wishes) -> Iterator[tuple[str, int]]:
    """Yield architectures and pixels to try, the fastest first."""
    small = census.side <= _FEW_PIXELS
    if wishes.model is not None:
        size = census.side if small else min(census.side, 128)
        yield wishes.model, wishes.resolution or max(size // 8 * 8, 32)
        return
    for architecture, wanted in reversed(_SMALL if small else _LARGE):
        size = int(census.side * wanted if small else min(wanted, census.side))
        yield architecture, wishes.resolution or max(size // 8 * 8, 24)


def _draws(census: Census, wishes: Wishes, timed: Timed, iterations: int) -> tuple[int, int]:
    """Return how many images a student has the time for, and pretraining, if any."""
    splits, longest = census.splits, _longest(census, wishes)
    is_pretrained = _is_pretrained(census, wishes)
    unlabeled = splits.get("unlabeled", 0) * wishes.versions
    passes = _MOST_PASSES * unlabeled if is_pretrained else 0
    if wishes.seconds is None:
        return longest, passes
    held_out = splits.get("validation", 0) + splits.get("test", 0)
    looks = splits.get("unlabeled", 0) * iterations + held_out * (iterations + 2)
    left = wishes.seconds * _SPENT - looks * timed.clean_seconds * DECODING
    images = max(left / (timed.train_seconds * DECODING), 0)
    images -= _TEACHER_STEPS * _BATCH if is_pretrained else 0
    images = max(images, 0)
    count = iterations + 1
    if not is_pretrained:
        teacher = min(images / (count + 1), _most_draws(census))
        return int(min((images - teacher) / count, longest)), 0
    draws = int(min(_TRAINED * images / count, longest))
    return draws, int(min(images - count * draws, passes))


def _most_draws(census: Census) -> int:
    """Return how many images a training sees at most: all of them, many times."""
    pool = census.splits.get("labeled", 0) + census.splits.get("unlabeled", 0)
    return max(_MOST_EPOCHS * pool, _LEAST)


def _longest(census: Census, wishes: Wishes) -> int:
    """Return how many images a student sees at most: of many labels more than its teacher."""
    is_longer = census.least >= _MANY_LABELS and not wishes.has_weights
    return _most_draws(census) * (_LONGER if is_longer else 1)


def _steps(draws: int) -> int:
    return max(draws // _STEP, _LEAST_STEPS)


def _values(census: Census, wishes: Wishes, choice: _Choice) -> dict[str, dict[str, Any]]:
    kind = "finetune" if wishes.has_weights else "scratch"
    return {
        "recipe": {"iterations": choice.iterations, "patience": 1},
        "model": {
            "architecture": choice.architecture,
            "resolution": choice.size,
            "channels": census.channels,
            "weights": wishes.weights,
            "pretrained": wishes.pretrained,
            "also": [dict(other) for other in wishes.also],
            "dropout": 0.1,
            "stochastic_depth": 0.0 if choice.architecture.startswith("test_") else 0.1,
        },
        "method": {"teacher": wishes.teacher or kind, "students": wishes.students or kind},
        "train": {
            "steps": choice.steps,
            "labeled_batch": _BATCH,
            "ratio": _RATIO,
            "precision": choice.timed.precision,
        },
        "optimizer": {"learning_rate": 1e-3 if wishes.has_weights else 3e-3},
        "schedule": {"warmup_steps": min(100, choice.steps // 5)},
        "noise": dict(_MILD) if census.side <= _FEW_PIXELS else {},
        **_teacher(choice, wishes),
    }


def _teacher(choice: _Choice, wishes: Wishes) -> dict[str, dict[str, Any]]:
    """Return what a recipe says of how the teacher's training differs from a student's."""
    if choice.learnt:
        return _pretrained(choice, wishes)
    if choice.teacher_steps < choice.steps:
        return {"iteration": {"0": {"train": {"steps": choice.teacher_steps}}}}
    return {}


def _pretrained(choice: _Choice, wishes: Wishes) -> dict[str, dict[str, Any]]:
    """Return what a recipe says of a teacher that starts from what was learnt without labels.

    Students begin at random, as in the paper: those that started from the same weights were as
    good, and no better (CIFAR-10, 400 labels: 46.2 and 46.3 %).
    """
    teacher = {
        "train": {"ratio": 0, "steps": choice.teacher_steps},
        "optimizer": {"learning_rate": 1e-3},
    }
    return {
        "pretrain": {"steps": max(choice.learnt // (_PRETRAINED_BATCH * wishes.versions), 1)},
        "method": {"teacher": "finetune", "students": "scratch"},
        "iteration": {"0": teacher},
    }


def _reasons(census: Census, wishes: Wishes, choice: _Choice) -> dict[str, str]:
    start = "given weights" if wishes.has_weights else "scratch"
    students = f"students: {choice.iterations}, and a control"
    if choice.iterations > 1:
        students += "; one that does not gain on validation is the last (--patience)"
    is_alike = choice.teacher_steps == choice.steps
    teacher = " and the teacher" if is_alike else f", {choice.teacher_steps:,} of the teacher"
    reasons = {
        "method": f"noisy student from {start}: {choice.architecture} at {choice.size} px, "
        f"{students}",
        "because": "students learn from seeing every image many times: of a few nets the "
        f"largest that has time for {_ENOUGH:,} images in each training, or the smallest; it "
        f"sees {1 / choice.timed.train_seconds:,.0f} a second here",
        "steps": f"{choice.steps:,} of each student{teacher}, of {_BATCH} labeled and "
        f"{_BATCH * _RATIO} pseudo-labeled images",
    }
    if choice.timed.precision == "bfloat16" and wishes.precision == "auto":
        reasons["precision"] = (
            "bfloat16, of activations in training: this processor multiplies it much faster "
            "(--set train.precision=float32 for the other)"
        )
    if choice.learnt:
        passes = choice.learnt / (census.splits["unlabeled"] * wishes.versions)
        reasons["before"] = (
            "of few labels, the net first learns from the unlabeled images alone, in "
            f"{passes:.0f} passes over them, and the teacher starts from that: by which way "
            "they were turned, or, of images without an up, as of cells or from above, by "
            "which are of one image (--set pretrain.task=simclr)"
        )
    if choice.draws < _LEAST:
        remedy = "a longer --budget" + ("" if wishes.has_weights else ", or --weights")
        reasons["warning"] = (
            f"the time is enough for {choice.steps * _STEP:,} images in each training, and of "
            f"fewer than {_LEAST:,} students may not beat their teacher. Give {remedy}"
        )
    if not wishes.has_weights:
        reasons["better"] = (
            "with weights of a pretrained net (--weights FILE, or hub) a probe is far better "
            "in less time"
        )
    return reasons
