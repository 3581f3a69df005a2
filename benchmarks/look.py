"""How fast is the app on a store of a million images? In a browser, page by page.

    python -m benchmarks.look --home FOLDER --json benchmarks/results/DATE-look.json
    python -m benchmarks.look --quick

The store (`look_store`) is made once under --home. `plstore ui` runs in a process of its own,
and a headless Chromium opens its pages. Times are the browser's own: `paint` is the first
contentful paint, `there` when what the page is about is drawn, images decoded; `first` visits
are those after the server's start, `again` those after. Changes are from the click or key until
the page shows what follows; `cpu` is what the server has had of the processors meanwhile,
which depends less on what else the machine does. Every round starts the server anew; figures
are medians of rounds and of several changes. `server` is the peak memory of the process that
serves, `sql` that of the one that saved queries and SQL of the user run in; `report` what
`plstore report` takes.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from benchmarks.look_store import build, splits
from benchmarks.record import Measurement, publish
from benchmarks.watch import Descendants, cpu_seconds, peak_kilobytes
from plstore.store import Store

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_QUICK_ROWS: Final = 20_000
_PIXELS: Final = {"width": 1280, "height": 900}
_WAIT_MS: Final = 70_000
_TILES: Final = (
    "(() => { const all = [...document.querySelectorAll('.tile img')];"
    " return all.length == 60 && all.every((one) => one.complete && one.naturalWidth); })()"
)
_CHART: Final = "!!document.querySelector('.chart svg path')"
_NOW: Final = "performance.now()"
_PAINT: Final = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
_AGAIN: Final = "!document.querySelector('[data-old]')"

Times = dict[tuple[str, str], list[float]]


def pages(num_images: int) -> dict[str, tuple[str, str]]:
    """Return an address of each page, and what is true once its own content is there."""
    one = splits(num_images)["unlabeled"][num_images // 2]
    last_commits = "document.body.innerText.includes('Last commits')"
    return {
        "overview": ("/", f"!!document.querySelector('svg.lineage') && {last_commits}"),
        "thresholds": ("/thresholds", f"{_CHART} && !!document.querySelector('.table')"),
        "grid": ("/grid", _TILES),
        "grid, flipped": ("/grid?against=t0@1&change=flipped", _TILES),
        "grid, most disputed": ("/grid?against=t0@1&sort=disagreement", _TILES),
        "grid, page 10,000": (f"/grid?page={num_images // 100}", _TILES),
        "grid, of a view": ("/grid?labels=none&view=view-2@1", _TILES),
        "grid, of a saved query": ("/grid?query=selection/low_margin_images", _TILES),
        "image": (f"/image?id={one}", "!!document.querySelector('.label-set')"),
        "compare": ("/compare", "!!document.querySelector('.matrix td a')"),
        "view": ("/view?view=view-2@1", "!!document.querySelector('.figures .figure')"),
        "views compared": (
            "/view?view=view-2@1&against=view-1@1",
            "document.body.innerText.includes('entered')",
        ),
        "runs": ("/runs", f"{_CHART} && document.body.innerText.includes('Evaluated on')"),
        "sql": (
            "/sql?query=coverage/labels_per_class",
            "!!document.querySelector('main table.table')",
        ),
        "review": ("/review", "!!document.querySelector('.review-desk .stage img')"),
    }


def main(words: Sequence[str] | None = None) -> None:
    """Make the store, look at it, publish."""
    options = _parser().parse_args(words)
    num_images = _QUICK_ROWS if options.quick else options.rows
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) if options.home is None else options.home
        store = build(home, num_images)
        looking = _Looking(store, num_images, None if options.quick else options.screens)
        rounds = 1 if options.quick else options.rounds
        for number in range(rounds):
            looking.round(is_last=number + 1 == rounds)
        looking.report(Path(scratch) / "report.html")
    command = "python -m benchmarks.look " + " ".join(words or sys.argv[1:])
    publish(looking.measurements(), command=command, json_path=options.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="20,000 images, one round")
    parser.add_argument("--rows", type=int, default=1_000_000, help="images of the store")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--home", type=Path, help="where the store is made and kept")
    parser.add_argument("--json", type=Path, help="where the measurements go")
    parser.add_argument("--screens", type=Path, help="folder for pictures of the pages")
    return parser


class _Looking:
    """What was measured so far."""

    def __init__(self, store: Store, num_images: int, screens: Path | None) -> None:
        self._store, self._pages = store, pages(num_images)
        self._num_images, self._screens = num_images, screens
        self._ms: Times = {}
        self._pid, self._cpu_s = 0, 0.0
        self._other: dict[tuple[str, str, str], list[float]] = {}

    def round(self, *, is_last: bool) -> None:
        """Start the server, open every page twice, change what can be changed."""
        with served(self._store.root) as (url, pid, up), Descendants(pid) as under:
            self._pid = pid
            self._cpu_s = 0.0
            self._note("server", "start", 1000 * up)
            with browsing() as browser:
                self._visit(browser, url, "first")
                page = self._visit(browser, url, "again")
                self._change(page, url.partition("/?")[0])
                if is_last:
                    self._shoot(page, url.partition("/?")[0])
            own = peak_kilobytes(pid) / 1024
        self._other.setdefault(("server", "peak_rss_mb", "MB"), []).append(own)
        self._other.setdefault(("sql", "peak_rss_mb", "MB"), []).append(
            max(under.peak_kb.values(), default=0) / 1024
        )

    def _note(self, case: str, metric: str, milliseconds: float) -> None:
        """Keep a time, and what the server has had of the processors since `_begin`."""
        cpu = 1000 * (cpu_seconds(self._pid) - self._cpu_s)
        self._ms.setdefault((case, metric), []).append(milliseconds)
        self._ms.setdefault((case, f"{metric}_cpu"), []).append(cpu)
        text = f"{case} {metric}: {milliseconds:,.0f} ms, {cpu:,.0f} of the processors"
        print(text, file=sys.stderr, flush=True)

    def _begin(self) -> None:
        self._cpu_s = cpu_seconds(self._pid)

    def _visit(self, browser: "Browser", url: str, when: str) -> "Page":
        """Open every page; a browser that has been here keeps the app's scripts."""
        page = browser.new_context(viewport=_PIXELS).new_page()  # type: ignore[arg-type]
        page.set_default_timeout(_WAIT_MS)
        for name, (path, is_there) in self._pages.items():
            self._begin()
            page.goto(url if path == "/" else url.partition("/?")[0] + path)
            there = _until(page, is_there)
            self._note(name, f"{when}_there", there)
            self._ms.setdefault((name, f"{when}_paint"), []).append(
                _until(page, "true", _PAINT)
            )
        return page

    def _change(self, page: "Page", root: str) -> None:
        """Change classes, floors and pages, and open a cell, as a person does."""
        classes = list(self._store.class_names)[2:7]
        for path, name in (("/grid", "grid"), ("/thresholds", "thresholds")):
            page.goto(root + path)
            _until(page, self._pages[name][1])
            for class_name in classes:
                is_new = f"{_AGAIN} && {_TILES if name == 'grid' else _CHART}"
                self._begin()
                self._note(name, "class", _choose(page, class_name, is_new))
        for _ in classes:
            self._begin()
            self._note("thresholds", "floor", _press(page, "ArrowRight"))
        page.goto(f"{root}/grid")
        _until(page, _TILES)
        for _ in classes:
            self._begin()
            _mark(page)
            page.locator(".page-next").first.click(no_wait_after=True)
            self._note("grid", "next_page", _until(page, f"{_AGAIN} && {_TILES}"))
        for place in range(len(classes)):
            page.goto(f"{root}/compare")
            _until(page, self._pages["compare"][1])
            self._begin()
            page.locator(".matrix td.wrong a").nth(7 * place).click(no_wait_after=True)
            page.wait_for_url("**/grid*")
            self._note("compare", "cell", _until(page, _TILES))

    def _shoot(self, page: "Page", root: str) -> None:
        if self._screens is None:
            return
        self._screens.mkdir(parents=True, exist_ok=True)
        for name, (path, is_there) in self._pages.items():
            page.goto(root + path)
            _until(page, is_there)
            page.wait_for_timeout(700)
            page.screenshot(path=self._screens / f"{re.sub('[^a-z0-9]+', '-', name)}.png")

    def report(self, place: Path) -> None:
        """Write the report of the store's run."""
        command = [sys.executable, "-m", "plstore", "report", "--out", str(place)]
        start = time.perf_counter()
        process = subprocess.Popen([*command, "--store", str(self._store.root)])
        with Descendants(os.getpid()) as under:
            process.wait()
        if process.returncode:
            raise SystemExit("no report was written")
        found = {
            ("wall_s", "s"): time.perf_counter() - start,
            ("bytes", "bytes"): place.stat().st_size,
            ("peak_rss_mb", "MB"): under.peak_kb.get(process.pid, 0) / 1024,
        }
        for (metric, unit), value in found.items():
            self._other["report", metric, unit] = [value]

    def measurements(self) -> list[Measurement]:
        """Return the medians."""
        timed = {(case, f"{metric}_ms", "ms"): v for (case, metric), v in self._ms.items()}
        return [
            Measurement(
                case=case,
                contender="plstore",
                metric=metric,
                value=round(median(values), 1),
                unit=unit,
            )
            for (case, metric, unit), values in {**timed, **self._other}.items()
        ]


