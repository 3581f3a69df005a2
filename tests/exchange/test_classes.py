import math
import unicodedata

import pytest

from plstore.exchange.classes import (
    Value,
    class_column,
    class_order,
    class_text,
    marks_unknown,
)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([0.0, 1.0, math.nan, 10.0], ["0", "1", None, "10"]),
        (["0.0", "1.0", "", "10.0"], ["0", "1", None, "10"]),
        (["3.0", "cat"], ["3.0", "cat"]),
        (["007", "3.0"], ["007", "3.0"]),
        (["1.5", "2.0"], ["1.5", "2"]),
        (["-1.0", "+2", "-0.0"], ["-1", "2", "0"]),
        ([1, True, None, False], ["1", "true", None, "false"]),
        (["true", "False", " cat "], ["true", "False", "cat"]),
        (["NA", "NaN", "nan", "None", "null", "<NA>", "n/a", " "], [None] * 8),
        (["none", "nano"], ["none", "nano"]),
        ([1e300, 2.0], [str(int(1e300)), "2"]),
    ],
)
def test_a_column_of_labels_is_read_as_tables_write_it(
    values: list[Value], names: list[str | None]
) -> None:
    assert class_column(values) == names


def test_both_spellings_of_an_accent_are_one_class() -> None:
    spellings = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]

    assert spellings[0] != spellings[1]
    assert class_text(spellings[1]) == class_text(spellings[0]) == spellings[0]


def test_integers_come_by_number_then_names_by_text() -> None:
    names = ["10", "b", "2", "-3", "a", "1", "01", "9" * 30]

    assert class_order(names) == ["-3", "01", "1", "2", "10", "9" * 30, "a", "b"]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["0", "1", "-1"], True),
        (["-1", None], True),
        (["-2", "-1"], False),
        (["cat", "-1"], False),
    ],
)
def test_minus_one_is_unknown_only_beside_class_numbers(
    names: list[str | None], found: bool
) -> None:
    assert marks_unknown(names) is found
