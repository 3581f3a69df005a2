"""Plans: the method, pixels and steps that fit; how they are kept."""

import io
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from plstore.errors import InputError
from plstore.exchange import Source, image_folders
from plstore.images import import_images
from plstore.report.progress import Display
from plstore.store import create
from tests.cli.shell import Done, shell
from tests.conftest import CLASS_NAMES, make_records
from trainers.estimate import Estimator
from trainers.planning import Plan, Wishes, check_weights, parse_budget, plan, trained
from trainers.planning.census import Census, Machine, look_at_images, look_at_store
from trainers.planning.planned import _recipe_of, plan_recipe, planned_recipe
from trainers.recipe import Recipe, check_recipe
from trainers.sections import Data, Model, Select
from trainers.sources import open_source
from trainers.training.timing import Timed

MACHINE = Machine(device="cpu", cores=2, memory=24 << 30)
CIFAR = Census(
    splits={"labeled": 340, "validation": 60, "unlabeled": 20_000, "test": 5000},
    class_names=list("abcdefghij"),
    least=34,
    width=32,
    height=32,
    channels=3,
)
LITE = "tf_efficientnet_lite0"


def timer(rate: float, precision: str = "auto") -> object:
    """Return a timer of a machine that trains so many images of 32 px a second."""

    def timed(model: Model, architecture: str) -> Timed:
        cost = {"test_resnet": 1, "resnet10t": 10, LITE: 4}.get(architecture, 30)
        seconds = cost * (model.resolution / 32) ** 2 / rate
        return Timed(
            train_seconds=seconds,
            clean_seconds=seconds / 3,
            num_bytes=1,
            precision=precision,
        )

    return timed


def planned(census: Census, wishes: Wishes, rate: float = 2000) -> Plan:
    return plan(census, MACHINE, wishes, timer(rate))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("1.5h", 5400),
        ("1d", 86_400),
        ("none", None),
        (" 2 H", 7200),
    ],
)
def test_a_budget_is_a_number_with_its_unit(text: str, seconds: float | None) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["30", "m", "-3m", "0m", "3w", ""])
def test_another_budget_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="wanted such as 90s, 30m"):
        parse_budget(text)


def test_with_weights_a_probe_looks_at_as_many_pixels_as_fit() -> None:
    sizes = []
    for minutes in (4, 30, 300):
        wishes = Wishes(model=LITE, weights="w", seconds=60.0 * minutes)
        made = planned(CIFAR, wishes)
        sizes.append(made.values["model"]["resolution"])
        assert made.values["method"] == {"teacher": "probe", "students": "probe"}
        assert made.seconds < 60 * minutes

    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] == 192  # six times the side
    assert all(size % 32 == 0 for size in sizes)


def test_what_does_not_fit_at_the_fewest_pixels_is_left_out_and_said() -> None:
    wishes = Wishes(model=LITE, weights="w", seconds=30.0)
    made = planned(CIFAR, wishes, rate=1000)
    limit = made.values["data"]["limit_unlabeled"]

    assert 100 <= limit < 20_000
    assert f"{20_000 - limit:,} of 20,000 unlabeled" in made.reasons["left out"]


def test_without_weights_it_is_the_largest_net_with_time_to_learn() -> None:
    slow, fast = (planned(CIFAR, Wishes(seconds=1800.0), rate) for rate in (2000, 200_000))

    assert slow.values["model"]["architecture"] == "test_resnet"
    assert fast.values["model"]["architecture"] == "resnet18"
    assert max(slow.seconds, fast.seconds) < 1800
    assert "weights" in slow.reasons["better"]


@pytest.mark.parametrize(
    ("least", "minutes", "students"), [(34, 60, 1), (340, 30, 1), (340, 45, 2), (340, 60, 3)]
)
def test_of_several_students_one_that_does_not_gain_is_the_last(
    least: int, minutes: int, students: int
) -> None:
    wishes = Wishes(seconds=60.0 * minutes)
    made = planned(Census(**{**vars(CIFAR), "least": least}), wishes, rate=5000)

    assert made.values["recipe"] == {"iterations": students, "patience": 1}
    assert f"students: {students}, and a control" in made.reasons["method"]
    assert ("is the last (--patience)" in made.reasons["method"]) == (students > 1)


