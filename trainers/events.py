"""What a run says while it works: plain records, for a terminal, a page or a test alike."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from plstore.report.progress import Advance, Display


@dataclass(frozen=True, kw_only=True)
class StepStarted:
    """A step that was not done before begins.

    Attributes:
        name: Such as "train-2".
        kind: Such as "train".
        number: From 1.
        total: Steps of the run, those that are done included.
        seconds: That it will take, where that was estimated.
        left: Seconds until the run is done, where that was estimated.
    """

    name: str
    kind: str
    number: int
    total: int
    seconds: float | None = None
    left: float | None = None


@dataclass(frozen=True, kw_only=True)
class StepFinished:
    """A step is done, now or by an earlier run of the same recipe.

    Attributes:
        name: Such as "train-2".
        kind: Such as "train".
        outputs: What it left, JSON-like.
        seconds: How long it took; of an earlier run, then.
        is_new: Whether it was done now.
    """

    name: str
    kind: str
    outputs: Mapping[str, Any]
    seconds: float
    is_new: bool


@dataclass(frozen=True, kw_only=True)
class TaskStarted:
    """Long work within a step begins; `total` units of it, None where that is not known."""

    title: str
    total: int | None


@dataclass(frozen=True, kw_only=True)
class TaskAdvanced:
    """So many units more of a task are done; `note` stands beside them, such as the loss."""

    title: str
    count: int
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class TaskFinished:
    """A task ended, done or by an error."""

    title: str


@dataclass(frozen=True, kw_only=True)
class Note:
    """A line for people."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A number of a model that trains, such as its loss after so many steps."""

    model: str
    step: int
    name: str
    value: float


Event = Measured | StepStarted | StepFinished | TaskStarted | TaskAdvanced | TaskFinished | Note
Listener = Callable[[Event], None]


class Teller:
    """Through which steps say what they do: what `Display` offers, as events."""

    def __init__(self, listener: Listener) -> None:
        """Tell all to one listener."""
        self.tell = listener

    def say(self, message: str) -> None:
        """Tell one line."""
        self.tell(Note(text=message))

    @contextmanager
    def task(self, title: str, total: int | None) -> Iterator[Advance]:
        """Tell of one task; yields what says that units of it are done."""
        self.tell(TaskStarted(title=title, total=total))

        def advance(count: int, note: str = "") -> None:
            self.tell(TaskAdvanced(title=title, count=count, note=note))

        try:
            yield advance
        finally:
            self.tell(TaskFinished(title=title))


class Shown:
    """A listener that shows events on a display: lines, and a bar for each task."""

    def __init__(self, display: Display) -> None:
        """Show nothing yet."""
        self._display = display
        self._stack = ExitStack()
        self._advance: Advance | None = None

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Note):
            self._display.say(event.text)
        elif isinstance(event, StepStarted):
            self._display.say(f"[{event.number}/{event.total}] {event.name}{_pace(event)}")
        elif isinstance(event, TaskStarted):
            task = self._display.task(event.title, event.total)
            self._advance = self._stack.enter_context(task)
        elif isinstance(event, TaskAdvanced) and self._advance is not None:
            self._advance(event.count, event.note)
        elif isinstance(event, TaskFinished):
            self._stack.close()
            self._advance = None


def said_time(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 90:  # noqa: PLR2004  then minutes say more
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"  # noqa: PLR2004


def _pace(step: StepStarted) -> str:
    if step.seconds is None or step.left is None:
        return ""
    mine = f", about {said_time(step.seconds)}" if step.seconds >= 1 else ""
    return f"{mine}; about {said_time(step.left)} left in all"


def unheard(_: Event) -> None:
    """Listen to nothing."""
