from collections.abc import Iterator
from contextlib import closing
from socket import create_connection

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from plstore.ui.guard import Guard
from plstore.ui.server import _listen

OWN = "http://127.0.0.1:8099"
SOCKET = "ws://127.0.0.1:8099/_nicegui_ws/"


async def page(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"inside {request.url.path}?{request.url.query}")


async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("inside")
    await websocket.close()


@pytest.fixture
def client() -> Iterator[TestClient]:
    app = Starlette(
        routes=[Route("/{path:path}", page), WebSocketRoute("/{path:path}", socket)]
    )
    guard = Guard(
        app,
        token="secret",  # noqa: S106  of this test
        port=8099,
        origins=[OWN],
    )
    with TestClient(guard, base_url=OWN, follow_redirects=False) as found:
        yield found


def test_nobody_comes_in_without_the_token(client: TestClient) -> None:
    for address in ("/", "/grid?token=", "/grid?token=wrong", "/_nicegui/static/a.css"):
        answer = client.get(address)
        assert answer.status_code == 403
        assert "inside" not in answer.text


def test_the_token_sets_a_cookie_and_leaves_the_address(client: TestClient) -> None:
    answer = client.get("/grid?class=a%20b&token=secret")

    assert answer.status_code == 303
    assert answer.headers["location"] == "/grid?class=a+b"
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert "samesite=lax" in answer.headers["set-cookie"].lower()
    assert client.get("/grid").text == "inside /grid?"


def test_the_way_in_never_leads_to_another_host(client: TestClient) -> None:
    answer = client.get(f"{OWN}//evil.example/x?token=secret")

    assert answer.headers["location"].startswith("/evil.example")


@pytest.mark.parametrize(
    "cookie", ["plstore-ui-8099=wrong", "plstore-ui-1=secret", ";;=", "\xe9"]
)
def test_a_wrong_cookie_is_none(client: TestClient, cookie: str) -> None:
    answer = client.get("/", headers={b"cookie": cookie.encode("latin-1")})

    assert answer.status_code == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999"])
def test_another_site_is_refused_even_with_the_cookie(client: TestClient, origin: str) -> None:
    client.get("/?token=secret")

    assert client.get("/", headers={"origin": origin}).status_code == 403
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect(SOCKET, headers={"origin": origin}),
    ):
        pass


def test_a_socket_needs_the_cookie_too(client: TestClient) -> None:
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect(f"{SOCKET}?token=secret", headers={"origin": OWN}),
    ):
        pass
    client.get("/?token=secret")
    with client.websocket_connect(SOCKET, headers={"origin": OWN}) as connected:
        assert connected.receive_text() == "inside"


def test_who_is_told_the_url_is_heard_though_the_app_is_not_up_yet() -> None:
    with (
        closing(_listen(0)) as listening,
        closing(create_connection(listening.getsockname(), timeout=5)) as asking,
    ):
        assert asking.getpeername() == listening.getsockname()
