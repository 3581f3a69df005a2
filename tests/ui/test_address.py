import pytest

from plstore.ui.address import Address, image_url, url


def test_an_address_says_the_same_when_it_is_read_again() -> None:
    first = Address("/grid", {"class": "a & b=c", "page": "3", "low": "0.5"})

    assert first.url == "/grid?class=a+%26+b%3Dc&page=3&low=0.5"
    assert first.whole("page") == 3
    assert first.number("low") == 0.5
    assert first.with_(page=None, high=0.75).url == "/grid?class=a+%26+b%3Dc&low=0.5&high=0.75"


@pytest.mark.parametrize("typed", ["-1", "1e3", "x", "", "9" * 30, "\u0661", "0x1"])
def test_a_number_that_is_none_counts_as_not_given(typed: str) -> None:
    assert Address("/grid", {"page": typed}).whole("page", 7) == 7


@pytest.mark.parametrize("typed", ["nan", "inf", "2", "-0.1", "x", ""])
def test_a_share_that_is_none_counts_as_not_given(typed: str) -> None:
    assert Address("/grid", {"low": typed}).number("low") is None


def test_what_is_too_long_for_a_url_counts_as_not_given() -> None:
    assert Address("/sql", {"sql": "x" * 100_000}).text("sql") == ""


def test_addresses_leave_out_what_is_not_given() -> None:
    assert url("/view", {"view": "a@1", "against": None, "x": ""}) == "/view?view=a@1"
    assert image_url(17, "labels=t0@1&page=2") == "/image?id=17&in=labels%3Dt0@1%26page%3D2"
