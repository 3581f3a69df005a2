"""The teacher labels what a student sees, noise included, and the student replays it."""

import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import plstore
from benchmarks.codec import simulate
from plstore.codec import Codec, decode
from plstore.errors import InputError, PlstoreError, RecipeError
from plstore.labels import find_teacher
from plstore.labels import view_labels as kept
from plstore.loaders import Batch, Loader
from plstore.schema import TABLES
from plstore.store import Store, parquet_bytes
from plstore.upkeep import verify
from plstore.views import View, open_view
from tests.conftest import CLASS_NAMES, give_labels
from tests.loaders.conftest import together
from trainers.loop import open_run
from trainers.models.bringing import bring_teacher
from trainers.models.model import build_model, image_format, load_teacher, save_bundle
from trainers.on_view import label_views, train_on_view
from trainers.recipe import Recipe, check_recipe
from trainers.sections import Model
from trainers.training import train as train_module
from trainers.training.keeping import training_on
from trainers.training.train import Training, train

MODEL: dict[str, Any] = {
    "architecture": "test_resnet",
    "resolution": 16,
    "stochastic_depth": 0.0,
    "dropout": 0.0,
}


def recipe(**changes: Any) -> Recipe:  # noqa: ANN401  values of a recipe
    values = {
        "name": "tiny",
        "iterations": 1,
        "control": False,
        "data": {"source": "store"},
        "model": MODEL,
        "train": {"steps": 6, "labeled_batch": 4, "ratio": 2, "threads": 1, "looks": 0},
        "select": {"min_confidence": 0.0, "policy": "none"},
        "label": {"views": True, "view_epochs": 1},
    }
    return check_recipe({**values, **changes}, "test")


def bring(store: Store, name: str, folder: Path, **changes: Any) -> None:  # noqa: ANN401
    settings = Model(**{**MODEL, **changes})
    torch.manual_seed(7)
    network = build_model(settings, "test_resnet", len(CLASS_NAMES))
    save_bundle(folder / name, network, image_format(settings, network), CLASS_NAMES)
    bring_teacher(store, name, str(folder / name), device="cpu")


@pytest.fixture
def view(store: Store, tmp_path: Path) -> View:
    bring(store, "mine", tmp_path, resolution=24, mean=[0.5] * 3, std=[0.25] * 3)
    give_labels(store, "mine", 1)
    balance = plstore.Balance(min_confidence=0.4, images_per_class=23)
    return plstore.select(
        store, plstore.Selection(view="all", teachers=["mine@1"], balance=balance)
    )


def training_of(view: View, **changes: Any) -> Training:  # noqa: ANN401
    seen = recipe(**changes)
    return training_on(view, seen, seen, 1, role="student", seed=5, device="cpu")


def loader_of(view: View, made: kept.ViewLabels, **changes: Any) -> Loader:  # noqa: ANN401
    """Return the loader of the training that `label_views` labels for."""
    values: dict[str, Any] = {
        "labeled_batch": 4,
        "pseudo_batch": 8,
        "image_format": training_of(view).format(),
        "noise": recipe().noise.as_noise(),
        "seed": made.label_set.seed,
        "labels": made,
        "backend": made.label_set.backend,
    }
    return plstore.load(view, **{**values, **changes})


def some(loader: Loader, count: int) -> list[Batch]:
    return list(islice(loader, count))


def test_labels_are_what_the_teacher_says_of_the_pixels_of_the_student(view: View) -> None:
    labels = label_views(view, recipe(), device="cpu")
    clean = some(loader_of(view, labels, labels=None), 5)
    found = some(loader_of(view, labels), 5)
    teacher = find_teacher(view.store, "mine")
    assert teacher is not None
    bundle = load_teacher(view.store, teacher, device="cpu")

    assert labels.num_draws == 3 * 8  # 12 labeled images, 4 a step
    for batch in found[:3]:
        pixels = torch.nn.functional.interpolate(
            batch.images[4:].float(), size=24, mode="bilinear", antialias=True
        )
        with torch.inference_mode():
            logits = bundle.network((pixels / 255 - 0.5) / 0.25)
        said = torch.softmax(logits, dim=1)
        assert torch.allclose(batch.targets[4:], said, rtol=2e-3)
    for before, after in zip(clean, found, strict=True):
        assert torch.equal(before.images, after.images)
        assert torch.equal(before.targets[:4], after.targets[:4])
        assert torch.equal(before.targets, after.targets) == (before.step >= 3)
        assert after.not_replayed == 0