MANY = replace(CIFAR, least=340)


@pytest.mark.parametrize(
    ("census", "wishes", "times"),
    [
        (MANY, Wishes(), 2),
        (MANY, Wishes(weights="w", teacher="finetune", students="finetune"), 1),
        (CIFAR, Wishes(teacher="scratch", students="scratch"), 1),
    ],
)
def test_of_many_labels_a_student_trains_twice_as_long_as_its_teacher(
    census: Census, wishes: Wishes, times: int
) -> None:
    made = planned(census, replace(wishes, seconds=86_400.0), rate=1e6)
    values = {k: v for k, v in made.values.items() if k != "recipe"}
    recipe = check_recipe({"name": "x", **values}, "test")
    teacher, student = recipe.at(0), recipe.at(1)

    assert teacher.train.steps == 15 * 20_340 // 256
    assert student.train.steps == 15 * 20_340 * times // 256
    assert f"{student.train.steps:,} of each student" in made.reasons["steps"]
    assert ("of the teacher" in made.reasons["steps"]) == (times > 1)


def test_before_a_student_trains_longer_its_teacher_has_the_time_it_needs() -> None:
    steps = []
    for minutes in (10, 16, 20):
        made = planned(MANY, Wishes(model="test_resnet", resolution=32, seconds=60.0 * minutes))
        student = made.values["train"]["steps"]
        teacher = made.values.get("iteration", {"0": {"train": {"steps": student}}})["0"]
        steps.append((teacher["train"]["steps"], student))
        assert 0.7 * 60 * minutes < made.seconds < 60 * minutes

    most = 15 * 20_340 // 256
    assert steps[0][0] == steps[0][1] < most
    assert [teacher for teacher, _ in steps[1:]] == [most, most]
    assert most < steps[1][1] < steps[2][1] <= 2 * most


@pytest.mark.parametrize("by_hand", ["auto", "bfloat16"])
def test_a_precision_that_is_faster_here_is_of_the_plan_and_said(by_hand: str) -> None:
    wishes = Wishes(seconds=1800.0, precision=by_hand)
    fast = timer(2000, "bfloat16")
    made = plan(CIFAR, MACHINE, wishes, fast)  # type: ignore[arg-type]

    assert made.values["train"]["precision"] == "bfloat16"
    assert ("precision" in made.reasons) == (by_hand == "auto")


def test_a_precision_by_hand_is_what_a_plan_is_timed_in() -> None:
    wishes = Wishes(model="test_resnet", resolution=64, seconds=600.0, precision="float32")

    assert plan(CIFAR, MACHINE, wishes).values["train"]["precision"] == "float32"


def test_a_precision_by_hand_is_of_the_recipe(folders: Path) -> None:
    places = (folders / "labeled", folders / "unlabeled")
    by_hand = ["train.precision=float32"]
    made, reasons = plan_recipe(
        *places, wishes=Wishes(seconds=600.0), overrides=by_hand, device="cpu"
    )

    assert made.train.precision == "float32"
    assert "precision" not in reasons


def test_of_few_labels_the_net_learns_from_unlabeled_images_first() -> None:
    made = planned(CIFAR, Wishes(seconds=1800.0))
    passes = made.values["pretrain"]["steps"] * 256 / 20_000
    recipe = check_recipe(
        {"name": "x", **{k: v for k, v in made.values.items() if k != "recipe"}}, "test"
    )

    assert made.values["method"] == {"teacher": "finetune", "students": "scratch"}
    assert 10 < passes < 50
    assert f"in {passes:.0f} passes" in made.reasons["before"]
    assert made.seconds < 1800
    assert (recipe.how(0), recipe.how(1), recipe.how(1, is_control=True)) == (
        *("finetune", "scratch", "scratch"),
    )
    assert (recipe.at(0).train.steps, recipe.at(0).train.pseudo_batch) == (400, 0)
    assert recipe.at(1).train.steps == made.values["train"]["steps"]


