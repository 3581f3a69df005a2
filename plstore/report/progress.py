"""Progress of long work, on stderr, so that stdout stays for results."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Advance(Protocol):
    """Moves a bar."""

    def __call__(self, count: int, note: str = "") -> None:
        """Say how many units were just done, and what to show beside the bar."""


class Display:
    """Where long work says what it does: a bar a task on a terminal, a line a task in a log."""

    def __init__(self, *, quiet: bool = False) -> None:
        """Open nothing yet; `quiet` shows nothing at all."""
        self.console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)

    def say(self, message: str) -> None:
        """Show one line."""
        self.console.print(message, markup=False)

    @contextmanager
    def task(self, title: str, total: int | None) -> Iterator[Advance]:
        """Show a bar for one task and yield what moves it."""
        columns = (
            TextColumn("{task.description:<34}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        if not self.console.is_terminal:
            self.say(f"{title} ...")
        with Progress(
            *columns,
            console=self.console,
            disable=not self.console.is_terminal,
            redirect_stdout=sys.stdout.isatty(),  # rows that go to a file stay out of the bar
        ) as bar:
            task = bar.add_task(title, total=total, note="")

            def advance(count: int, note: str = "") -> None:
                bar.update(task, advance=count, note=note)

            yield advance
