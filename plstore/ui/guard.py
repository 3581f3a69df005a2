"""Who may ask the app: a browser of this machine that was given the token.

Any page that a user visits can send requests to their own machine. So a request needs the
token, in its URL or in the cookie that the first one sets; its `Host` must be this machine's
own name, and its `Origin`, where it has one, this app's.
"""

import secrets
from collections.abc import Sequence
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

TOKEN: Final = "token"  # noqa: S105  the parameter's name
_REFUSED: Final = 403
_POLICY: Final = 1008  # how a websocket says so

_HEADERS: Final = {
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}


class Guard:
    """Lets through requests with the token and of the app's own origin, and no others."""

    def __init__(self, app: ASGIApp, *, token: str, port: int, origins: Sequence[str]) -> None:
        """Wrap an app.

        Args:
            app: What is guarded.
            token: Secret.
            port: Of the app; browsers share cookies between ports.
            origins: Of its own pages.
        """
        self._app = app
        self._token = token
        self._cookie = f"plstore-ui-{port}"
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin is not None and origin not in self._origins:
            await _refuse(scope, receive, send, "a request of another site")
        elif self._is_secret(self._cookie_of(headers)):
            await self._app(scope, receive, send)
        elif scope["type"] == "http" and self._is_secret(_token_of(scope)):
            await self._welcome(scope)(scope, receive, send)
        else:
            await _refuse(
                scope, receive, send, "no token: open the URL that plstore ui printed"
            )

    def _is_secret(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self._token.encode())

    def _cookie_of(self, headers: Headers) -> str:
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return ""
        return "" if found is None else found.value

    def _welcome(self, scope: Scope) -> Response:
        """Set the cookie, and go to the same address without the token."""
        kept = [pair for pair in _parameters(scope) if pair[0] != TOKEN]
        query = f"?{urlencode(kept)}" if kept else ""
        path = "/" + scope["path"].lstrip("/")  # never another host's
        answer = RedirectResponse(path + query, 303, headers=_HEADERS)
        answer.set_cookie(self._cookie, self._token, httponly=True, samesite="lax")
        return answer


def _parameters(scope: Scope) -> list[tuple[str, str]]:
    return parse_qsl(scope["query_string"].decode("latin-1"))


def _token_of(scope: Scope) -> str:
    return dict(_parameters(scope)).get(TOKEN, "")


async def _refuse(scope: Scope, receive: Receive, send: Send, why: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": _POLICY, "reason": why})
        return
    await PlainTextResponse(f"refused: {why}\n", _REFUSED)(scope, receive, send)