@pytest.mark.parametrize("backend", ["dali", "threads", "torch"])
@pytest.mark.parametrize("shuffle", ["global", "windowed"])
def test_ranks_and_resumes_replay_the_same(view: View, backend: str, shuffle: str) -> None:
    train = {**recipe().train.model_dump(exclude_unset=True)}
    wanted = recipe(train={**train, "backend": backend, "shuffle": shuffle, "window": 40})
    labels = label_views(view, wanted, device="cpu")
    how = {"shuffle": shuffle, "window": 40}
    alone = some(loader_of(view, labels, **how), 5)
    ranks = [some(loader_of(view, labels, rank=r, world_size=2, **how), 5) for r in (0, 1)]
    for step, whole in enumerate(alone):
        images, targets, ids = together([rank[step] for rank in ranks])
        assert torch.equal(images, whole.images)
        assert torch.equal(targets, whole.targets)
        assert torch.equal(ids, whole.sample_ids)
    first = loader_of(view, labels, **how)
    some(first, 2)
    later = loader_of(view, labels, **how)
    later.load_state_dict(first.state_dict())
    for before, after in zip(alone[2:], some(later, 3), strict=True):
        assert torch.equal(before.targets, after.targets)


def test_more_epochs_go_on_from_those_that_are_labeled(view: View) -> None:
    few = label_views(view, recipe(), device="cpu")
    version = view.store.table("view_labels").version()
    again = label_views(view, recipe(), device="cpu")
    all_of_them = label_views(
        view, recipe(label={"views": True, "view_epochs": 9}), device="cpu"
    )
    table = view.store.table("view_labels")
    draws = table.read(columns=["draw"])["draw"].to_pylist()

    assert again.label_set == few.label_set == all_of_them.label_set
    assert all_of_them.num_draws == 6 * 8  # the training has no more steps
    assert (table.version(), len(table.shards())) == (version + 1, 2)
    assert sorted(draws) == list(range(48))
    assert few.identity != all_of_them.identity
    assert torch.equal(
        some(loader_of(view, few), 4)[3].targets,
        some(loader_of(view, few, labels=None), 4)[3].targets,
    )
    assert verify(view.store) == []


class KilledError(Exception):
    """Of this test."""


def files(store: Store) -> list[str]:
    return sorted(shard.path for shard in store.table("view_labels").shards())


def test_a_labeling_that_was_stopped_ends_with_the_same_files(
    view: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "DRAWS_OF_A_FILE", 10)  # no step ends where a file does
    shutil.copytree(view.store.root, tmp_path / "twin")
    twin = open_view(plstore.open(tmp_path / "twin"), "all")
    everything = recipe(label={"views": True, "view_epochs": 9})
    seen: list[int] = []

    def stop(event: object) -> None:
        seen.append(getattr(event, "count", 0))
        if sum(seen) >= 24:
            raise KilledError

    with pytest.raises(KilledError):
        label_views(view, everything, device="cpu", on_event=stop)
    half = files(view.store)
    labels = label_views(view, everything, device="cpu")
    label_views(twin, everything, device="cpu")

    assert len(half) == 2
    assert set(half) < set(files(view.store))
    assert files(view.store) == files(twin.store)  # a name ends in the hash of its bytes
    assert len(files(twin.store)) == 5
    draws = twin.store.table("view_labels").read(columns=["draw"])["draw"].to_pylist()
    assert sorted(draws) == list(range(labels.num_draws)) == list(range(48))
    assert sum(b.not_replayed for b in some(loader_of(view, labels), 6)) == 0


