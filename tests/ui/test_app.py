"""The app in a browser: one server and one Chromium for all of these tests."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

import pytest

import plstore
from plstore.store import Store
from plstore.ui.address import url
from tests.browsing import browser, needs_chromium  # noqa: F401  a fixture
from tests.looked_at import filled_with_classes

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page

HOSTILE = ("<img src=x onerror=alert(1)>", "</script><b>dog", "{{7*7}} & owl")
PAGES = (
    "/",
    "/thresholds",
    "/grid",
    "/compare",
    "/view",
    "/runs",
    "/sql",
    "/review",
    "/image?id=20",
)
_ALLOWED = ("data:", "blob:")

pytestmark = needs_chromium


@dataclass
class Server:
    """The app, running."""

    url: str
    store: Store
    process: "subprocess.Popen[str]"

    @property
    def root(self) -> str:
        return self.url.partition("/?")[0]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    store = filled_with_classes(tmp_path_factory.mktemp("app") / "pets", HOSTILE)
    with serving(store, "-m", "plstore") as found:
        yield found


@contextmanager
def serving(store: Store, *program: str) -> Iterator[Server]:
    command = [sys.executable, *program, "ui", str(store.root), "--no-open", "--review"]
    process = subprocess.Popen(
        [*command, "--who", "ann"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said = process.stderr.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", said)
    assert found, said
    yield Server(found[0], store, process)
    process.terminate()
    _, rest = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in rest


@pytest.fixture
def page(server: Server, browser: "Browser") -> "Iterator[Page]":  # noqa: F811
    with watched(server, browser) as found:
        yield found


@contextmanager
def watched(server: Server, browser: "Browser") -> "Iterator[Page]":  # noqa: F811
    """Open a page that was let in, and that fails where it said or asked what it must not."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    found = context.new_page()
    wrong: list[str] = []

    def alerted(dialog: "Dialog") -> None:
        wrong.append(dialog.message)
        dialog.dismiss()

    found.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.on("dialog", alerted)
    found.on("request", lambda r: None if _is_own(server, r.url) else wrong.append(r.url))
    found.goto(server.url)
    found.wait_for_selector("main h1")
    yield found
    context.close()
    assert wrong == []


def _is_own(server: Server, address: str) -> bool:
    return address.startswith((server.root, server.root.replace("http", "ws"), *_ALLOWED))


def opened(page: "Page", server: Server, path: str) -> str:
    page.goto(server.root + path)
    page.wait_for_selector("main[data-there] h1")
    page.wait_for_function(
        "window.did_handshake || document.querySelector('#app').children.length"
    )
    page.wait_for_timeout(300)
    return page.inner_text("main")


def test_every_page_opens_and_shows_hostile_names_as_they_are(
    page: "Page", server: Server
) -> None:
    for path in PAGES:
        shown = opened(page, server, path)
        assert "cannot be shown" not in shown, path
        assert page.locator("main script, main img[src='x']").count() == 0, path
    shown = opened(page, server, "/compare")
    assert all(name in shown for name in HOSTILE)


_IMPATIENT = """
import plstore.ui.pages.frame as frame
from plstore.cli.main import main
frame._PATIENCE_SECONDS = 0
main()
"""


@pytest.mark.nightly
def test_a_page_is_sent_before_its_slow_parts_are_there(
    server: Server,
    browser: "Browser",  # noqa: F811
) -> None:
    with (
        serving(server.store, "-c", _IMPATIENT) as impatient,
        watched(impatient, browser) as early,
        watched(server, browser) as page,
    ):
        for path in PAGES:
            answer = early.request.get(impatient.root + path).text()
            assert "Looking it up" in answer, path
            words = " ".join(opened(page, server, path).split())
            early.goto(impatient.root + path)
            early.wait_for_function(
                "(words) => document.querySelector('main')?.innerText.split(/\\s+/).join(' ')"
                ".trim() == words",
                arg=words,
            )


@pytest.mark.nightly
def test_nobody_else_comes_in(server: Server) -> None:
    port = server.root.rpartition(":")[2]

    def status(url: str, **headers: str) -> int:
        try:
            with urlopen(Request(url, headers=headers)) as answer:  # noqa: S310  http of our own
                return int(answer.status)
        except OSError as error:
            return int(getattr(error, "code", 0))

    assert status(f"{server.root}/") == 403
    assert status(f"{server.root}/_nicegui/static/x.css") == 403
    assert status(server.url, Origin="http://evil.example") == 403
    token = server.url.partition("token=")[2]
    cookie = f"plstore-ui-{port}={token}"
    assert status(f"{server.root}/", Cookie=cookie) == 200
    assert status(f"{server.root}/", Cookie=cookie, Host="evil.example") == 400


