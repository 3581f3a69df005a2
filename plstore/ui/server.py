"""The app as a server of this machine alone: a socket, the guard, NiceGUI behind it."""

import secrets
import socket
import webbrowser
from collections.abc import Callable
from contextlib import closing
from typing import Final

import uvicorn
from fastapi import FastAPI
from nicegui import core, ui
from starlette.middleware.trustedhost import TrustedHostMiddleware

from plstore.errors import InputError
from plstore.ui.desk import Desk
from plstore.ui.guard import TOKEN, Guard
from plstore.ui.pages import add_pages

_HOST: Final = "127.0.0.1"
_NAMES: Final = (_HOST, "localhost")


def serve(
    store: str,
    *,
    port: int = 0,
    is_review: bool = False,
    who: str = "",
    on_start: Callable[[str], None] = lambda _: None,
    open_browser: bool = False,
) -> None:
    """Serve the app until the process is told to end.

    Args:
        store: Folder or URL.
        port: To listen on; a free one for 0.
        is_review: Whether decisions may be written.
        who: Makes them.
        on_start: Called with the URL that lets in.
        open_browser: Whether a browser is opened at it.

    Raises:
        InputError: If the port is taken.
        StoreError: If there is no store.
    """
    desk = Desk(store, is_review=is_review, who=who)
    with closing(_listen(port)) as listening:
        number = listening.getsockname()[1]
        token = secrets.token_urlsafe(24)
        url = f"http://{_HOST}:{number}/?{TOKEN}={token}"
        app = _app(desk, token=token, port=number)
        on_start(url)
        if open_browser:
            webbrowser.open(url)
        settings = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on")
        uvicorn.Server(settings).run(sockets=[listening])


def _listen(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((_HOST, port))
        listening.listen()  # a browser that is told the URL waits, and is not refused
    except (OSError, OverflowError) as error:
        listening.close()
        raise InputError(
            f"cannot listen on port {port} of {_HOST}: {error}; name another with --port, or 0 "
            "for a free one"
        ) from error
    return listening


def _app(desk: Desk, *, token: str, port: int) -> Guard:
    """Return the app with all that stands before it."""
    origins = [f"http://{name}:{port}" for name in _NAMES]
    core.sio.eio.cors_allowed_origins = origins
    inner = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    add_pages(desk)
    ui.run_with(
        inner,
        title="plstore",
        dark=None,
        tailwind=False,
        reconnect_timeout=30,
        show_welcome_message=False,
    )
    trusted = TrustedHostMiddleware(inner, allowed_hosts=list(_NAMES))
    return Guard(trusted, token=token, port=port, origins=origins)
