"""The state of a page as its URL holds it: read with care, since anyone may have typed it."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

_MOST: Final = 2**53  # whole numbers above it are not the browser's
_LONGEST: Final = 10_000


class Address:
    """The parameters of a URL. What is not as it must be counts as not given."""

    def __init__(self, path: str, parameters: Mapping[str, str] | None = None) -> None:
        """Take the path of a page and its parameters."""
        self.path = path
        given = parameters or {}
        self._given = {n: v for n, v in given.items() if v and len(v) <= _LONGEST}

    def text(self, name: str, default: str = "") -> str:
        """Return a parameter as it is."""
        return self._given.get(name, default)

    def whole(self, name: str, default: int | None = None) -> int | None:
        """Return a whole number from 0."""
        value = self._given.get(name, "")
        if value.isascii() and value.isdigit() and len(value) < len(str(_MOST)):
            return int(value)
        return default

    def number(self, name: str, low: float = 0.0, high: float = 1.0) -> float | None:
        """Return a number within bounds."""
        try:
            value = float(self._given.get(name, ""))
        except ValueError:
            return None
        return value if low <= value <= high else None

    def flag(self, name: str) -> bool:
        """Return whether a parameter is 1."""
        return self._given.get(name) == "1"

    def with_(self, **changes: object) -> "Address":
        """Return the same with some parameters changed; None takes one out."""
        given: dict[str, object] = {**self._given, **changes}
        left = {n: str(v) for n, v in given.items() if v is not None and str(v)}
        return Address(self.path, left)

    @property
    def given(self) -> Mapping[str, str]:
        """The parameters that there are."""
        return self._given

    @property
    def url(self) -> str:
        """The address, to be linked to."""
        return url(self.path, self._given)


def url(path: str, parameters: Mapping[str, object] | None = None) -> str:
    """Return the address of a page; parameters that are None or empty are left out."""
    given = {n: v for n, v in (parameters or {}).items() if v is not None and str(v)}
    return f"{path}?{urlencode(given, safe='@:,')}" if given else path


def image_url(sample_id: int, within: str = "") -> str:
    """Return the address of an image, as one of the list that a query string gives."""
    return url("/image", {"id": sample_id, "in": within})
