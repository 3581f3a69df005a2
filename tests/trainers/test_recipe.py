import re
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
    with pytest.raises(RecipeError, match="ships cifar10, fashion_mnist, finetune, imag"):
        load_recipe("imagenet21k")
    (tmp_path / "broken.toml").write_text("name = ")
    with pytest.raises(RecipeError, match="is no TOML"):
        load_recipe(tmp_path / "broken.toml")


def test_students_grow_as_the_recipe_says_and_the_last_repeats() -> None:
    changes = ["iteration.1.model.architecture=a", "iteration.2.model.architecture=b"]
    recipe = load_recipe("fashion_mnist", changes)

    grown = [recipe.model_of(i).architecture for i in range(4)]
    assert grown == ["test_resnet", "a", "b", "b"]


def test_changes_hold_from_their_iteration_on_and_those_of_the_teacher_for_it_alone() -> None:
    recipe = load_recipe("imagenet_b7_l2")
    seen = [recipe.at(number) for number in range(5)]

    assert [r.train.ratio for r in seen] == [0, 14, 14, 28, 28]
    assert [r.model.resolution for r in seen] == [600, 475, 475, 475, 475]
    assert [r.select.relabel for r in seen] == [False, False, True, True, True]
    assert [r.finetune.resolution for r in seen] == [None, 800, 800, 800, 800]
    assert not any(r.iteration for r in seen[1:])
    assert seen[3].train.epochs == 350


def test_steps_of_an_iteration_take_the_place_of_epochs() -> None:
    changes = ["train.steps=", "train.epochs=3", "iteration.2.train.steps=7"]
    recipe = load_recipe("fashion_mnist", [*changes, "schedule.warmup_steps=2"])

    lengths = [recipe.at(n).train.num_steps(640) for n in range(4)]
    assert lengths == [30, 30, 7, 7]
    with pytest.raises(RecipeError, match=r"train: steps 900 and epochs 3 both say how long"):
        load_recipe("fashion_mnist", ["train.epochs=3"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("iteration.3.train.ratio=-1", "iteration.3.train.ratio: found -1; input should be"),
        ("iteration.2.train.stepz=1", "iteration.2.train.stepz: unknown key; known are accum"),
        (
            "iteration.1.data.path=x",
            "iteration.1.data: not by iteration; wanted sections",
        ),
        ("iteration.1.schedule.warmup_steps=901", "iteration.1.recipe: schedule.warmup_steps"),
        ("iteration.one.train.steps=1", "iteration.one"),
        ("model.teacher=resnet18", "model.teacher: unknown key; it is model.architecture now"),
        ("train.learning_rate=1", "it is optimizer.learning_rate now"),
        ("method.teacher=warm", "there is no model before the first"),
        ("train.accumulate=7", "64 labeled images a step are not 7 equal parts"),
        ("noise.cutout_const=3", "of the dialect 'noisystudent'"),
        ("noise.pseudo=['cropp']", "noise.pseudo.0: found 'cropp'"),
    ],
)
def test_what_is_wrong_in_an_iteration_is_said_with_its_place(
    override: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        load_recipe("fashion_mnist", [override])


def test_a_finetuning_is_of_labeled_images_alone_and_clean() -> None:
    recipe = load_recipe("imagenet_b7_l2").at(3).finetuning()

    assert (recipe.train.epochs, recipe.train.ratio, recipe.train.labeled_batch) == (
        *(1.5, 0),
        2048,
    )
    assert (recipe.model.resolution, recipe.model.dropout) == (800, 0.0)
    assert recipe.noise.labeled == []
    assert recipe.optimizer.learning_rate == pytest.approx(0.0016)
    assert recipe.schedule.warmup_steps == 0


def test_the_hash_follows_every_value() -> None:
    assert load_recipe("fashion_mnist").hash == load_recipe("fashion_mnist").hash
    assert load_recipe("fashion_mnist").hash != load_recipe("fashion_mnist", ["seed=1"]).hash


def test_an_override_takes_out_what_the_recipe_says() -> None:
    assert load_recipe("fashion_mnist").select.images_per_class == 1200

    recipe = load_recipe("fashion_mnist", ["select.images_per_class=", "noise.ops="])

    assert recipe.select.images_per_class is None
    assert "zoom" not in recipe.noise.ops