def test_a_task_that_noises_images_twice_has_half_the_steps() -> None:
    one, two = (planned(CIFAR, Wishes(seconds=1800.0, versions=n)) for n in (1, 2))

    assert two.values["pretrain"]["steps"] == one.values["pretrain"]["steps"] // 2
    assert two.seconds == pytest.approx(one.seconds)


@pytest.mark.parametrize(
    ("census", "wishes"),
    [
        ({"least": 100}, {}),
        ({"splits": {**CIFAR.splits, "unlabeled": 1000}}, {}),
        ({}, {"teacher": "scratch", "students": "scratch"}),
        ({}, {"also": ({"architecture": "resnet10t"},)}),
        ({}, {"is_taught": True}),
    ],
)
def test_otherwise_a_teacher_begins_at_random(
    census: dict[str, Any], wishes: dict[str, Any]
) -> None:
    here = Census(**{**vars(CIFAR), **census})
    made = planned(here, Wishes(seconds=1800.0, **wishes))

    assert made.values["method"] == {"teacher": "scratch", "students": "scratch"}
    assert "pretrain" not in made.values
    assert set(made.values.get("iteration", {"0": {"train": {}}})["0"]) == {"train"}
    assert "before" not in made.reasons


@pytest.mark.parametrize(("rate", "size"), [(3300, 64), (1850, 48), (600, 32)])
def test_small_images_are_enlarged_as_far_as_there_is_time(rate: float, size: int) -> None:
    made = planned(CIFAR, Wishes(seconds=1800.0), rate)

    assert made.values["model"]["architecture"] == "test_resnet"
    assert made.values["model"]["resolution"] == size


def test_a_budget_that_is_too_short_is_said() -> None:
    made = planned(CIFAR, Wishes(seconds=60.0), rate=500)

    assert made.values["recipe"]["iterations"] == 1
    assert "longer --budget" in made.reasons["warning"]


def test_what_the_user_said_stays() -> None:
    wishes = Wishes(model="resnet10t", resolution=40, seconds=1800.0)
    made = planned(CIFAR, wishes)

    assert made.values["model"]["architecture"] == "resnet10t"
    assert made.values["model"]["resolution"] == 40


@pytest.mark.parametrize(("rate", "size"), [(4000, 64), (9000, 96), (16_000, 128)])
def test_photos_are_seen_at_the_pixels_that_there_is_time_for(rate: float, size: int) -> None:
    photos = Census(**{**vars(CIFAR), "width": 375, "height": 500})
    model = planned(photos, Wishes(seconds=1800.0), rate).values["model"]

    assert (model["architecture"], model["resolution"]) == ("test_resnet", size)


def test_photos_are_seen_at_no_more_pixels_than_they_have() -> None:
    photos = Census(**{**vars(CIFAR), "width": 4032, "height": 3024})
    small = Census(**{**vars(CIFAR), "width": 100, "height": 80})

    assert planned(photos, Wishes(), 1e9).values["model"]["resolution"] == 224
    assert planned(small, Wishes(), 1e9).values["model"]["resolution"] <= 80


def test_a_class_without_a_labeled_image_is_refused() -> None:
    with pytest.raises(InputError, match="no labeled image"):
        planned(Census(**{**vars(CIFAR), "least": 0}), Wishes())


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for place, count in (("labeled/cat", 10), ("labeled/dog", 10), ("unlabeled", 30)):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 256, (24, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "unlabeled" / "0.png").write_bytes(b"no image")
    return tmp_path


def source_of(folders: Path) -> object:
    return image_folders(labeled=folders / "labeled", unlabeled=folders / "unlabeled")


def test_a_census_opens_headers_alone(folders: Path) -> None:
    found = look_at_images(source_of(folders))  # type: ignore[arg-type]

    assert (found.width, found.height, found.channels) == (30, 24, 3)
    assert (found.least, found.num_unread, found.num_looked) == (9, 1, 50)
    assert str(found).endswith("; 1 of 50 that were looked at could not be opened")
    assert found.num_images == 50
    assert "30 x 24 px, colour" in str(found)


