from datetime import UTC, datetime

import pytest
from markupsafe import Markup

from plstore.report.markup import (
    Column,
    bar,
    cell_text,
    facts,
    figure,
    html,
    link,
    note,
    table,
    tag,
    text,
)

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "'><svg/onload=alert(1)>",
    "a & b < c",
    "{{ 7 * 7 }}",
    "{0} {name}",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_text_of_the_store_is_shown_as_it_is_and_is_never_markup(name: str) -> None:
    pieces = [
        text(name),
        html("<b>{}</b>", name),
        tag(name),
        note(name),
        figure(name, name, name),
        facts({name: name}),
        table([Column(name=name)], [[name]]),
        link("/grid", name),
        html('<a title="{}"></a>', name),
        html("<b>{x}</b>", x=name),
    ]

    for piece in pieces:
        assert isinstance(piece, Markup)
        assert "<img" not in piece
        assert "<script" not in piece
        assert "<svg" not in piece
        assert '" on' not in piece
    assert text(name).unescape() == name


def test_an_address_cannot_leave_its_attribute() -> None:
    assert link('/grid?a="><script>', "x") == (
        '<a class="link" href="/grid?a=&#34;&gt;&lt;script&gt;">x</a>'
    )


def test_what_is_not_seen_becomes_a_mark_and_what_is_long_is_cut() -> None:
    assert text("a\u202egnp.exe\x00") == "a\ufffdgnp.exe\ufffd"
    assert len(text("x" * 10_000)) == 300


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (12345, "12,345"),
        (0.123456789, "0.123457"),
        (True, "True"),
        ("12345", "12345"),
        (datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "2026-01-02 03:04"),
    ],
)
def test_cells_show_values_as_people_read_them(value: object, shown: str) -> None:
    assert cell_text(value) == shown  # type: ignore[arg-type]  # one of them each


@pytest.mark.parametrize(("share", "width"), [(0.5, "50.0"), (-1, "0.0"), (7, "100.0")])
def test_a_bar_stays_within_its_frame(share: float, width: str) -> None:
    assert f"width:{width}%" in bar(share)
