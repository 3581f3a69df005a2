from pathlib import Path

import pytest

from plstore.errors import RecipeError
from plstore.loaders import RandAugment
from trainers.recipe import load_recipe, recipes_folder


@pytest.mark.parametrize("path", sorted(recipes_folder().glob("*.toml")), ids=lambda p: p.stem)
def test_every_shipped_recipe_is_sound(path: Path) -> None:
    assert load_recipe(path.stem).name == path.stem


def test_all_errors_come_at_once_each_with_field_value_and_remedy() -> None:
    wrong = ["train.stepz=3", "model.channels=7", "seed='abc'", "select.min_confidence=2"]
    with pytest.raises(RecipeError) as caught:
        load_recipe("fashion_mnist", wrong)
    message = str(caught.value)

    assert "4 wrong" in message
    assert "train.stepz: unknown key; known are accumulate, backend, " in message
    assert "model.channels: found 7; input should be 1 or 3" in message
    assert "seed: found 'abc'; input should be a valid integer" in message
    assert "select.min_confidence: found 2; input should be less than 1" in message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("noise.ops.spin=1", "ops spin unknown; wanted some of identity, rotate"),
        (
            "schedule.warmup_steps=9999",
            "schedule.warmup_steps 9999 is not below train.steps 900",
        ),
        ("noise.m=9", "m is the magnitude of another dialect"),
        ("noise.dialect=google", "input should be 'composed', 'noisystudent'"),
        ("data.source=idx", "source 'idx' needs path"),
        ("data.source=folders", "source 'folders' needs labeled and unlabeled"),
        ("model.mean=[0.5, 0.5]", "mean has 2 values for 1 channels"),
        ("optimizer.learning_rate=nan", "learning_rate"),
        ("select.quality=90", "quality is of images that are shrunk: set max_side"),
        ("select.max_side=0", "select.max_side: found 0"),
        ("model.scaled_decoding=half", "model.scaled_decoding: found 'half'"),
        ("steps", "wanted path.to.key=value"),
        ("select.total=", "the recipe says nothing of it to take out"),
        ("seed.deep=1", "'seed' is a value, not a section"),
    ],
)
def test_what_does_not_fit_together_is_refused(override: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("fashion_mnist", [override])

    assert words in str(caught.value)


def test_a_dialect_takes_the_place_of_the_recipes_own_list() -> None:
    recipe = load_recipe("fashion_mnist", ["noise.dialect=noisystudent", "noise.m=27"])
    augment = recipe.noise.as_noise().augment

    assert augment == RandAugment(n=2, m=27, dialect="noisystudent")
    with pytest.raises(RecipeError, match="a whole number from 0 to 30"):
        load_recipe("fashion_mnist", ["noise.dialect=dali", "noise.m=2.5"])


def test_overrides_are_read_as_toml_and_quotes_may_be_left_off() -> None:
    overrides = ["train.steps=7", "schedule.warmup_steps=0", "model.architecture=resnet10t"]
    recipe = load_recipe("fashion_mnist", [*overrides, "data.path='7'"])

    assert (recipe.train.steps, recipe.schedule.warmup_steps) == (7, 0)
    assert (recipe.model.architecture, recipe.data.path) == ("resnet10t", "7")


def test_an_unknown_recipe_lists_those_that_ship(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="ships fashion_mnist, finetune, images, probe"):
        load_recipe("imagenet21k")
    (tmp_path / "broken.toml").write_text("name = ")
    with pytest.raises(RecipeError, match="is no TOML"):
        load_recipe(tmp_path / "broken.toml")


def test_students_grow_as_the_recipe_says_and_the_last_repeats() -> None:
    changes = ["iteration.1.model.architecture=a", "iteration.2.model.architecture=b"]
    recipe = load_recipe("fashion_mnist", changes)

    grown = [recipe.model_of(i).architecture for i in range(4)]
    assert grown == ["test_resnet", "a", "b", "b"]


def test_the_hash_follows_every_value() -> None:
    assert load_recipe("fashion_mnist").hash == load_recipe("fashion_mnist").hash
    assert load_recipe("fashion_mnist").hash != load_recipe("fashion_mnist", ["seed=1"]).hash


def test_an_override_takes_out_what_the_recipe_says() -> None:
    assert load_recipe("fashion_mnist").select.images_per_class == 1200

    recipe = load_recipe("fashion_mnist", ["select.images_per_class=", "noise.ops="])

    assert recipe.select.images_per_class is None
    assert "zoom" not in recipe.noise.ops
