"""Pages that other folders of the project keep: gathered when the documentation is built.

A link to a file that is a page here leads to the page, one to another file downloads it, one to
a folder is its name.
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import typer

import plstore
from plstore.cli.main import app

HERE = Path(__file__).parent
HOME = HERE.parent
PAGES = {
    "benchmarks/README.md": "reference/benchmarks.md",
    "queries/README.md": "reference/queries.md",
    "plstore/API.md": "reference/python.md",
    "plstore/FORMAT.md": "reference/format.md",
    "trainers/README.md": "explanation/trainers.md",
    "CONTRIBUTING.md": "explanation/design.md",
    "CHANGELOG.md": "reference/changelog.md",
}
"""Pages of the documentation by the file they are made of."""

_WIDTH = 96
_CLI = """# The command line

Every verb takes `--store PATH`, or the environment variable `PLSTORE_STORE`, and most of them
`--format table|json|csv`. What is for machines goes to stdout, progress and messages to stderr.
Exit codes: 0 done, 1 found wrong (`verify`, `audit`), 2 bad input, 3 interrupted: the same
command goes on.
"""

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def gather() -> None:
    """Write the pages, and the reference of the Python names; those that are the same stay."""
    for source, page in PAGES.items():
        text = (HOME / source).read_text()
        _write(HERE / page, _LINK.sub(partial(_linked, source=source, page=page), text))
    _write(HERE / "reference/names.md", _names())
    _write(HERE / "reference/cli.md", _CLI + "".join(_verbs()))


def _verbs() -> Iterator[str]:
    """Yield a section for each verb of the shell: what its --help says."""
    every = typer.main.get_command(app)
    top = every.make_context("plstore", [], resilient_parsing=True)
    for name in every.list_commands(top):
        verb = every.get_command(top, name)
        within = type(top)(verb, info_name=name, parent=top)
        if not hasattr(verb, "list_commands"):
            yield _help(verb, top, name)
            continue
        for part in verb.list_commands(within):
            yield _help(verb.get_command(within, part), within, part)


def _help(command: Any, above: Any, name: str) -> str:  # noqa: ANN401  typer's own click
    context = type(above)(command, info_name=name, parent=above, terminal_width=_WIDTH)
    text = command.get_help(context).strip()
    return f"\n## {context.command_path}\n\n```text\n{text}\n```\n"


def _write(page: Path, text: str) -> None:
    if not page.is_file() or page.read_text() != text:
        page.write_text(text)


def _linked(found: re.Match[str], source: str, page: str) -> str:
    """Return a link of a file as one of its page."""
    mark, label, target = found.groups()
    if target.startswith(("http", "#", "mailto:")):
        return found[0]
    path, _, anchor = target.partition("#")
    place = (HOME / source).parent / path
    name = place.resolve().relative_to(HOME).as_posix()
    up = "../" * page.count("/")
    if name in PAGES:
        return f"{mark}[{label}]({up}{PAGES[name]}{'#' if anchor else ''}{anchor})"
    if place.is_dir() or not place.exists():
        return label if label.startswith("`") else f"`{label}`"
    return f"{mark}[{label}]({'' if mark else 'path:'}{up}../{name})"


def _names() -> str:
    """Return a page of all public names, classes first."""
    names = sorted((n for n in plstore.__all__ if n[0] != "_"), key=str.lower)
    kinds = {name: isinstance(getattr(plstore, name), type) for name in names}
    parts = [
        "# All names",
        "",
        "What `import plstore` offers: every verb of the shell is a call.",
    ]
    for title, wanted in (("Calls", False), ("Classes", True)):
        parts += ["", f"## {title}", "", "```{eval-rst}"]
        kind = "autoclass" if wanted else "autofunction"
        for name in names:
            if kinds[name] is wanted:
                parts += [
                    f".. {kind}:: plstore.{name}",
                    *(["   :members:"] if wanted else []),
                    "",
                ]
        parts += ["```"]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    gather()
