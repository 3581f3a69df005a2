"""How long a run still takes: what was estimated, by what finished steps took instead."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from trainers.events import Event, Listener, Note, StepFinished, StepStarted, said_time

_TELLING: Final = 0.05
"""Share of the estimated work that must be done before what it took says how fast it goes."""

_OVER: Final = 1.1


@dataclass(kw_only=True)
class Paced:
    """A listener that adds to each step that starts how long it and the rest take.

    It hands every event on. Where the whole will exceed the budget it says so, once.

    Attributes:
        listener: Who is told.
        seconds: Estimated, by name of the step; of those that are not done.
        budget: Seconds for all of it, or None.
    """

    listener: Listener
    seconds: Mapping[str, float]
    budget: float | None = None
    _spent: float = field(default=0.0, init=False)
    _took: float = field(default=0.0, init=False)
    _expected: float = field(default=0.0, init=False)
    _done: set[str] = field(default_factory=set, init=False)
    _is_told: bool = field(default=False, init=False)

    def __call__(self, event: Event) -> None:
        """Hand one event on."""
        if isinstance(event, StepStarted):
            left = self.left()
            mine = self.seconds.get(event.name, 0.0) * self.pace()
            self.listener(replace(event, seconds=mine, left=left))
            self._warn(left)
            return
        if isinstance(event, StepFinished):
            self._finish(event)
        self.listener(event)

    def pace(self) -> float:
        """Return how many seconds an estimated one takes, as far as that is known."""
        enough = _TELLING * sum(self.seconds.values())
        return self._took / self._expected if self._expected > enough else 1.0

    def left(self) -> float:
        """Return the seconds that all steps take that are not done."""
        rest = sum(s for name, s in self.seconds.items() if name not in self._done)
        return rest * self.pace()

    def _finish(self, step: StepFinished) -> None:
        self._done.add(step.name)
        self._spent += step.seconds
        if step.is_new:
            self._took += step.seconds
            self._expected += self.seconds.get(step.name, 0.0)

    def _warn(self, left: float) -> None:
        total = self._spent + left
        if self._is_told or self.budget is None or total <= self.budget * _OVER:
            return
        self._is_told = True
        why = f": steps take {self.pace():.1f} times what was estimated"
        text = (
            f"  the run takes about {said_time(total)}; its budget is {said_time(self.budget)}"
        )
        self.listener(Note(text=text + (why if self.pace() > 1 else "")))
