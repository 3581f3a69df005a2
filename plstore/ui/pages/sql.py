"""SQL: saved queries as forms, an editor, the answer as a table, a chart and a file."""

from typing import Any, Final

from markupsafe import Markup
from nicegui import ui

from plstore.errors import PlstoreError
from plstore.query import SavedQuery
from plstore.report.markup import Cell, Column, count, html, joined, link, note, table, text
from plstore.report.snapshot import Snapshot
from plstore.ui import asking
from plstore.ui.address import Address, image_url, url
from plstore.ui.asking import MOST_ROWS, Answer
from plstore.ui.desk import Desk
from plstore.ui.pages.charts import chart, columns
from plstore.ui.pages.frame import apart, heading, show

_EXAMPLE: Final = """\
select class_name(class_id) as class, count(*) as n, avg(confidence) as confidence
from soft_labels
where split = 'unlabeled'
group by all order by n desc"""
_PARAMETER: Final = "q."
_LONGEST_URL: Final = 4000
_SHORT: Final = 60  # rows that a chart shows well
_DARK: Final = "document.body.classList.contains('body--dark')"


async def draw(desk: Desk, address: Address) -> None:
    """Draw the page."""
    heading(
        "SQL",
        "One SELECT over this snapshot: read-only, in a process of its own, a minute long.",
    )
    page = _Page(desk.snapshot(), address)
    page.draw()
    if address.given:
        ui.timer(0.05, page.run, once=True)