def test_a_census_opens_no_more_than_it_says_and_counts_what_is_no_image(
    folders: Path,
) -> None:
    for number in range(30, 79):
        shutil.copy(folders / "unlabeled" / "1.png", folders / "unlabeled" / f"{number}.png")
    for name in ("a.txt", "b.txt", ".DS_Store"):
        (folders / "unlabeled" / name).write_bytes(b"x")
    found = look_at_images(source_of(folders))  # type: ignore[arg-type]

    assert found.num_images == 99
    assert found.num_looked == 50  # every second one: 64 at most
    assert str(found).endswith("; 3 files are no images: .txt 2, .DS_Store 1")


def test_a_census_of_a_store_counts_what_was_accepted(tmp_path: Path) -> None:
    store = create(tmp_path / "store")
    records = [replace(record, truth=None) for record in make_records(6, 8)]
    records[0] = replace(records[0], data=b"no image")
    import_images(store, records, dataset="pets", class_names=CLASS_NAMES)
    found = look_at_store(store, open_source(Data(source="store"), 0, store))

    assert found.splits == {"labeled": 5, "unlabeled": 8, "validation": 6, "test": 6}
    assert found.least == 1  # of two, one was refused
    assert (found.channels, found.num_unread, found.num_looked) == (3, 0, 25)


def test_grayscale_images_are_seen_as_such(folders: Path) -> None:
    for path in folders.rglob("*.png"):
        stream = io.BytesIO()
        Image.new("L", (20, 20)).save(stream, "PNG")
        path.write_bytes(stream.getvalue())

    assert look_at_images(source_of(folders)).channels == 1  # type: ignore[arg-type]


def run(folders: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "plstore.cli.main", "run", "--store", "p/store"]
    command += ["--labeled", "labeled", "--unlabeled", "unlabeled", *words]
    return subprocess.run(command, cwd=folders, capture_output=True, text=True, check=False)


def refused(folders: Path, *words: str) -> Done:
    folders_of = ("--labeled", "labeled", "--unlabeled", "unlabeled")
    return shell("run", "--store", "p/store", *folders_of, *words, home=folders)


@pytest.mark.nightly
def test_a_plan_is_written_and_used_again_as_it_was_edited(folders: Path) -> None:
    words = ("--model", "test_resnet", "--set", "seed=3", "--dry-run")
    first = run(folders, *words)
    path = folders / "p" / "plan.toml"
    written = tomllib.loads(path.read_text())

    assert first.returncode == 0, first.stderr
    assert "noisy student from scratch" in first.stderr
    assert written["model"]["architecture"] == "test_resnet"
    assert written["seed"] == 3
    path.write_text(path.read_text().replace("seed = 3", "seed = 4"))
    again = run(folders, *words)
    assert "as it was made before" in again.stderr
    assert tomllib.loads(path.read_text())["seed"] == 4
    other = run(folders, *words, "--budget", "2h")
    assert "as it was made before" not in other.stderr


def test_what_is_refused_for_its_store_leaves_the_plan_as_it_was(folders: Path) -> None:
    words = ("run", "--store", "p/store", "--labeled", "labeled", "--unlabeled", "unlabeled")
    store = create(folders / "p" / "store")
    import_images(store, make_records(3, 0), dataset="images", class_names=CLASS_NAMES)
    plan = folders / "p" / "plan.toml"
    plan.write_text("name = 'mine'")
    other = shell(*words, "--dry-run", home=folders)
    unknown = shell(*words, "--dry-run", "--teacher", "clip", home=folders)

    assert (other.returncode, unknown.returncode) == (2, 2)
    assert "holds 3 images of labeled/" in " ".join(other.stderr.split())
    assert "has no teacher 'clip'; it has none" in " ".join(unknown.stderr.split())
    assert plan.read_text() == "name = 'mine'"
    assert [path.name for path in plan.parent.glob("*.toml")] == ["plan.toml"]


def test_settings_that_come_on_top_of_a_plan_are_said_with_it(folders: Path) -> None:
    data = {"source": "folders", "unlabeled": str(folders / "unlabeled")}
    recipe, _ = planned_recipe(
        {**data, "labeled": str(folders / "labeled")},
        Wishes(model="test_resnet", resolution=24),
        ["train.steps=7"],
        folders / "plan.toml",
        store=create(folders / "store"),
        device="cpu",
        display=Display(quiet=True),
    )

    assert recipe.train.steps == 7
    assert "# by hand: train.steps=7: these come last" in (folders / "plan.toml").read_text()


