"""What is left of a run, by what its finished steps took."""

from trainers.events import Event, Note, StepFinished, StepStarted
from trainers.pacing import Paced

ESTIMATED = {"import": 1.0, "train-0": 100.0, "label-1": 20.0, "train-1": 100.0}


def started(name: str) -> StepStarted:
    return StepStarted(name=name, kind=name.partition("-")[0], number=1, total=4)


def finished(name: str, seconds: float, *, is_new: bool = True) -> StepFinished:
    kind = name.partition("-")[0]
    return StepFinished(name=name, kind=kind, outputs={}, seconds=seconds, is_new=is_new)


def paced(budget: float | None = None) -> tuple[Paced, list[Event]]:
    told: list[Event] = []
    return Paced(listener=told.append, seconds=ESTIMATED, budget=budget), told


def test_estimates_stand_until_a_step_tells() -> None:
    listener, told = paced()
    listener(started("import"))
    listener(finished("import", 30.0))  # of a second's work: too little to tell
    listener(started("train-0"))

    assert told[0] == StepStarted(
        name="import", kind="import", number=1, total=4, seconds=1.0, left=221.0
    )
    assert isinstance(told[2], StepStarted)
    assert (told[2].seconds, told[2].left) == (100.0, 220.0)


def test_what_steps_took_scales_the_rest() -> None:
    listener, told = paced()
    listener(finished("import", 2.0))
    listener(finished("train-0", 200.0))
    listener(started("label-1"))

    assert isinstance(told[-1], StepStarted)
    assert (told[-1].seconds, told[-1].left) == (40.0, 240.0)


def test_steps_of_an_earlier_run_count_for_the_budget_and_not_for_the_pace() -> None:
    listener, told = paced(budget=700.0)
    listener(finished("train-0", 600.0, is_new=False))
    listener(started("label-1"))
    notes = [event.text for event in told if isinstance(event, Note)]

    assert listener.pace() == 1.0
    assert listener.left() == 121.0
    assert notes == []  # 721 seconds are within a tenth


def test_a_run_beyond_its_budget_says_so_once() -> None:
    listener, told = paced(budget=300.0)
    for name in ("import", "train-0", "label-1"):
        listener(started(name))
        listener(finished(name, 3 * ESTIMATED[name]))
    notes = [event.text for event in told if isinstance(event, Note)]

    assert len(notes) == 1
    assert "takes about 11 minutes; its budget is 5 minutes: steps take 3.0 times" in notes[0]
