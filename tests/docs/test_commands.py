"""Every command of the pages is one that the shell takes, option by option."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from plstore.cli.main import app

HOME = Path(__file__).parents[2]
PAGES = sorted(
    [
        *(HOME / "docs").glob("*.md"),
        *(HOME / "docs/guides").glob("*.md"),
        HOME / "docs/explanation/method.md",
        *(HOME / name for name in ("README.md", "queries/README.md", "trainers/README.md")),
    ]
)
SHELL = typer.main.get_command(app)


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of each command of plstore in a page's blocks of shell."""
    for block in re.findall(r"```(?:sh|text)\n(.*?)```", page.read_text(), re.DOTALL):
        lines = block.replace("\\\n", " ").splitlines()
        while lines:
            text = lines.pop(0).removeprefix("$ ")
            if not text.startswith(("plstore ", "torchrun ", "find ", "TEACHER=")):
                continue
            while text.count('"') % 2:  # SQL over several lines
                text += f" {lines.pop(0).strip()}"
            for part in re.split(r"\$\(|\|", text.rstrip(")")) if "$(" in text else [text]:
                yield from _of_plstore(shlex.split(part, comments=True))


def _of_plstore(words: list[str]) -> Iterator[list[str]]:
    while "plstore" in words:
        words = words[words.index("plstore") + 1 :]
        ends = [words.index(end) for end in ("|", ">", ";", "&&") if end in words]
        yield words[: min(ends, default=len(words))]


def check(words: list[str]) -> None:
    """Parse a command as the shell does, and run nothing."""
    context = SHELL.make_context("plstore", [], resilient_parsing=True)
    verb = SHELL.get_command(context, words[0])  # type: ignore[attr-defined]
    assert verb is not None, words
    rest = words[1:]
    if hasattr(verb, "get_command"):
        context = type(context)(verb, info_name=words[0], parent=context)
        verb = verb.get_command(context, rest[0])
        assert verb is not None, words
        rest = rest[1:]
    if "--help" not in rest:
        verb.make_context(words[-1], rest, parent=context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(HOME).as_posix())
def test_the_shell_takes_every_command_of_a_page(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLSTORE_STORE", "pets/store")
    for words in commands(page):
        check(words)


def test_the_pages_have_commands() -> None:
    found = {page.relative_to(HOME).as_posix(): len(list(commands(page))) for page in PAGES}

    assert found["docs/tutorial.md"] == 13
    assert sum(found.values()) > 110


def test_a_command_that_is_none_is_found() -> None:
    with pytest.raises(Exception, match="No such option"):
        check(["evaluate", "t0", "--store", "pets/store", "--sett", "a"])
    text = 'plstore sql "select 1\n  from images" --format csv | tail -1'
    assert list(_of_plstore(shlex.split(text, comments=True))) == [
        ["sql", "select 1\n  from images", "--format", "csv"]
    ]