@pytest.mark.nightly
def test_keys_move_through_the_grid_and_open_an_image(page: "Page", server: Server) -> None:
    opened(page, server, "/grid?sort=id")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "id=13" in str(page.evaluate("document.activeElement.getAttribute('href')"))
    page.keyboard.press("j")
    assert "id=13" not in str(page.evaluate("document.activeElement.getAttribute('href')"))
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    page.wait_for_url("**/image?id=13*")
    page.wait_for_selector(".step-next")
    page.keyboard.press("j")
    page.wait_for_url("**/image?id=14*")
    page.keyboard.press("g")
    page.wait_for_url("**/grid?*")
    page.wait_for_selector("a[data-key='2']")
    page.keyboard.press("2")
    page.wait_for_url("**/thresholds")


@pytest.mark.nightly
def test_filters_change_the_page_and_its_address(page: "Page", server: Server) -> None:
    before = opened(page, server, "/grid")
    page.locator(".q-field", has_text="Order").first.click()
    page.get_by_text("the least sure first").click()
    page.wait_for_url("**sort=-confidence*")
    page.wait_for_timeout(800)
    after = page.inner_text("main")

    assert before != after
    assert opened(page, server, page.url.removeprefix(server.root)) == after


@pytest.mark.nightly
def test_a_floor_is_counted_at_once_and_saved_as_a_view(page: "Page", server: Server) -> None:
    opened(page, server, "/thresholds?floor=0.5&view=saved&quota=5")
    page.get_by_role("button", name="Save as view").click()
    page.wait_for_url("**/view?view=saved@1")
    view = plstore.open_view(server.store, "saved")

    assert view.record.parameters["min_confidence"] == 0.5
    assert view.record.parameters["images_per_class"] == 5


@pytest.mark.nightly
def test_hostile_names_are_only_shown_in_charts_too(page: "Page", server: Server) -> None:
    hostile = url("/thresholds", {"class": HOSTILE[0], "floor": 0.2})
    for path in (hostile, "/sql?query=coverage/labels_per_class"):
        opened(page, server, path)
        page.wait_for_selector(".chart svg")
        box = page.locator(".chart").first.bounding_box()
        assert box is not None
        for share in (0.3, 0.5, 0.7, 0.9):
            page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
            page.wait_for_timeout(100)
        assert page.locator(".chart div", has_text=HOSTILE[0]).count(), path
        assert page.locator("main img[src='x']").count() == 0


@pytest.mark.nightly
def test_decisions_take_one_key_each(page: "Page", server: Server) -> None:
    before = server.store.table("corrections").read().num_rows
    opened(page, server, "/review")
    page.wait_for_selector(".review-desk .stage")
    page.keyboard.press("a")
    page.wait_for_selector("text=1 decided by ann")
    page.keyboard.press("x")
    page.wait_for_selector("text=2 decided by ann")
    page.keyboard.press("u")
    page.wait_for_selector("text=1 decided by ann")
    page.keyboard.press(" ")
    page.wait_for_selector("text=1 selected")
    page.keyboard.press(" ")
    page.wait_for_selector("text=2 selected")
    page.keyboard.press("c")
    page.locator(".q-dialog input").fill(HOSTILE[2])
    page.keyboard.press("Enter")
    page.wait_for_selector("text=3 decided by ann")

    assert server.store.table("exclusions").read().num_rows == 0
    rows = server.store.table("corrections").read().to_pylist()
    assert {r["who"] for r in rows} == {"ann"}
    assert len(rows) == before + 3


@pytest.mark.nightly
def test_light_and_dark_follow_the_system_and_are_switched(
    server: Server,
    browser: "Browser",  # noqa: F811
) -> None:
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(server.url)
    page.wait_for_selector("body.body--dark")
    page.keyboard.press("d")  # light
    page.wait_for_selector("body.body--light")
    page.reload()
    page.wait_for_selector("body.body--light")
    context.close()


@pytest.mark.nightly
def test_sql_is_asked_and_a_newer_store_is_said(page: "Page", server: Server) -> None:
    opened(page, server, "/sql?sql=select+sample_id,+key+from+images+order+by+1+limit+3")
    page.wait_for_selector("text=3 rows")
    page.wait_for_selector("a[href='/image?id=0']")
    opened(page, server, "/sql?sql=drop+table+images")
    page.wait_for_selector("text=wanted exactly one SELECT")


@pytest.mark.nightly
def test_a_store_that_goes_away_is_said_on_the_page(page: "Page", server: Server) -> None:
    root = server.store.root
    away = root.with_name("away")
    root.rename(away)
    try:
        shown = opened(page, server, "/grid?class=1&page=0&low=0.123")
        assert "cannot be shown now" in shown
    finally:
        away.rename(root)
    assert "cannot be shown" not in opened(page, server, "/grid?class=1&low=0.123")