def test_a_label_of_a_thousand_classes_takes_62_bytes_at_most() -> None:
    """Figures of others: 42 to 73 bytes a view (see `plstore.labels.view_labels`)."""
    num_rows = 8_192
    ids = np.random.default_rng(0).permutation(num_rows)
    codec = Codec(name=recipe().label.codec, k=recipe().label.topk)
    rows = kept.view_label_rows(0, ids, simulate(num_rows, 1_000), codec)

    size = len(parquet_bytes(rows, TABLES["view_labels"], "compact"))

    assert size / num_rows <= 62
    assert len(rows["label"][0]["class_ids"]) == 20


def test_other_draws_are_refused(view: View) -> None:
    labels = label_views(view, recipe(), device="cpu")
    other = "threads" if labels.label_set.backend != "threads" else "torch"
    for changes, word in (
        ({"seed": 1}, "seed"),
        ({"pseudo_batch": 4}, "plan"),
        ({"backend": other}, "backend"),
    ):
        with pytest.raises(InputError, match=f"the labels are of {word}"):
            loader_of(view, labels, **changes)
    state = loader_of(view, labels).state_dict()
    with pytest.raises(InputError, match="the state is of labels"):
        loader_of(view, labels, labels=None).load_state_dict(state)
    with pytest.raises(InputError, match=r"has no labels by 'mine' of draws 24 to 32"):
        kept.open_view_labels(view.store, labels.label_set, 32)


def test_a_deleted_image_has_no_label_and_the_rest_is_as_before(view: View) -> None:
    labels = label_views(view, recipe(), device="cpu")
    rows = view.store.table("view_labels").read().sort_by("draw").to_pylist()
    gone = rows[3]["sample_id"]
    before = sum(row["sample_id"] == gone for row in rows)
    targets = np.zeros((24, 3), np.float32)
    ids = np.array([row["sample_id"] for row in rows], np.int64)
    assert labels.fill(0, ids, targets) == 0
    plstore.erase(view.store, [gone], reason="asked for", who="ann")
    left = kept.open_view_labels(view.store, labels.label_set, 24)
    after = np.zeros((24, 3), np.float32)

    assert left.fill(0, ids, after) == before
    assert not after[ids == gone].any()
    assert np.array_equal(after[ids != gone], targets[ids != gone])
    assert gone not in view.store.table("view_labels").read()["sample_id"].to_pylist()
    assert verify(view.store) == []
    batches = some(loader_of(view, left), 3)
    assert sum(batch.not_replayed for batch in batches) > 0
    anew = label_views(view, recipe(), device="cpu")
    assert anew.label_set.files != labels.label_set.files
    assert sum(batch.not_replayed for batch in some(loader_of(view, anew), 3)) == 0


def test_a_replaced_image_has_its_clean_label(view: View) -> None:
    labels = label_views(view, recipe(), device="cpu")
    batch = some(loader_of(view, labels), 1)[0]
    ids = batch.sample_ids[4:].numpy().copy()
    ids[2] = ids[3]
    targets = np.full((8, 3), 0.5, np.float32)

    assert labels.fill(0, ids, targets) == 1
    assert (targets[2] == 0.5).all()
    assert torch.equal(torch.from_numpy(targets)[3:], batch.targets[7:])


def test_a_run_on_labels_of_views_trains_another_student(store: Store) -> None:
    clean = recipe(label={})
    before = {step.name: step.key for step in open_run(clean, store, device="cpu").steps}
    found = plstore.run(recipe(), store, device="cpu")
    plain = plstore.run(clean, store, device="cpu")
    after = {step.name: step.key for step in open_run(recipe(), store, device="cpu").steps}
    student, other = found["students"][0], plain["students"][0]
    weights = [
        find_teacher(store, s["teacher_id"]).checkpoint_hash  # type: ignore[union-attr]
        for s in (student, other)
    ]

    assert list(after) == [*list(before)[:-2], "label-views-1", "train-1", "evaluate-1"]
    assert {name for name in before if before[name] != after[name]} == {"train-1", "evaluate-1"}
    assert weights[0] != weights[1]
    assert student["labeled_views"] == 24
    assert "labeled_views" not in other
    assert plain["recipe_hash"] != found["recipe_hash"]
    assert verify(store) == []


