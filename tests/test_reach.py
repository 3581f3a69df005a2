"""A server that does not answer is found out in seconds."""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from plstore import reach
from plstore.reach import why_hub_is_out_of_reach, why_url_is_out_of_reach


class _Answers(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(200 if self.path == "/here" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Answers) as answering:
        thread = Thread(target=answering.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{answering.server_port}"
        answering.shutdown()
        thread.join()


@pytest.fixture
def silent() -> Iterator[str]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/weights.pth"


def test_an_address_that_answers_is_within_reach(server: str) -> None:
    assert why_url_is_out_of_reach(f"{server}/here") is None
    assert "404" in str(why_url_is_out_of_reach(f"{server}/gone"))


def test_a_closed_port_is_said(unused_port: Callable[[], int]) -> None:
    reason = why_url_is_out_of_reach(f"http://127.0.0.1:{unused_port()}/weights.pth")

    assert "refused" in str(reason)


def test_a_server_that_says_nothing_is_left(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "SECONDS", 0.2)

    reason = str(why_url_is_out_of_reach(silent))

    assert "timed out" in reason or "no answer within 0.2 s" in reason


def test_offline_mode_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    assert why_hub_is_out_of_reach("timm/resnet18", "config.json") == "HF_HUB_OFFLINE is set"


def test_the_hub_is_asked_where_the_environment_says(
    unused_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused_port()}")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    code = (
        "from plstore.reach import why_hub_is_out_of_reach as why\n"
        "for kind in ('model', 'dataset'): print(why('timm/resnet18', 'a.json', kind=kind))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.count("refused") == 2