def test_images_that_an_edited_plan_names_are_those_of_the_run(folders: Path) -> None:
    def found(*overrides: str) -> tuple[Recipe, Source]:
        return planned_recipe(
            {"source": "folders", "labeled": str(folders / "labeled"), "unlabeled": pool},
            Wishes(model="test_resnet", resolution=24),
            overrides,
            folders / "plan.toml",
            store=create(folders / "store"),
            device="cpu",
            display=Display(quiet=True),
        )

    pool, fewer = str(folders / "unlabeled"), folders / "fewer"
    shutil.copytree(folders / "unlabeled", fewer)
    (fewer / "1.png").rename(fewer / "other.png")
    (fewer / "2.png").unlink()
    planned, before = found()
    text = (folders / "plan.toml").read_text()
    text = text.replace(f'unlabeled = "{pool}"', f'unlabeled = "{fewer}"', 1)
    text = text.replace("[data]\n", "[data]\nvalidation_fraction = 0.5\n", 1)
    (folders / "plan.toml").write_text(text)
    edited, after = found()
    again, same = found()

    assert (before.splits["unlabeled"], after.splits["unlabeled"]) == (30, 29)
    assert after.splits["validation"] > before.splits["validation"]
    assert after.identity == open_source(edited.data, edited.seed).identity == same.identity
    assert edited == again != planned
    kept = text
    text = text.replace(str(fewer), pool).replace("validation_fraction = 0.5\n", "")
    (folders / "plan.toml").write_text(
        text.replace("iterations =", "seed = 5\niterations =", 1)
    )
    seeded, drawn = found()
    assert seeded.seed == 5
    assert drawn.identity == open_source(seeded.data, 5).identity != before.identity
    (folders / "plan.toml").write_text(kept)
    names = ["cat", "dog"]
    import_images(
        create(folders / "store"), after.records(), dataset="images", class_names=names
    )
    assert found()[1].identity == after.identity  # though the store has none of the other's


@pytest.mark.parametrize("name", ["labeled", "unlabeled"])
def test_a_folder_that_every_run_needs_is_asked_for(folders: Path, name: str) -> None:
    done = shell("run", "--store", "p/store", f"--{name}", name, "--dry-run", home=folders)
    other = {"labeled": "unlabeled", "unlabeled": "labeled"}[name]

    assert done.returncode == 2
    assert f"--{name} given, and no --{other}: wanted" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--budget", "soon"), "wanted such as 90s, 30m"),
        (("--resolution", "100000"), "should be less than or equal to 1024"),
        (("--resolution", "0"), "should be greater than or equal to 8"),
        (("--method", "magic"), "wanted probe, finetune, noisy-student"),
        (("--method", "probe"), "--method probe needs weights: give --weights hub, or a file"),
        (("--method", "finetune:probe"), "--method finetune needs weights: give --weights hub"),
        (("images", "--budget", "30m"), "--budget is for a plan, and images is a recipe"),
        (("--weights", "gone.safetensors"), "which does not exist"),
        (("--weights", "hub", "--model", "resnet18ts"), "timm has no weights for"),
    ],
)
def test_what_cannot_be_planned_is_said(
    folders: Path, words: tuple[str, ...], message: str
) -> None:
    done = refused(folders, "--dry-run", *words)

    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())


def test_weights_that_do_not_say_their_model_are_asked_about(folders: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"w": np.zeros(1, np.float32)}, folders / "mine.safetensors")

    done = refused(folders, "--weights", "mine.safetensors", "--dry-run")

    assert done.returncode == 2
    assert "Name it with --model" in " ".join(done.stderr.split())


