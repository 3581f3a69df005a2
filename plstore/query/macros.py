"""SQL functions that plstore adds, in text that DuckDB and Spark read alike."""

from dataclasses import dataclass
from typing import Final

import duckdb

BUCKET_SQL: Final = (
    "greatest(0, least(999, cast(floor(cast({0} as double) * 1000) as integer)"
    " - cast({0} <= cast(floor(cast({0} as double) * 1000) / 1000 as float) as integer)))"
)
"""The bucket of a confidence, in SQL that DuckDB and Spark read alike."""

TICKETS: Final = 2_147_483_579
"""A ticket is a whole number from 0 to below this, a prime: 2^31 - 69."""

_SEED = f"(cast(seed as bigint) % {TICKETS})"  # a small parameter would be 32 bits wide
_PLACE = (
    f"((cast(sample_id as bigint) * (524288 + ({_SEED} * 40503 + 7) % 524288)"
    f" + ({_SEED} * 69621 + 16807) % {TICKETS}) % {TICKETS})"
)


@dataclass(frozen=True, kw_only=True)
class Macro:
    """A function written in SQL.

    Attributes:
        name: What queries call.
        parameters: Names with their types.
        returns: Type of its value.
        body: Of the parameters alone.
        meaning: One sentence.
    """

    name: str
    parameters: tuple[tuple[str, str], ...]
    returns: str
    body: str
    meaning: str


SELECTION_MACROS: Final = (
    Macro(
        name="confidence_bucket",
        parameters=(("confidence", "float"),),
        returns="int",
        body=BUCKET_SQL.format("confidence"),
        meaning="The bucket of 0.001 that a confidence is in: above b / 1000, up to the next",
    ),
    Macro(
        name="lottery",
        parameters=(("sample_id", "bigint"), ("seed", "bigint")),
        returns="bigint",
        # A cubic permutation of a prime field: every engine computes the same whole numbers,
        # ten times as fast as md5. Ids below 2^43 do not overflow.
        body=f"({_PLACE} * {_PLACE} % {TICKETS} * {_PLACE} % {TICKETS})",
        meaning="A seeded ticket of an image, 0 to below 2^31 - 69: the lowest tickets win",
    ),
)


def create_macros(connection: duckdb.DuckDBPyConnection) -> None:
    """Add the functions that selections use."""
    for macro in SELECTION_MACROS:
        names = ", ".join(name for name, _ in macro.parameters)
        connection.execute(f"create macro {macro.name}({names}) as {macro.body}")
