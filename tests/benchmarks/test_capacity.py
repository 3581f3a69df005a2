"""The capacity plan: its page holds what the program prints, by the inputs."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.capacity import PARTS, Inputs, asked, hours, markdown, stored, total, written

PAGE = Path(__file__).parents[2] / "docs/scale.md"


def test_the_page_holds_what_the_program_prints() -> None:
    text = PAGE.read_text()

    assert written(text, Inputs()) == text
    for part in PARTS.values():
        assert markdown(part(Inputs())) in text


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(
        SystemExit, match="the page lacks <!-- stored --> or <!-- end of stored"
    ):
        written("# A page", Inputs())


def test_bytes_and_files_are_those_of_the_images() -> None:
    small, large = (stored(Inputs(image_bytes=size))[0] for size in (1000, 110_000))

    assert small["files"] == -(-301_331_167 // 8192)
    assert large["files"] == -(-301_331_167 // (256 * 2**20 // 110_000))
    assert large["GB"] == pytest.approx(110 * small["GB"], rel=1e-3)


def test_dollars_follow_the_prices() -> None:
    given = Inputs()
    dear = replace(
        given,
        dollars_card_hour=2 * given.dollars_card_hour,
        dollars_gb_month=3 * given.dollars_gb_month,
        dollars_million_reads=5 * given.dollars_million_reads,
        dollars_million_writes=5 * given.dollars_million_writes,
    )
    before = {row["of"]: row["$"] for row in total(given)}
    after = {row["of"]: row["$"] for row in total(dear)}

    assert after["cards"] == pytest.approx(2 * before["cards"], rel=1e-5)
    assert after["bytes kept"] == pytest.approx(3 * before["bytes kept"], rel=1e-3)
    assert after["requests"] == pytest.approx(5 * before["requests"], rel=0.01)


def test_a_step_is_held_up_by_what_is_slower() -> None:
    slow, fast = ({r["step"]: r for r in hours(Inputs(gb_a_second=v))} for v in (1, 100))

    assert {row["held up by"] for row in fast.values()} == {"cards"}
    assert slow["train-1"]["held up by"] == "network"
    assert fast["train-1"]["hours"] == pytest.approx(57_930 / 512, abs=0.01)


def test_every_request_has_a_price() -> None:
    assert [row["$"] > 0 for row in asked(Inputs())] == [True] * 7
