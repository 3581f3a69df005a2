"""Rows of an Arrow table as Python values that lose nothing on the way."""

from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from datetime import time as clock_time
from typing import TYPE_CHECKING, Any, Final

from plstore.query import holds_numbers

if TYPE_CHECKING:
    import pyarrow as pa

_PER_SECOND: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY: Final = 86_400
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001  a time without a zone
_INFINITE: Final = {"date": 2**31 - 1, "timestamp": 2**63 - 1}
_YEARS_400: Final = 146_097  # days, after which the calendar repeats
_MONTHS: Final = 12


def rows_of(table: "pa.Table") -> list[dict[str, Any]]:
    """Return the rows of a table, by column name.

    Python has no dates of the year 290000, no nanoseconds, no 24:00 and no intervals of months:
    such values are text, as DuckDB writes them. Maps become dicts where their keys allow it.
    """
    columns = [
        _values(column, field)
        for column, field in zip(table.columns, table.schema, strict=True)
    ]
    names = table.column_names
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(column: "pa.ChunkedArray", field: "pa.Field") -> list[Any]:
    if holds_numbers(field):
        return [None if text is None else int(text) for text in column.to_pylist()]
    if not _needs_care(field.type):
        try:
            found: list[Any] = column.to_pylist(maps_as_pydicts="strict")
        except (OverflowError, TypeError, KeyError):  # a far date; a map with lists for keys
            return [_value(scalar) for scalar in column]
        return found
    return [_value(scalar) for scalar in column]


def _needs_care(kind: "pa.DataType") -> bool:
    """Whether Python's own values would lose something, or not be there."""
    import pyarrow as pa

    if pa.types.is_time(kind) or pa.types.is_interval(kind):
        return True
    if pa.types.is_timestamp(kind):
        return bool(kind.unit == "ns")
    return any(_needs_care(kind.field(n).type) for n in range(kind.num_fields))


def _value(scalar: Any) -> Any:  # noqa: ANN401  whatever there is
    import pyarrow as pa

    if not scalar.is_valid:
        return None
    kind = scalar.type
    for is_kind, convert in _CONVERSIONS.items():
        if getattr(pa.types, is_kind)(kind):
            return convert(scalar)
    return scalar.as_py()


def _list(scalar: Any) -> list[Any]:  # noqa: ANN401
    return [_value(item) for item in scalar.values]


def _struct(scalar: Any) -> dict[str, Any]:  # noqa: ANN401
    return {name: _value(item) for name, item in scalar.items()}


def _map(scalar: Any) -> Any:  # noqa: ANN401
    pairs = [(_value(pair["key"]), _value(pair["value"])) for pair in scalar.values]
    if all(isinstance(key, str | int | float | bool) for key, _ in pairs):
        return dict(pairs)
    return [list(pair) for pair in pairs]


def _date(scalar: Any) -> date | str:  # noqa: ANN401
    if abs(scalar.value) >= _INFINITE["date"]:
        return "infinity" if scalar.value > 0 else "-infinity"
    return _day(scalar.value)


def _day(days: int) -> date | str:
    """Return the day that many days after 1970, as text where Python has no such year."""
    cycles, inside = divmod(days, _YEARS_400)
    day = date(1970, 1, 1) + timedelta(days=inside)
    year = day.year + 400 * cycles
    if date.min.year <= year <= date.max.year:
        return day.replace(year=year)
    era = "" if year > 0 else " (BC)"  # the year before 1 is 1 BC
    return f"{year if year > 0 else 1 - year:04d}-{day:%m-%d}{era}"


def _timestamp(scalar: Any) -> datetime | str:  # noqa: ANN401
    if abs(scalar.value) >= _INFINITE["timestamp"]:
        return "infinity" if scalar.value > 0 else "-infinity"
    per_second = _PER_SECOND[scalar.type.unit]
    seconds, fraction = divmod(scalar.value, per_second)
    days, of_day = divmod(seconds, _DAY)
    day = _day(days)
    zone = "" if scalar.type.tz is None else "+00:00"
    nanoseconds = fraction * (10**9 // per_second)
    if isinstance(day, str):
        words = day.split(" ")  # the era is last
        clock = _clock(of_day, nanoseconds) + zone
        return " ".join([words[0], clock, *words[1:]])
    if nanoseconds % 1000:
        return f"{day} {_clock(of_day, nanoseconds)}{zone}"
    found = _EPOCH + timedelta(days=days, seconds=of_day, microseconds=nanoseconds // 1000)
    return found if not zone else found.astimezone(scalar.type.tz)


def _time(scalar: Any) -> clock_time | str:  # noqa: ANN401
    per_second = _PER_SECOND[scalar.type.unit]
    seconds, fraction = divmod(scalar.value, per_second)
    nanoseconds = fraction * (10**9 // per_second)
    if nanoseconds % 1000 or seconds == _DAY:
        return _clock(seconds, nanoseconds)
    return (_EPOCH + timedelta(seconds=seconds, microseconds=nanoseconds // 1000)).time()


def _interval(scalar: Any) -> str:  # noqa: ANN401
    months, days, nanoseconds = scalar.as_py()
    years, months = int(months / _MONTHS), int(months - int(months / _MONTHS) * _MONTHS)
    words = [
        f"{n} {unit}{'' if abs(n) == 1 else 's'}"
        for n, unit in ((years, "year"), (months, "month"), (days, "day"))
        if n
    ]
    if nanoseconds or not words:
        seconds, rest = divmod(abs(nanoseconds), 10**9)
        words.append(("-" if nanoseconds < 0 else "") + _clock(seconds, rest))
    return " ".join(words)


def _clock(seconds: int, nanoseconds: int) -> str:
    minutes, second = divmod(seconds, 60)
    fraction = f".{nanoseconds:09d}".rstrip("0") if nanoseconds else ""
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}{fraction}"


_CONVERSIONS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "is_map": _map,
    "is_list": _list,
    "is_fixed_size_list": _list,
    "is_large_list": _list,
    "is_struct": _struct,
    "is_date32": _date,
    "is_timestamp": _timestamp,
    "is_time": _time,
    "is_interval": _interval,
}
