"""The command in this process: what it says of bad input, without starting one for each."""

import io
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from plstore.cli.main import BAD_INPUT, app
from plstore.errors import PlstoreError


@dataclass(frozen=True, kw_only=True)
class Done:
    """How it ended, as `subprocess.run` says it."""

    returncode: int
    stdout: str
    stderr: str


def shell(*words: str | Path, home: Path | None = None) -> Done:
    """Run the command with some words, in a folder; an error is said as `main` says it."""
    code: object = 0
    with _captured(words) as (stdout, stderr), chdir(home or Path.cwd()):
        try:
            app()
        except SystemExit as ended:
            code = ended.code or 0
        except PlstoreError as error:
            stderr.write(f"plstore: {error}\n")
            code = BAD_INPUT
    assert isinstance(code, int)
    return Done(returncode=code, stdout=stdout.getvalue(), stderr=stderr.getvalue())


@contextmanager
def _captured(words: tuple[str | Path, ...]) -> Iterator[tuple[io.StringIO, io.StringIO]]:
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        patch.object(sys, "argv", ["plstore", *map(str, words)]),
        redirect_stdout(stdout),
        redirect_stderr(stderr),
    ):
        yield stdout, stderr