def _until(page: "Page", is_there: str, then: str = _NOW) -> float:
    """Return the milliseconds since the page was asked for, once something is true of it."""
    script = f"() => document.querySelector('main') && ({is_there}) && {then}"
    return float(page.wait_for_function(script, timeout=_WAIT_MS).json_value())


def _mark(page: "Page") -> None:
    """Mark what is to be drawn anew, and note the time of the next click or key."""
    page.evaluate(
        """() => {
          for (const one of document.querySelectorAll('.tiles, .table'))
            one.dataset.old = 1;
          const note = () => { window.asked = performance.now(); };
          for (const kind of ['pointerdown', 'keydown'])
            window.addEventListener(kind, note, {capture: true, once: true});
        }"""
    )


def _since(page: "Page", is_new: str) -> float:
    script = f"() => ({is_new}) && performance.now() - window.asked"
    return float(page.wait_for_function(script, timeout=_WAIT_MS).json_value())


def _choose(page: "Page", class_name: str, is_new: str) -> float:
    """Choose a class in its list; return the milliseconds from the click on its name."""
    page.locator(".q-field", has_text=re.compile("^Class")).first.click()
    choice = page.locator(".q-menu .q-item", has_text=class_name).first
    choice.wait_for()
    page.wait_for_timeout(400)  # the list has opened
    _mark(page)
    choice.click()
    return _since(page, is_new)


def _press(page: "Page", key: str) -> float:
    page.locator(".q-slider [tabindex]").first.focus()
    page.wait_for_timeout(300)
    _mark(page)
    page.keyboard.press(key)
    return _since(page, _AGAIN)


@contextmanager
def served(root: Path) -> Iterator[tuple[str, int, float]]:
    """Run the app; yield its URL, its process id, and the seconds until it said so."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "plstore", "ui", str(root), "--no-open"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        said = "" if process.stderr is None else process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", said)
        if found is None:
            raise SystemExit(f"the app did not start: {said}")
        yield found[0], process.pid, time.perf_counter() - start
    finally:
        process.terminate()
        process.communicate(timeout=60)


@contextmanager
def browsing() -> "Iterator[Browser]":
    """Run Debian's Chromium, headless."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        raise SystemExit(f"no browser on this machine's PATH; wanted one of {', '.join(names)}")
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


if __name__ == "__main__":
    main()
