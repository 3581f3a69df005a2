"""What `verify` finds wrong with a file of `view_labels`."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from plstore.codec import Codec
from plstore.labels import view_label_rows
from plstore.store import Shard
from plstore.store.parquet import statistics
from plstore.upkeep.view_labels import verify_view_labels

NAME = "draws-000000000010-000000000013-0a1b.parquet"


def rows() -> pa.Table:
    probs = np.array([[0.5, 0.25, 0.25]] * 3, np.float32)
    return view_label_rows(10, np.array([7, 3, 7]), probs, Codec())


def problems(table: pa.Table, name: str = NAME) -> list[tuple[str, str]]:
    shard = Shard(
        path=f"view=v/version=1/identity=x/{name}",
        size_bytes=1,
        partition={},
        stats=statistics(table),
    )
    return list(verify_view_labels(table, shard))


def with_draws(*draws: int) -> pa.Table:
    return rows().set_column(0, "draw", pa.array(draws, pa.int64()))


def with_first(**changes: object) -> pa.Table:
    table = rows()
    labels = table["label"].to_pylist()
    labels[0] = {**labels[0], **changes}
    place = table.column_names.index("label")
    field = table.schema.field("label")
    return table.set_column(place, field, pa.array(labels, field.type))


def test_a_sound_file_has_no_problem() -> None:
    assert problems(rows()) == []


@pytest.mark.parametrize(
    ("make", "name", "what", "detail"),
    [
        (rows, "part-0.parquet", "draws", "is not named by its draws"),
        (lambda: with_draws(10, 11, 13), NAME, "draws", "10 to 13; its name says otherwise"),
        (lambda: with_draws(9, 11, 12), NAME, "draws", "9 to 12; its name says otherwise"),
        (lambda: with_draws(10, 12, 11), NAME, "draws", "they do not ascend"),
        (lambda: with_draws(10, 11, 11), NAME, "draws", "they do not ascend"),
        (
            lambda: with_first(class_ids=[], probs=[]),
            NAME,
            "label",
            "row 0 has no class",
        ),
        (
            lambda: with_first(residual=0.5),
            NAME,
            "probability_sum",
            "1 rows, such as draw 10: sums to 1.5",
        ),
        (
            lambda: with_first(residual=float("nan")),
            NAME,
            "probability_sum",
            "1 rows, such as draw 10: sums to nan",
        ),
    ],
)
def test_what_is_wrong_is_said(
    make: Callable[[], pa.Table], name: str, what: str, detail: str
) -> None:
    ((found, text),) = problems(make(), name)
    assert found == what
    assert detail in text