class _Page:
    """The open page: a saved query with its form, or the editor; and the last answer."""

    def __init__(self, snapshot: Snapshot, address: Address) -> None:
        self._snapshot = snapshot
        self._address = address
        self._query = asking.find_query(address.text("query"))
        self._values: dict[str, str] = {
            name.removeprefix(_PARAMETER): value
            for name, value in address.given.items()
            if name.startswith(_PARAMETER)
        }
        self._answer: Answer | None = None

    def draw(self) -> None:
        with ui.element("section").classes("card"):
            self._choose()
            if self._query is not None:
                self._form(self._query)
            else:
                self._editor()
        self._result = ui.element("div").classes("stack")

    def _choose(self) -> None:
        names = {"": "a query of my own", **{q.name: q.name for q in asking.questions()}}

        def go(event: Any) -> None:  # noqa: ANN401  NiceGUI's
            ui.navigate.to(url("/sql", {"query": event.value}))

        now = "" if self._query is None else self._query.name
        found = ui.select(names, label="Saved query", value=now, on_change=go, with_input=True)
        found.props("outlined dense options-dense").style("max-width: 420px")

    def _form(self, query: SavedQuery) -> None:
        show(html('<p style="margin:16px 0 4px">{}</p>', query.summary))
        show(html('<p class="note">Rows: {}</p>', query.grain))
        with ui.element("div").classes("controls").style("margin: 18px 0 14px"):
            for parameter in query.parameters:
                field = ui.input(
                    label=parameter.short,
                    value=self._values.get(parameter.name, ""),
                    on_change=lambda event, name=parameter.name: self._set(name, event.value),
                )
                field.props("outlined dense").tooltip(parameter.explained)
                field.on("keydown.enter", self.run)
            self._button()
        with ui.expansion("Its SQL").classes("more"):
            show(html('<pre class="cli">{}</pre>', text(query.sql, 100_000)))

    def _set(self, name: str, value: str) -> None:
        self._values[name] = value or ""

    def _editor(self) -> None:
        sql = self._address.text("sql", _EXAMPLE)
        self._code = ui.codemirror(sql, language="SQL", line_wrapping=True)
        self._code.style("margin: 18px 0; height: 190px; width: 100%")
        ui.timer(0.05, self._paint, once=True)
        with ui.element("div").classes("row-line"):
            self._button()
            show(note("Ctrl+Enter runs it. Tables are those of plstore info."))
        self._code.on("keydown.ctrl.enter", self.run)

    async def _paint(self) -> None:
        try:
            is_dark = await ui.run_javascript(_DARK, timeout=5)
        except TimeoutError:
            return
        self._code.set_theme("githubDark" if is_dark else "githubLight")

    def _button(self) -> None:
        ui.button("Run", on_click=self.run).props("unelevated no-caps")

    async def run(self) -> None:
        """Run what stands there, and draw the answer; its URL is the page's then."""
        self._result.clear()
        with self._result:
            show(note("Running …"))
        try:
            self._answer = await self._ask()
        except PlstoreError as error:
            self._result.clear()
            with self._result:
                show(note(str(error), "wrong")).classes("card")
            return
        self._result.clear()
        with self._result:
            self._draw_answer(self._answer)

    async def _ask(self) -> Answer:
        if self._query is None:
            sql = self._code.value or ""
            if len(sql) < _LONGEST_URL:
                ui.navigate.history.replace(url("/sql", {"sql": sql}))
            return await apart(asking.ask, self._snapshot, sql)
        query = self._query
        given = {f"{_PARAMETER}{n}": v for n, v in self._values.items() if v}
        ui.navigate.history.replace(url("/sql", {"query": query.name, **given}))
        values = asking.read_values(query, self._values)
        return await apart(asking.ask_saved, self._snapshot, query.name, values)

    def _draw_answer(self, answer: Answer) -> None:
        total = answer.rows.num_rows
        cut = f", the first {MOST_ROWS} of them here" if total > MOST_ROWS else ""
        with ui.element("div").classes("row-line"):
            rows = "row" if total == 1 else "rows"
            show(html('<p class="note"><b>{}</b> {}{}</p>', count(total), rows, cut))
            for name in ("csv", "parquet"):
                button = ui.button(name.upper() if name == "csv" else "Parquet")
                button.props("outline no-caps dense padding='4px 14px'")
                button.on_click(lambda name=name: self._download(name))
            if self._query is not None and "sample_id" in answer.rows.column_names:
                given = {f"{_PARAMETER}{n}": v for n, v in self._values.items() if v}
                to = url("/grid", {"labels": "none", "query": self._query.name, **given})
                show(link(to, "See these images"))
        if answer.notes:
            show(joined(note(line) for line in answer.notes))
        if not total:
            show(note("No rows.")).classes("card")
            return
        self._draw_chart(answer)
        show(html('<section class="card">{}</section>', rows_table(answer)))

    def _draw_chart(self, answer: Answer) -> None:
        found = asking.chart_of(answer.rows)
        if found is None or answer.rows.num_rows < 2:  # noqa: PLR2004  one is no chart
            return
        is_short = answer.rows.num_rows <= _SHORT
        with ui.element("section").classes("card"):
            with ui.expansion("Chart", value=is_short).classes("more"):
                with ui.element("div").classes("controls"):
                    names = answer.rows.column_names
                    along = ui.select(names, label="Along", value=found.along)
                    high = ui.select(names, label="Height", value=next(iter(found.series)))
                place = ui.element("div").style("margin-top: 14px; width: 100%")

            def draw_it() -> None:
                chosen = asking.chart_of(answer.rows, along.value or "", high.value or "")
                place.clear()
                if chosen is not None:
                    with place:
                        chart(columns(chosen.x, chosen.series, is_line=chosen.is_line))

            for field in (along, high):
                field.props("outlined dense options-dense").on_value_change(draw_it)
            draw_it()

    async def _download(self, kind: str) -> None:
        if self._answer is None:
            return
        data = await apart(self._answer.csv if kind == "csv" else self._answer.parquet)
        ui.download.content(data, f"answer.{kind}")


def rows_table(answer: Answer) -> Markup:
    """Return the first rows of an answer as a table; numbers of images lead to them."""
    shown = answer.shown
    names = answer.rows.column_names
    head = [Column(name=n, kind=_kind(shown, n)) for n in names]
    return table(
        head, [[_cell(name, row[name]) for name in names] for row in shown], css="tall"
    )


def _kind(rows: list[dict[str, Any]], name: str) -> Any:  # noqa: ANN401  a Literal
    values = [row[name] for row in rows if row[name] is not None]
    numbers = values and all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in values
    )
    return "number" if numbers and not name.endswith("_id") else "text"


def _cell(name: str, value: Any) -> Cell:  # noqa: ANN401  whatever SQL answers
    if name == "sample_id" and isinstance(value, int):
        return link(image_url(value), str(value))
    if value is None or isinstance(value, bool | float | str):
        return value
    if isinstance(value, int):
        return str(value) if name.endswith("_id") else value
    if isinstance(value, bytes):
        return f"{value[:12].hex()}… ({len(value):,} bytes)"
    return str(value)