@pytest.mark.nightly
def test_the_plan_of_another_command_is_kept_aside(folders: Path) -> None:
    first, second = (
        ("--model", "test_resnet", "--dry-run", "--budget", b) for b in ("1h", "2h")
    )
    run(folders, *first)
    path = folders / "p" / "plan.toml"
    path.write_text(path.read_text() + "# mine\n")

    told = run(folders, *second)
    again = run(folders, *first)

    (aside,) = (folders / "p").glob("plan-*.toml")
    assert aside.read_text().endswith("# mine\n")
    assert aside.name in told.stderr
    assert f"{aside.name}, as it was made before" in again.stderr


@pytest.mark.nightly
def test_a_file_that_went_or_came_makes_no_other_plan(folders: Path) -> None:
    words = ("--model", "test_resnet", "--dry-run")
    run(folders, *words)
    path = folders / "p" / "plan.toml"
    path.write_text(path.read_text() + "# mine\n")
    (folders / "unlabeled" / "3.png").unlink()
    (folders / "unlabeled" / "notes.txt").write_bytes(b"x")
    fewer = run(folders, *words)
    for number in range(4, 20):
        (folders / "unlabeled" / f"{number}.png").unlink()
    few = run(folders, *words)
    path.write_text(path.read_text().replace("# of images: {", '# of images: ["", '))
    unsure = run(folders, *words)

    assert "plan.toml, as it was made before" in fewer.stderr
    assert "images  16 labeled, 4 validation, 29 unlabeled; 2 classes" in fewer.stderr
    assert "1 file is no image: .txt 1" in fewer.stderr
    assert "as it was made before" not in few.stderr + unsure.stderr
    aside, _ = sorted((folders / "p").glob("plan-*.toml"), key=lambda path: len(path.name))
    assert aside.read_text().endswith("# mine\n")


def test_weights_may_be_named_by_hand(folders: Path) -> None:
    check_weights(Wishes(teacher="probe"), ["model.pretrained=true"])
    check_weights(Wishes(teacher="scratch", students="scratch"))

    with pytest.raises(InputError, match="--method finetune needs weights: give --weights hub"):
        plan_recipe(
            folders / "labeled", folders / "unlabeled", wishes=Wishes(students="finetune")
        )


def test_a_store_of_ones_own_is_asked_for_weights_as_folders_are(tmp_path: Path) -> None:
    done = shell("run", "--store", tmp_path / "store", "--method", "finetune", "--dry-run")

    assert done.returncode == 2
    assert "--method finetune needs weights: give --weights hub, or a file" in done.stderr
    assert "images.toml" not in done.stderr


def test_a_store_that_has_images_is_planned_for_as_folders_are(folders: Path) -> None:
    places = ("--labeled", "labeled", "--unlabeled", "unlabeled")
    shell("import", "images", "--store", "own/store", *places, home=folders)
    done = shell("run", "--store", "own/store", "--budget", "20m", "--dry-run", home=folders)
    again = shell("run", "--store", "own/store", "--budget", "20m", "--dry-run", home=folders)
    plan = tomllib.loads((folders / "own/plan.toml").read_text())

    counts = "16 labeled, 4 validation, 29 unlabeled"  # the 30th file is no image
    known = f"images {counts}; 2 classes, at least 8 labeled in each; 30 x 24 px, colour"
    assert known in " ".join(done.stderr.split())
    assert "budget 20 minutes" in done.stderr
    assert plan["data"]["source"] == "store"
    assert "as it was made before" in again.stderr


def test_a_query_that_is_named_decides_in_place_of_the_plan(folders: Path) -> None:
    wishes = Wishes(model="test_resnet", weights=str(folders), resolution=32)
    places = (folders / "labeled", folders / "unlabeled")

    def planned_select(*overrides: str) -> Select:
        return plan_recipe(*places, wishes=wishes, overrides=overrides, device="cpu")[0].select

    plain = planned_select()
    distant = planned_select("select.query=selection/in_distribution")
    soft = planned_select("select.query=selection/soft_weight")

    assert (plain.policy, plain.min_confidence) == ("none", 0.0)
    assert (distant.policy, distant.min_confidence) == ("exact", 0.0)  # it takes a floor
    assert (soft.policy, soft.min_confidence) == ("exact", 0.3)  # it takes none


