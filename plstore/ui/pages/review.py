"""Review: a queue, one image large, a key for each decision, and a way back."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from markupsafe import Markup
from nicegui import ui

from plstore.report.markup import bar, html, joined, link, note, tag
from plstore.report.shown import LARGE, pictures
from plstore.report.snapshot import FAILURES, Snapshot
from plstore.report.tiles import drawn
from plstore.ui import one_image, review
from plstore.ui.address import Address, image_url
from plstore.ui.desk import Desk
from plstore.ui.pages.frame import apart, heading, show
from plstore.ui.pages.image import said_of
from plstore.ui.review import SIGNS, Decision, Waiting

_FILM: Final = 28
_SAID: Final = 2

# Keys go to the server while no field is typed into; what a page does with them it says itself.
_KEYS: Final = """
window.reviewKey = (key) => {
  const known = ["a", "x", "c", "u", "j", "k", " ", "ArrowRight", "ArrowLeft", "Escape"];
  if (!known.includes(key) || document.querySelector(".q-dialog")) return false;
  emitEvent("review", {key});
  return true;
};
document.addEventListener("click", (event) => {
  const film = event.target.closest("button.film");
  if (film) emitEvent("review", {to: Number(film.dataset.place), pick: event.shiftKey});
});
"""


async def draw(desk: Desk, _: Address) -> None:
    """Draw the page."""
    snapshot = desk.snapshot()
    lead = "The images that a look helps most, by disagreement, doubt, likely errors and cuts."
    heading("Review", lead)
    ui.add_body_html(f"<script>{_KEYS}</script>")  # now: a page that was sent runs no more
    waiting = await apart(review.queue, snapshot)
    if not waiting:
        show(note("Nothing is waiting: there are no labels yet, or all was decided."))
        return
    if not desk.is_review:
        show(note("Only to look: plstore ui --review lets you decide, with a key for each."))
    done = await apart(review.decided_now, snapshot.store, waiting)
    page = _Page(desk, snapshot, waiting, done)
    page.draw()
    await page.show_now()


class _Page:
    """The open queue: where it stands, what is selected, what was decided."""

    def __init__(
        self, desk: Desk, snapshot: Snapshot, waiting: Sequence[Waiting], done: set[int]
    ) -> None:
        self._desk = desk
        self._snapshot = snapshot
        self._waiting = waiting
        self._at = 0
        self._picked: set[int] = set()
        self._decided: list[Decision] = desk.decisions
        self._done = done
        self._is_writing = False
        self._next()

    def draw(self) -> None:
        with ui.element("div").classes("review-desk"):
            with ui.element("div").classes("stack"):
                self._stage = show(Markup(""))
                if self._desk.is_review:
                    self._buttons()
                self._film = show(Markup(""))
            self._side = show(Markup(""))
        ui.on("review", self._event)
        self._dialog = self._class_dialog() if self._desk.is_review else None

    def _buttons(self) -> None:
        def button(label: str, key: str, action: Callable[[], Any], look: str) -> None:
            with ui.button(on_click=action).props(f"no-caps {look}"):
                ui.html(f"{label}<kbd>{key}</kbd>", sanitize=False)

        with ui.element("div").classes("key-row"):
            button("Accept", "a", self._accept, "unelevated")
            button("Correct", "c", self._ask_class, "outline")
            button("Exclude", "x", self._exclude, "outline color=negative")
            button("Undo", "u", self._undo, "flat")

    def _class_dialog(self) -> ui.dialog:
        names = self._snapshot.class_names
        with ui.dialog() as dialog, ui.card().style("min-width: 380px"):
            show(html("<h2>What is it?</h2>"))
            self._choice = ui.input(
                label="Class",
                autocomplete=list(names) if len(names) <= 1500 else None,  # noqa: PLR2004
            )
            self._choice.props("outlined dense autofocus").style("width: 100%")
            self._choice.on("keydown.enter", self._correct)
            self._offers = ui.element("div").classes("key-row")
            ui.button("Correct", on_click=self._correct).props("unelevated no-caps")
        return dialog

    async def _event(self, event: Any) -> None:  # noqa: ANN401  NiceGUI's
        given = event.args if isinstance(event.args, dict) else {}
        if isinstance(given.get("to"), int):
            await self._go(given["to"], pick=bool(given.get("pick")))
            return
        moves = {"j": 1, "ArrowRight": 1, "k": -1, "ArrowLeft": -1}
        key = given.get("key")
        if key in moves:
            await self._go(self._at + moves[key])
        elif key == " ":
            self._picked ^= {self._waiting[self._at].sample_id}
            await self._go(self._at + 1)
        elif key == "Escape":
            self._picked.clear()
            await self.show_now()
        elif self._desk.is_review:
            await self._decide_by(str(key))

    async def _decide_by(self, key: str) -> None:
        if key == "a":
            await self._accept()
        elif key == "x":
            await self._exclude()
        elif key == "u":
            await self._undo()
        elif key == "c":
            self._ask_class()

    async def _go(self, place: int, *, pick: bool = False) -> None:
        self._at = min(max(place, 0), len(self._waiting) - 1)
        if pick:
            self._picked ^= {self._waiting[self._at].sample_id}
        await self.show_now()

    def _chosen(self) -> list[Waiting]:
        if self._picked:
            return [one for one in self._waiting if one.sample_id in self._picked]
        return [self._waiting[self._at]]

    async def _accept(self) -> None:
        await self._decide(review.accept, self._chosen())

    async def _exclude(self) -> None:
        await self._decide(review.leave_out, self._chosen())

    def _ask_class(self) -> None:
        if self._dialog is None:
            return
        now = self._waiting[self._at]
        offers = dict.fromkeys([now.other_name, now.label_name, now.class_name])
        self._offers.clear()
        with self._offers:
            for name in filter(None, offers):
                ui.button(name, on_click=lambda name=name: self._correct_to(name)).props(
                    "outline no-caps dense padding='4px 12px'"
                )
        self._choice.value = ""
        self._dialog.open()

    async def _correct(self) -> None:
        await self._correct_to(str(self._choice.value or ""))

    async def _correct_to(self, typed: str) -> None:
        name = review.class_named(self._snapshot.class_names, typed.strip())
        if name is None:
            ui.notify(f"There is no class {typed!r}.", type="warning")
            return
        if self._dialog is not None:
            self._dialog.close()
        await self._decide(review.correct_to, self._chosen(), name)

    async def _decide(
        self, how: Callable[..., Decision], chosen: Sequence[Waiting], *more: str
    ) -> None:
        if self._is_writing:
            return
        chosen = [one for one in chosen if one.sample_id not in self._done]
        if not chosen:
            ui.notify("That was decided before; u takes the last decision back.")
            return
        self._is_writing = True
        try:
            store = self._desk.for_review()
            made = await apart(how, store, chosen, *more, who=self._desk.who)
        except FAILURES as error:
            ui.notify(str(error), type="negative", multi_line=True, position="top")
            return
        finally:
            self._is_writing = False
        self._decided.append(made)
        self._done |= set(made.sample_ids)
        self._picked.clear()
        self._next()
        await self.show_now()

    def _next(self) -> None:
        """Go to the next image that is not decided, from here on, then from the beginning."""
        size = len(self._waiting)
        places = [*range(self._at, size), *range(self._at)]
        left = (n for n in places if self._waiting[n].sample_id not in self._done)
        self._at = next(left, self._at)

    async def _undo(self) -> None:
        if not self._decided or self._is_writing:
            return
        last = self._decided[-1]
        self._is_writing = True
        try:
            store = self._desk.for_review()
            await apart(review.undo, store, last, who=self._desk.who)
        except FAILURES as error:
            ui.notify(str(error), type="negative", multi_line=True, position="top")
            return
        finally:
            self._is_writing = False
        self._decided.pop()
        self._done -= set(last.sample_ids)
        ids = [one.sample_id for one in self._waiting]
        if last.sample_ids[0] in ids:  # of another queue, before a refresh, it is not
            self._at = ids.index(last.sample_ids[0])
        await self.show_now()

    async def show_now(self) -> None:
        """Draw the image that the queue is at, what is said of it, and those around it."""
        now = self._waiting[self._at]
        first = max(min(self._at - 6, len(self._waiting) - _FILM), 0)
        around = self._waiting[first : first + _FILM]
        shots = await apart(pictures(self._snapshot).of, [one.sample_id for one in around])
        large = await apart(pictures(self._snapshot).of, [now.sample_id], LARGE)
        try:
            facts = await apart(one_image.image_facts, self._snapshot, now.sample_id)
        except FAILURES as error:
            self._side.content = str(note(str(error), "wrong"))
            return
        self._stage.content = str(
            html('<div class="stage shot">{}</div>', drawn(large[now.sample_id]))
        )
        films = (
            self._one_film(first + n, one, drawn(shots[one.sample_id]))
            for n, one in enumerate(around)
        )
        self._film.content = str(html('<div class="filmstrip">{}</div>', joined(films)))
        said = joined(map(said_of, facts.said[:_SAID]))
        self._side.content = str(
            html(
                '<div class="stack">{}<section class="card">{}</section></div>',
                self._why(now),
                said,
            )
        )

    def _one_film(self, place: int, one: Waiting, shot: Markup) -> Markup:
        css = [
            *(["now"] if place == self._at else []),
            *(["picked"] if one.sample_id in self._picked else []),
            *(["done"] if one.sample_id in self._done else []),
        ]
        return html(
            '<button type="button" class="film {}" data-place="{}" title="{}">'
            '<span class="shot">{}</span></button>',
            " ".join(css),
            place,
            one.key,
            shot,
        )

    def _why(self, now: Waiting) -> Markup:
        lines = [
            html(
                "<b>{}</b>{}<em>{}</em>",
                SIGNS[name],
                bar(value, "" if SIGNS[name] == now.why else "second"),
                f"{value:.2f}",
            )
            for name, value in now.signs.items()
        ]
        names = [tag(now.class_name, "on")]
        if now.label_name is not None:
            names.append(tag(f"filed as {now.label_name}"))
        if now.other_name not in {None, now.class_name}:
            names.append(tag(f"others: {now.other_name}"))
        return html(
            '<section class="card"><h2>{} of {}, score {}</h2><p style="margin:0 0 14px">{}</p>'
            '<div class="bars">{}</div><p class="note" style="margin-top:16px">{} {}</p>{}'
            "</section>",
            f"{self._at + 1:,}",
            f"{len(self._waiting):,}",
            f"{now.score:.2f}",
            joined(names, " "),
            joined(lines),
            link(image_url(now.sample_id), now.key),
            now.split,
            self._state(),
        )

    def _state(self) -> Markup:
        said = [f"{len(self._picked)} selected"] if self._picked else []
        if self._done:
            said.append(f"{len(self._done)} decided by {self._desk.who}")
        if self._decided:
            said.append(f"last: {self._decided[-1].said}")
        return note(" · ".join(said)) if said else Markup("")
