"""Names of classes, as tables have them: one spelling, one order, in every import."""

import math
import re
import unicodedata
from collections.abc import Iterable
from typing import Final

Value = str | int | float | bool | None
"""What a cell of a column of labels holds."""

UNKNOWN: Final = "-1"
"""What stands for "class unknown" in a column of class numbers; see `marks_unknown`."""

_MISSING = frozenset(
    ("", "#N/A", "#NA", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null")
)  # as pandas and databases write it; "none" may be a class
_NUMBER = re.compile(r"([+-]?(?:0|[1-9][0-9]*))(?:\.([0-9]+))?")  # 007 is a name
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


def class_text(value: Value) -> str | None:
    """Return one value as the name of a class, None where it is missing.

    Text keeps its spelling but for blanks around it, in Unicode's composed form (NFC). Whole
    floats are integers, truth values are "true" and "false". Text that looks like a number is
    left alone: only its whole column tells what it is, see `class_column`.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = unicodedata.normalize("NFC", str(value).strip())
    return None if text in _MISSING else text


def class_column(values: Iterable[Value]) -> list[str | None]:
    """Return a column of labels as names of classes, None where one is missing.

    Where all values are numbers, whole ones are integers, as in a column of integers with gaps
    that pandas wrote: "3.0" is "3". A number with leading zeros is a name, and makes its
    column one of names. It is enough to pass each different value once.
    """
    names = [class_text(value) for value in values]
    numbers = [None if name is None else _NUMBER.fullmatch(name) for name in names]
    if any(n is None for n, name in zip(numbers, names, strict=True) if name is not None):
        return names
    return [
        name if number is None or (number[2] or "").strip("0") else _whole(number[1])
        for name, number in zip(names, numbers, strict=True)
    ]


def _whole(digits: str) -> str:
    return "0" if digits == "-0" else digits.removeprefix("+")


def marks_unknown(names: Iterable[str | None]) -> bool:
    """Return whether "-1" among these names says that a class is unknown.

    It does where all others are class numbers: whole and not negative.
    """
    others = [name for name in names if name is not None and name != UNKNOWN]
    return all(_INTEGER.fullmatch(name) and not name.startswith("-") for name in others)


def class_order(names: Iterable[str]) -> list[str]:
    """Return names in the order of class ids: integers by number, then others by text."""
    return sorted(names, key=_rank)


def _rank(name: str) -> tuple[bool, int, str]:
    is_integer = _INTEGER.fullmatch(name) is not None
    return (not is_integer, int(name) if is_integer else 0, name)
