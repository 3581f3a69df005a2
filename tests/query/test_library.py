"""Headers of saved queries: what a parameter is when it is left out."""

from typing import Any

import pytest

from plstore.errors import QueryError
from plstore.query.library import parse_query

TEXT = """-- One number.
--
-- grain: one row
-- param share float = 0.5: of them
-- param most bigint = 0: of them
-- param near varchar = 'mean': what is near
-- param model varchar = '': whose
-- param seed bigint: drawn with
-- column a float: a number
select $share * $most + $seed as a where $near = $model
"""


def test_what_is_left_out_has_its_default() -> None:
    query = parse_query("mine/own", TEXT)
    values: dict[str, Any] = {"share": 0.5, "most": 0, "near": "mean", "model": ""}

    assert query.check_parameters({"seed": 3}) == {**values, "seed": 3}
    assert query.check_parameters({"seed": 3, "near": "a"})["near"] == "a"
    assert {p.name: p.default for p in query.parameters} == {**values, "seed": None}


def test_what_has_no_default_must_be_given() -> None:
    words = r"--seed is missing\. It takes share \(float, 0\.5 unless given\): of them"
    with pytest.raises(QueryError, match=words):
        parse_query("mine/own", TEXT).check_parameters({"share": 1.0})


@pytest.mark.parametrize("default", ["'0.5'", "half"])
def test_a_default_of_another_type_is_refused(default: str) -> None:
    with pytest.raises(QueryError, match=f"the default {default} for a float; wanted such as"):
        parse_query("mine/own", TEXT.replace("0.5", default))


def test_text_without_quotes_is_no_default() -> None:
    with pytest.raises(QueryError, match="the default mean for a varchar; wanted such as"):
        parse_query("mine/own", TEXT.replace("'mean'", "mean"))
