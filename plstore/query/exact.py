"""Results in Arrow without a changed value: what Arrow has no type for travels as text."""

from typing import Any, Final

import duckdb
import pyarrow as pa

_NUMBER: Final = b"plstore.number"
_TEXT: Final = {
    "uhugeint": "varchar",  # Arrow gets it as a signed number: the highest one is -1
    "bignum": "varchar",  # DuckDB's own bytes
    "bit": "varchar",  # the same
    "time with time zone": "varchar",  # loses its zone
    "variant": "json",  # Parquet's bytes
}
_NUMBERS: Final = {"uhugeint", "bignum"}


def exact(relation: duckdb.DuckDBPyRelation) -> tuple[duckdb.DuckDBPyRelation, frozenset[int]]:
    """Return a relation that Arrow carries exactly, and which columns are numbers in text."""
    kinds = relation.types
    casts = [_cast(kind) for kind in kinds]
    if not any(casts):
        return relation, frozenset()
    columns = [
        (f"cast(#{place} as {cast})" if cast else f"#{place}") + f" as {_quoted(name)}"
        for place, (cast, name) in enumerate(zip(casts, relation.columns, strict=True), start=1)
    ]
    numbers = frozenset(place for place, kind in enumerate(kinds) if kind.id in _NUMBERS)
    return relation.project(", ".join(columns)), numbers


def mark_numbers(table: pa.Table, places: frozenset[int]) -> pa.Table:
    """Say in the schema which columns of text hold whole numbers."""
    fields = [
        field.with_metadata({_NUMBER: b"whole"}) if place in places else field
        for place, field in enumerate(table.schema)
    ]
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields)) if places else table


def holds_numbers(field: pa.Field) -> bool:
    """Whether a column of text holds whole numbers that no type of Arrow can."""
    return _NUMBER in (field.metadata or {})


def _cast(kind: Any) -> str | None:  # noqa: ANN401  DuckDB's type of a type
    """Return the type to cast to, or None where Arrow carries the values as they are."""
    if kind.id in _TEXT:
        return _TEXT[kind.id]
    if kind.id not in {"list", "array", "struct", "map", "union"}:
        return None
    parts = [(name, part) for name, part in kind.children if not isinstance(part, int)]
    casts = [_cast(part) for _, part in parts]
    if not any(casts):
        return None
    inner = [cast or str(part) for cast, (_, part) in zip(casts, parts, strict=True)]
    if kind.id == "struct":
        named = zip(parts, inner, strict=True)
        return f"struct({', '.join(f'{_quoted(name)} {text}' for (name, _), text in named)})"
    if kind.id == "map":
        return f"map({inner[0]}, {inner[1]})"
    return "varchar" if kind.id == "union" else f"{inner[0]}[]"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
