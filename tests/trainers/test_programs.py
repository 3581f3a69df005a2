"""What a run leaves beside its store."""

from pathlib import Path

import pytest

from plstore.errors import InputError
from trainers.programs import beside, parse_seeds


def test_stores_of_one_folder_do_not_share_what_they_leave() -> None:
    home = Path("pets")
    stores = [home / name for name in ("store", "cats", "dogs", "store2")]
    names = ("result.json", "report.html", "seeds.jsonl")
    places = [beside(store, name) for store in stores for name in names]

    assert places[:3] == [home / name for name in names]
    assert beside(home / "cats", "result.json") == home / "cats.result.json"
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("text", ["", "a", "3..1", "-1", "1..x"])
def test_seeds_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"wanted such as 0\.\.4 or 0,3,7"):
        parse_seeds(text)
