"""A page whose controls change its URL and what stands below them, with no page loaded anew."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from nicegui import ui

from plstore.report.snapshot import FAILURES
from plstore.ui.address import Address

_TYPING_MS = 350
_MOST_OPTIONS = 1500


class Live:
    """The state of an open page: its address, and what draws it again.

    Of several changes in a row the last one is drawn; earlier ones are let go.
    """

    def __init__(self, address: Address, redraw: Callable[[Address], Awaitable[None]]) -> None:
        """Take the address that the page was opened with."""
        self.address = address
        self._redraw = redraw
        self._is_drawing = False
        self._is_asked = False

    async def change(self, **changes: object) -> None:
        """Change parameters of the address, and draw."""
        changed = self.address.with_(**changes)
        if changed.given == self.address.given:
            return
        self.address = changed
        ui.navigate.history.replace(changed.url)
        await self.draw()

    async def draw(self) -> None:
        """Draw; where that is being done, once more after it."""
        self._is_asked = True
        if self._is_drawing:
            return
        self._is_drawing = True
        try:
            while self._is_asked:
                self._is_asked = False
                await self._redraw(self.address)
        except FAILURES as error:
            ui.notify(str(error), type="negative", multi_line=True, position="top")
        finally:
            self._is_drawing = False

    def select(
        self,
        name: str,
        label: str,
        options: Mapping[str, str],
        *,
        value: str | None = None,
        css: str = "",
    ) -> None:
        """Draw a list to choose a parameter from; "" is the one of no choice."""
        now = self.address.text(name) if value is None else value
        options = dict(options)
        options.setdefault(now, now)

        async def changed(event: Any) -> None:  # noqa: ANN401  NiceGUI's
            await self.change(**{name: event.value or None, "page": None})

        found = ui.select(
            options,
            label=label,
            value=now,
            on_change=changed,
            with_input=len(options) > 12,  # noqa: PLR2004  more are looked for by typing
        )
        found.props("outlined dense options-dense").classes(css)

    def classes(self, name: str, label: str, names: tuple[str, ...]) -> None:
        """Draw the choice of a class: a list, or of very many a field to type into."""
        if len(names) <= _MOST_OPTIONS:
            self.select(name, label, {"": "any", **{n: n for n in names}}, css="wide-field")
        else:
            self.typed(name, f"{label}: name or number", "wide-field")

    def typed(self, name: str, label: str, css: str = "") -> None:
        """Draw a field to type a parameter into."""

        async def changed(event: Any) -> None:  # noqa: ANN401  NiceGUI's
            await self.change(**{name: event.value, "page": None})

        found = ui.input(label=label, value=self.address.text(name), on_change=changed)
        found.props(f"outlined dense debounce={_TYPING_MS}").classes(css)

    def bounds(self, low: str, high: str, label: str) -> None:
        """Draw two bounds of a share."""
        highest = self.address.number(high)
        now: dict[str, float] = {
            "min": self.address.number(low) or 0.0,
            "max": 1.0 if highest is None else highest,
        }
        with ui.element("div").classes("slider-box"):
            says = ui.html(sanitize=False)

            def say(value: Mapping[str, float]) -> None:
                says.content = (
                    f"<small>{label} <b>{value['min']:.2f} to {value['max']:.2f}</b></small>"
                )

            async def changed(event: Any) -> None:  # noqa: ANN401  NiceGUI's
                value = event.value
                say(value)
                await self.change(
                    **{
                        low: value["min"] or None,
                        high: None if value["max"] >= 1 else value["max"],
                        "page": None,
                    }
                )

            say(now)
            ui.range(min=0, max=1, step=0.01, value=now, on_change=changed).props("dense")

    def limit(
        self, name: str, label: str, *, high: float = 1.0, rest: float, step: float
    ) -> None:
        """Draw one bound; at `rest` it is none."""
        now = self.address.number(name, high=high)
        with ui.element("div").classes("slider-box"):
            says = ui.html(sanitize=False)

            def say(value: float) -> None:
                shown = "any" if value == rest else f"{value:g}"
                says.content = f"<small>{label} <b>{shown}</b></small>"

            async def changed(event: Any) -> None:  # noqa: ANN401  NiceGUI's
                say(event.value)
                value = None if event.value == rest else round(event.value, 6)
                await self.change(**{name: value, "page": None})

            say(rest if now is None else now)
            slider = ui.slider(
                min=0,
                max=high,
                step=step,
                value=rest if now is None else now,
                on_change=changed,
            )
            slider.props("dense")
