"""Settings of loaders, each checked against its range where it is given."""

import re
from collections.abc import Iterable
from math import inf, isfinite
from numbers import Integral, Real

from plstore.errors import InputError


def check_number(
    field: str,
    value: object,
    *,
    low: float,
    high: float = inf,
    above: bool = False,
    below: bool = False,
) -> None:
    """Check that a setting is a number in its range.

    Args:
        field: Its name, as the user typed it.
        value: What was given; Python's numbers or numpy's.
        low: Smallest.
        high: Largest.
        above: Whether `low` itself is too small.
        below: Whether `high` itself is too large.

    Raises:
        InputError: If it is no number, not finite, or out of range.
    """
    if _is(Real, value):
        number = float(value)  # type: ignore[arg-type]  # it is one
        high_enough = number > low if above else number >= low
        low_enough = number < high if below else number <= high
        if isfinite(number) and high_enough and low_enough:
            return
    raise InputError(
        f"{field} is {value!r}; wanted a number {_range(low, high, above=above, below=below)}"
    )


def check_whole(field: str, value: object, *, low: int, high: float = inf) -> None:
    """Check that a setting is a whole number in its range.

    Raises:
        InputError: If it is not.
    """
    if not (_is(Integral, value) and low <= int(value) <= high):  # type: ignore[call-overload]  # it is one
        wanted = _range(low, high, above=False, below=False)
        raise InputError(f"{field} is {value!r}; wanted a whole number {wanted}")


def check_choice(field: str, value: object, choices: Iterable[object]) -> None:
    """Check that a setting is one of some words or whole numbers.

    Raises:
        InputError: If it is not.
    """
    known = list(choices)
    if not (isinstance(value, str) or _is(Integral, value)) or value not in known:
        raise InputError(f"{field} is {value!r}; wanted {', '.join(map(repr, known))}")


def check_kind(field: str, value: object, *kinds: type) -> None:
    """Check that a setting is an object of one of some classes.

    Raises:
        InputError: If it is not.
    """
    if not isinstance(value, kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise InputError(f"{field} is {value!r}; wanted {names}")


def check_device(device: str) -> None:
    """Check that a device is "cpu", or a CUDA device that is there.

    Raises:
        InputError: If it is not.
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", str(device)):
        raise InputError(f"device is {device!r}; wanted 'cpu', 'cuda' or such as 'cuda:1'")
    if device == "cpu":
        return
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(device.partition(":")[2] or 0) >= there:
        raise InputError(
            f"device is {device!r}, and {there} CUDA devices are there; wanted "
            + (f"'cuda:{there - 1}' at most" if there else "'cpu'")
        )


def _is(kind: type, value: object) -> bool:
    """Whether a value is a number of a kind; for Python, True is one too."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _range(low: float, high: float, *, above: bool, below: bool) -> str:
    if high == inf:
        return f"above {low:g}" if above else f"of {low:g} or more"
    last = f"below {high:,g}" if below else f"{high:,g}"
    return f"above {low:g}, up to {last}" if above else f"from {low:g} to {last}"