def test_one_model_is_trained_on_labels_of_views(view: View) -> None:
    trained = train_on_view(view, recipe(), device="cpu")
    plain = train_on_view(view, recipe(label={}), device="cpu")

    assert trained.checkpoint_hash != plain.checkpoint_hash
    assert len(files(view.store)) == 1


def test_a_training_that_was_stopped_ends_with_the_same_weights(
    view: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_module, "_CHECKPOINT_SECONDS", 0.0)
    labels = label_views(view, recipe(), device="cpu")
    begun = replace(training_of(view), labels=labels, seed=labels.label_set.seed)

    def stop(done: int, _: float) -> None:
        if done == 3:
            raise KilledError

    whole = train(begun, tmp_path / "whole", lambda *_: None)
    with pytest.raises(KilledError):
        train(begun, tmp_path / "part", stop)
    with pytest.raises(PlstoreError, match="or the labels of its views, changed"):
        train(replace(begun, labels=None), tmp_path / "part", lambda *_: None)
    resumed = train(begun, tmp_path / "part", lambda *_: None)
    ours, theirs = whole.network.state_dict(), resumed.network.state_dict()

    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"label": {"views": True, "view_epochs": 0}}, "label.view_epochs: found 0"),
        ({"label": {"views": "often"}}, "label.views: found 'often'"),
        (
            {"method": {"students": "probe"}, "model": {**MODEL, "weights": "x.safetensors"}},
            "label.views is of images with noise",
        ),
    ],
)
def test_bad_values_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        recipe(**changes)


def test_a_teacher_without_a_model_is_refused(store: Store, tmp_path: Path) -> None:
    np.save(tmp_path / "probs.npy", np.full((60, 3), 1 / 3, np.float32))
    np.save(tmp_path / "ids.npy", np.arange(12, 72))
    plstore.import_predictions(
        store, tmp_path / "probs.npy", ids=tmp_path / "ids.npy", teacher_id="clip"
    )
    selection = plstore.Selection(
        view="all", teachers=["clip"], balance=plstore.Balance(min_confidence=0.0)
    )
    view = plstore.select(store, selection)
    several = {**MODEL, "also": [{"architecture": "test_resnet"}]}

    with pytest.raises(InputError, match="'clip' gives labels and no model"):
        plstore.run(recipe(teacher="clip"), store, device="cpu")
    with pytest.raises(InputError, match="several first teachers"):
        plstore.run(recipe(model=several), store, device="cpu")
    with pytest.raises(InputError, match=r"'clip' .* has labels and no model"):
        label_views(view, recipe(), device="cpu")
    with pytest.raises(InputError, match="has no teacher 'gone'"):
        label_views(view, recipe(), teacher_id="gone", device="cpu")


def test_a_teacher_of_gray_images_cannot_look_at_colours(view: View, tmp_path: Path) -> None:
    bring(view.store, "gray", tmp_path, channels=1)
    bring(view.store, "large", tmp_path, resolution=32, interpolation="bicubic")
    gray = {"model": {**MODEL, "channels": 1}}

    with pytest.raises(InputError, match="'gray' sees gray images"):
        label_views(view, recipe(), teacher_id="gray", device="cpu")
    labels = label_views(view, recipe(**gray), teacher_id="large", device="cpu")
    rows = view.store.table("view_labels").read()
    probs = decode(rows["label"].combine_chunks(), 3)

    assert labels.num_draws == rows.num_rows == 24
    assert np.isfinite(probs).all()
    assert len(np.unique(probs, axis=0)) > 12
