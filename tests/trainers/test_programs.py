"""What a run leaves beside its store."""

import json
from pathlib import Path

import pytest

from plstore.errors import InputError
from plstore.report.progress import Display
from trainers.programs import _keep_line, beside, parse_seeds, run_seeds, seed_rows
from trainers.recipe import load_recipe


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


def line(seed: int, *students: float) -> dict[str, float]:
    named = {f"student {number}": value for number, value in enumerate(students, start=1)}
    return {"seed": seed, "teacher": 70.0, **named, "gain over teacher": students[-1] - 70}


@pytest.mark.parametrize("is_turned", [False, True])
def test_seeds_of_which_one_ends_earlier_are_one_table(is_turned: bool) -> None:
    lines = [line(0, 71.0, 72.0), line(1, 73.0)]
    first, second, mean, deviation = seed_rows(lines[::-1] if is_turned else lines)

    assert {**first} == (
        {**line(1, 73.0), "student 2": None} if is_turned else line(0, 71.0, 72.0)
    )
    assert list(first) == list(second) == list(mean) == list(deviation)
    assert (mean["student 1"], mean["student 2"], mean["gain over teacher"]) == (72, None, 2.5)


@pytest.mark.parametrize("changes", [["data.source=store"], ["teacher=clip"]])
def test_seeds_on_what_one_store_has_are_refused(tmp_path: Path, changes: list[str]) -> None:
    recipe = load_recipe("images", changes)
    with pytest.raises(InputError, match="is one store's; leave --seeds out"):
        run_seeds(recipe, tmp_path / "store", [0], device="cpu", display=Display(quiet=True))


def test_lines_of_other_seeds_and_recipes_stay(tmp_path: Path) -> None:
    path = tmp_path / "seeds.jsonl"
    recipe = load_recipe("fashion_mnist")
    other = load_recipe("fashion_mnist", ["train.steps=500"])
    for number, of in enumerate((recipe, recipe.model_copy(update={"seed": 1}), other, recipe)):
        _keep_line(path, line(of.seed, 70.0 + number), of)
    found = [json.loads(text) for text in path.read_text().splitlines()]

    assert [(each["seed"], each["student 1"]) for each in found] == [(1, 71), (0, 72), (0, 73)]
