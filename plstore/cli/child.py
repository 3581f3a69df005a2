"""Verbs that run SQL of their user, in a process of their own.

The command forks before anything is loaded, which takes a few milliseconds. The child is the
command as ever: it prints, and its exit code is the command's. The parent only waits for it. So
what no thread can stop is stopped by the system, see `plstore.containment`, and what ends
a process becomes a message.
"""

import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec

import typer

from plstore.errors import QueryError

_Parameters = ParamSpec("_Parameters")

_INTERRUPTED = 3
_command = {"is_this_process": False}
_GRACE_SECONDS = 2  # for a child that was asked to end, which one call of a function may keep


def this_process_is_the_command() -> None:
    """Let verbs fork: nothing but the command runs in this process, and it has one thread."""
    _command["is_this_process"] = True


def in_child(verb: Callable[_Parameters, None]) -> Callable[_Parameters, None]:
    """Return a verb that runs in a child of the command, which may be ended for its SQL.

    Called from another program, or where threads are at work, it runs where it is.
    """

    @functools.wraps(verb)
    def run(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> None:
        if not _may_fork():
            verb(*args, **kwargs)
            return
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid:
            _wait(pid, seconds=kwargs.get("seconds"))
            return
        from plstore.containment import become_expendable, end_with

        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's; the parent passes it on
        end_with(parent)
        become_expendable()
        verb(*args, **kwargs)

    return run


def _may_fork() -> bool:
    if sys.platform != "linux" or not _command["is_this_process"]:
        return False
    return len(list(Path("/proc/self/task").iterdir())) == 1


def _wait(pid: int, *, seconds: Any) -> None:  # noqa: ANN401  a typer option's
    """Wait for the child, pass signals on to it, and end as it ended.

    Raises:
        QueryError: If the system ended it.
    """
    interrupted = False

    def end_child(*_: object) -> None:
        nonlocal interrupted
        interrupted = True
        os.kill(pid, signal.SIGTERM)
        signal.alarm(_GRACE_SECONDS)

    signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGKILL))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end_child)
    _, status = os.waitpid(pid, 0)
    signal.alarm(0)
    code = os.waitstatus_to_exitcode(status)
    if interrupted and code < 0:
        raise typer.Exit(_INTERRUPTED)
    if code == -signal.SIGALRM:
        limit = "its limit" if seconds is None else f"{seconds:g} s"
        raise QueryError(
            f"the SQL ran longer than {limit} and was stopped; ask for less, or raise the time "
            "limit"
        )
    if code < 0:
        raise QueryError(
            f"the SQL ended its process ({signal.Signals(-code).name}): most likely it needs "
            "more memory than there is, or is nested too deeply; ask for less, or raise the "
            "memory limit"
        )
    if code:
        raise typer.Exit(code)
