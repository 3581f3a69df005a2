"""The report of a run as a browser shows it: one file, of a store with hostile names."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import plstore
from plstore.report.page import write_report
from plstore.store import Store
from tests.browsing import browser, needs_chromium  # noqa: F401  a fixture
from tests.looked_at import filled_with_classes

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE = ("<img src=x onerror=alert(1)>", "</style><b>dog", "{{7*7}} & owl")

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("report")
    store = filled_with_classes(home / "pets", HOSTILE)
    write_report(home / "report.html", store, result_of(store), [{"model": HOSTILE[0]}])
    return home / "report.html"


def result_of(store: Store) -> dict[str, Any]:
    view = plstore.open_view(store, "first").record
    student = {
        "teacher_id": "t1",
        "iteration": 1,
        "view": view.identity,
        "taught_by": "t0",
        "min_confidence": 0.5,
        "counts": view.counts,
        "test_accuracy": 81.5,
    }
    return {
        "recipe": HOSTILE[1],
        "recipe_hash": "0" * 8,
        "code_version": "1",
        "seed": 0,
        "run_seconds": 1,
        "teacher": {"teacher_id": "t0", "test_accuracy": 79.0},
        "control": None,
        "students": [student],
        "imported": {"verdicts": {"accepted": 84}, "conversions": {}, "splits": {}},
    }


@pytest.mark.slow
def test_a_report_is_one_file_that_asks_for_nothing_and_runs_nothing(
    written: Path,
    browser: "Browser",  # noqa: F811
) -> None:
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    wrong: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: asked.append(request.url[:5]))
    page.goto(written.as_uri())
    shown = page.inner_text("main")
    colours = [page.evaluate("getComputedStyle(document.body).backgroundColor")]
    page.emulate_media(color_scheme="light")
    colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    page.emulate_media(media="print", color_scheme="dark")
    colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    num_broken = page.evaluate("[...document.images].filter((i) => !i.naturalWidth).length")

    assert wrong == []
    assert set(asked) <= {"file:", "data:"}
    assert asked.count("file:") == 1
    assert num_broken == 0
    assert page.locator("script, img[src='x'], main style").count() == 0
    assert colours == ["rgb(16, 17, 20)", "rgb(247, 247, 245)", "rgb(255, 255, 255)"]
    assert all(name in shown for name in HOSTILE)
    assert page.locator("svg.lineage .node").count() == 6
    assert page.locator(".matrix td").count() == 9
    assert 0 < page.locator(".tile").count() <= 12
    context.close()


def test_a_report_counts_what_other_floors_would_keep(written: Path) -> None:
    text = written.read_text()
    part = text.partition("Kept by floor")[2].partition("</section>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", part)[1:]
    numbers = [re.findall(r">([^<]+)<", row) for row in rows]

    assert [float(row[0]) for row in numbers][:3] == [0.0, 0.1, 0.3]
    assert "<b>0.5</b>" in part
    assert numbers[0][1] == "60"
    above = [int(row[1]) for row in numbers]
    assert above == sorted(above, reverse=True)
