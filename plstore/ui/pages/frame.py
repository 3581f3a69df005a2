"""What all pages have: the list of pages, the snapshot and its note, light and dark, keys."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from fastapi import Request
from markupsafe import Markup
from nicegui import ui

from plstore.report.markup import html, joined, note, style
from plstore.report.snapshot import FAILURES
from plstore.ui.address import Address
from plstore.ui.desk import Desk

PAGES: Final = (
    ("/", "Overview"),
    ("/thresholds", "Thresholds"),
    ("/grid", "Grid"),
    ("/compare", "Compare"),
    ("/view", "Views"),
    ("/runs", "Runs"),
    ("/sql", "SQL"),
    ("/review", "Review"),
)
_THEMES: Final = {"auto": None, "light": False, "dark": True}
_THEME_COOKIE: Final = "plstore-theme"
_SIDE_BUTTONS: Final = (
    Markup(
        '<button type="button" id="theme" title="Light, dark, or as the system (d)">theme'
        "</button>"
    ),
    Markup('<button type="button" id="keys" title="What keys do (?)">keys</button>'),
)
_REFRESH: Final = Markup(
    '<button type="button" id="refresh" title="Look at the newest version (r)">refresh</button>'
)
_LOOK_SECONDS: Final = 15.0
_REMOTE_LOOK_SECONDS: Final = 120.0  # a look at a bucket is a request for each table
_BUILD_SECONDS: Final = 150.0
_PATIENCE_SECONDS: Final = 0.3
"""How long a page is not sent because parts of it are not there yet, all together."""

Draw = Callable[[Desk, Address], Awaitable[None]]


_P = ParamSpec("_P")
_T = TypeVar("_T")


async def apart(work: Callable[_P, _T], *args: _P.args, **named: _P.kwargs) -> _T:
    """Do what waits for disks or SQL in a thread; other pages are answered meanwhile.

    Where it takes long, the page is sent as far as it is drawn, and the rest when it is there.
    """
    working = asyncio.ensure_future(asyncio.to_thread(work, *args, **named))
    client = ui.context.client
    if client.has_socket_connection:
        return await working
    patience = _PATIENCE_SECONDS - (time.time() - client.created)
    await asyncio.wait([working], timeout=max(patience, 0))
    if working.done():
        return working.result()
    waiting = show(Markup('<p class="note waiting">Looking it up …</p>'))
    await client.connected(timeout=_BUILD_SECONDS)
    try:
        found = await working
    finally:
        if not client.is_deleted:
            waiting.delete()
    if client.is_deleted:  # who asked went away: there is nothing to draw on
        raise asyncio.CancelledError
    return found


@cache
def _keys() -> str:
    return (Path(__file__).parents[1] / "keys.js").read_text(encoding="utf-8")


def show(markup: Markup, tag: str = "div") -> ui.html:
    """Draw HTML that `plstore.report.markup` made; its texts are escaped there."""
    return ui.html(str(markup), sanitize=False, tag=tag)


def heading(title: object, lead: object = "") -> None:
    """Draw the head of a page."""
    show(html('<h1>{}</h1><p class="lead">{}</p>', title, lead)).classes("page-head")


def add_page(desk: Desk, path: str, draw: Draw) -> None:
    """Make a page known: its frame, and within it what `draw` draws, or why it cannot."""

    async def build(request: Request) -> None:
        name = dict(PAGES).get(path, "Image")
        ui.page_title(f"{name} · {Path(desk.path).name or desk.path}")
        _head(request.cookies.get(_THEME_COOKIE, "auto"))
        with ui.element("div").classes("app"):
            await _side(desk, path)
            with ui.element("main").classes("main") as main:
                try:
                    await draw(desk, Address(path, dict(request.query_params)))
                except FAILURES as error:
                    await apart(desk.recover)
                    _failed(error)
            main.props("data-there=1")  # all of it, for who waits for a page

    ui.page(path, response_timeout=_BUILD_SECONDS)(build)


def _head(theme: str) -> None:
    ui.add_head_html(f"<style>{style()}</style>")
    ui.add_head_html(f"<script>{_keys()}</script>")
    ui.colors(primary="#4f5bd5", negative="#c2410c", dark="#17181c", dark_page="#101114")
    ui.dark_mode(_THEMES.get(theme))
    ui.query("body").props(f'data-theme="{theme if theme in _THEMES else "auto"}"')


def _failed(error: Exception) -> None:
    heading("This cannot be shown now")
    show(note(str(error), "wrong"))
    show(
        Markup(
            '<p class="note">If the store was moved or is being written, it may be back in a '
            'moment. <a class="link" href="">Try again</a></p>'
        )
    )


async def _side(desk: Desk, path: str) -> None:
    items = [
        html(
            '<a href="{}" class="{}" data-key="{}"><span>{}</span><kbd>{}</kbd></a>',
            to,
            "here" if to == path else "",
            number,
            name,
            number,
        )
        for number, (to, name) in enumerate(PAGES, start=1)
    ]
    with ui.element("nav").classes("side"):
        show(Markup('<a class="brand" href="/"><i></i>plstore</a>'))
        show(html('<div class="pages">{}</div>', joined(items)))
        with ui.element("div").classes("side-foot"):
            await _state(desk)


async def _state(desk: Desk) -> None:
    """Draw which store this is, as of when, and a note once somebody wrote to it."""
    mode = "review" if desk.is_review else "read only"
    name = Path(desk.path).name if "://" not in desk.path else desk.path
    try:
        snapshot = await apart(desk.snapshot)
        number = f"commit {snapshot.number}"
    except FAILURES:
        number = "not there"
    show(
        html(
            '<div class="where" title="{}"><b>{}</b><small>{} · {}</small></div>',
            desk.path,
            name,
            number,
            mode,
        )
    )
    newer = ui.button("New version: look", on_click=lambda: _refresh(desk))
    newer.props("unelevated no-caps dense color=primary").classes("newer").set_visibility(False)

    async def look() -> None:
        try:
            old = await apart(desk.snapshot().is_old)
        except FAILURES:
            newer.set_text("The store is gone: try again")
            old = True
        newer.set_visibility(bool(old))

    seconds = _REMOTE_LOOK_SECONDS if "://" in desk.path else _LOOK_SECONDS
    ui.timer(seconds, look, immediate=False)
    with ui.element("div").classes("side-buttons"):
        for markup in _SIDE_BUTTONS:
            show(markup)
        again = show(_REFRESH)
        again.on("click", lambda: _refresh(desk))


async def _refresh(desk: Desk) -> None:
    try:
        await apart(desk.refresh)
    except FAILURES as error:
        ui.notify(str(error), type="warning", multi_line=True)
        return
    ui.navigate.reload()