def test_fewer_steps_than_were_planned_warm_up_for_fewer(folders: Path) -> None:
    places = (folders / "labeled", folders / "unlabeled")
    wishes = Wishes(model="test_resnet", resolution=32)
    few, _ = plan_recipe(*places, wishes=wishes, overrides=["train.steps=50"], device="cpu")
    own = ["train.steps=50", "schedule.warmup_steps=2"]
    given, _ = plan_recipe(*places, wishes=wishes, overrides=own, device="cpu")

    assert (few.train.steps, few.schedule.warmup_steps) == (50, 10)
    assert given.schedule.warmup_steps == 2


@pytest.mark.parametrize(
    ("least", "override", "teacher", "student"),
    [
        (340, "train.steps=50", 50, 50),
        (340, "train.steps=9000", 9000, 9000),
        (340, "iteration.0.train.epochs=3", None, 2383),
        (34, "train.steps=50", 50, 50),
        (34, "train.steps=9000", 400, 9000),
        (34, "iteration.0.train.epochs=3", None, 1191),
    ],
)
def test_steps_by_hand_are_the_teachers_too(
    least: int, override: str, teacher: int | None, student: int
) -> None:
    wishes = Wishes(seconds=3600.0, model="test_resnet", resolution=32)
    made = planned(replace(CIFAR, least=least), wishes, 10_000)
    recipe = _recipe_of(made, {"source": "sample"}, [override, "iterations=1"])

    assert recipe.at(0).train.steps == teacher
    assert recipe.at(0).train.epochs == (3 if teacher is None else None)
    assert recipe.at(1).train.steps == student


def test_a_plan_leaves_the_beginning_to_settings_by_hand(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trained, "_LEAST_POOL", 10)
    places, wishes = (folders / "labeled", folders / "unlabeled"), Wishes(seconds=600.0)

    def steps(*overrides: str) -> int:
        made, _ = plan_recipe(*places, wishes=wishes, overrides=overrides, device="cpu")
        return made.pretrain.steps

    whole = steps()
    assert whole > 1
    assert steps("pretrain.task=simclr") == whole  # 50 passes, each noised twice
    assert steps("pretrain.steps=7") == 7
    assert steps("method.teacher=scratch") == 0
    assert steps("model.pretrained=true") == 0


def test_a_plan_that_takes_longer_than_the_budget_says_so() -> None:
    within = planned(CIFAR, Wishes(seconds=1800.0))
    beyond = planned(CIFAR, Wishes(seconds=20.0), rate=200)

    assert "too long" not in within.reasons
    assert "times the budget" in beyond.reasons["too long"]


def test_models_are_timed_in_the_precision_that_each_trains_in(folders: Path) -> None:
    values = {"name": "x", "model": {"architecture": "test_resnet", "resolution": 24}}
    lower = {"iteration": {1: {"train": {"precision": "bfloat16"}}}}
    source = source_of(folders)
    known: dict[tuple[str, int, str], Timed] = {}
    plain = Estimator(check_recipe(values, "a"), source, "cpu", known)  # type: ignore[arg-type]
    other = Estimator(check_recipe({**values, **lower}, "b"), source, "cpu", known)  # type: ignore[arg-type]

    assert [plain.timed(number).precision for number in (0, 1)] == ["auto", "auto"]
    assert [other.timed(number).precision for number in (0, 1)] == ["auto", "bfloat16"]
    assert other.timed(0) is plain.timed(0)  # of two cells: timed once


def test_a_student_that_finds_the_embeddings_of_its_teacher_looks_at_nothing(
    folders: Path,
) -> None:
    model = {"architecture": "test_resnet", "resolution": 24, "pretrained": True}
    values = {"name": "x", "method": {"teacher": "probe", "students": "probe"}}
    recipe = check_recipe({**values, "model": model}, "test")
    other = check_recipe(
        {**values, "model": model, "iteration": {1: {"model": {"resolution": 32}}}}, "test"
    )
    source = source_of(folders)

    assert Estimator(recipe, source, "cpu").look_seconds(0) > 0  # type: ignore[arg-type]
    assert Estimator(recipe, source, "cpu").look_seconds(1) == 0  # type: ignore[arg-type]
    assert Estimator(other, source, "cpu").look_seconds(1) > 0  # type: ignore[arg-type]
