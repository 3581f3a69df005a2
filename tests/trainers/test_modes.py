"""Modes of training in a whole run: pretrain and finetune, warm starts, parts of the pool."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from plstore.errors import InputError, PlstoreError
from plstore.labels import find_teacher, list_teachers
from plstore.store import Store
from plstore.upkeep import exclude, verify
from plstore.views import open_view
from tests.trainers.test_run import MODEL, TRAIN, recipe
from trainers.events import Event, Note
from trainers.features.embedding import Embedding
from trainers.loop import open_run, run
from trainers.models.model import fetch_bundle, load_teacher
from trainers.on_view import train_on_view
from trainers.recipe import load_recipe
from trainers.training.losses import combined_cross_entropy, pseudo_targets
from trainers.training.optimisation import Course
from trainers.training.state import State

WARM = {"method": {"students": "warm"}, "optimizer": {"learning_rate": 1e-9}}


def weights(store: Store, teacher_id: str) -> dict[str, torch.Tensor]:
    teacher = find_teacher(store, teacher_id)
    assert teacher is not None
    folder = fetch_bundle(store, str(teacher.checkpoint), str(teacher.checkpoint_hash))
    return load_file(folder / "model.safetensors")


def test_pretraining_and_finetuning_are_two_models_of_which_the_last_counts(
    store: Store,
) -> None:
    asked = recipe(
        iterations=2,
        control=True,
        train={**TRAIN, "images": "pseudo"},
        finetune={"steps": 2, "resolution": 24, "frozen_blocks": 1},
    )
    result = run(asked, store, device="cpu")
    student = result["students"][0]
    last = find_teacher(store, student["teacher_id"])
    names = [step.name for step in open_run(asked, store, device="cpu").steps]

    assert last is not None
    assert student["teacher_id"].endswith("-finetuned")
    assert load_teacher(store, last, device="cpu").format.size == 24
    assert result["students"][1]["taught_by"] == student["teacher_id"]
    assert result["control"]["teacher_id"].endswith("-finetuned")
    assert names[2:8] == [
        *("train-0", "finetune-0", "evaluate-0", "label-1", "select-1", "train-1"),
    ]
    before, after = (
        weights(store, student[key]) for key in ("before_finetuning", "teacher_id")
    )
    same = {name for name, value in before.items() if value.equal(after[name])}
    assert {"conv1.0.weight", "bn1.running_mean", "layer1.0.conv1.weight"} <= same
    assert "fc.weight" not in same


def test_a_warm_student_begins_with_the_weights_of_its_teacher(store: Store) -> None:
    result = run(recipe(control=True, **WARM), store, device="cpu")
    names = [result[k]["teacher_id"] for k in ("teacher", "control")]
    names.append(result["students"][0]["teacher_id"])
    teacher, control, student = (weights(store, name)["fc.weight"] for name in names)

    assert torch.allclose(teacher, student, atol=1e-6)
    assert not torch.allclose(teacher, control, atol=1e-3)
    assert result["students"][0]["how"] == "warm"
    assert result["control"]["how"] == "scratch"


def test_models_start_from_what_was_learnt_without_labels_and_the_control_at_random(
    store: Store,
) -> None:
    still = {"optimizer": {"learning_rate": 1e-9, "weight_decay": 0.0}}
    asked = recipe(iterations=2, control=True, pretrain={"steps": 3, "batch": 20}, **still)
    result = run(asked, store, device="cpu")
    before = result["pretrained"]
    started = [result["teacher"], *result["students"]]
    kept = weights(store, before["teacher_id"])
    models = [weights(store, model["teacher_id"]) for model in started]
    control = weights(store, result["control"]["teacher_id"])
    row = find_teacher(store, before["teacher_id"])
    steps = open_run(asked, store, device="cpu").steps

    assert "fc.weight" not in kept
    first = find_teacher(store, result["teacher"]["teacher_id"])
    assert first is not None
    assert (first.metrics or {})["started_from"] == before["teacher_id"]
    learnt = [name for name in kept if name.endswith("conv1.weight")]
    for name in learnt:
        assert all(torch.allclose(kept[name], each[name], atol=1e-6) for each in models)
        assert not torch.allclose(kept[name], control[name], atol=1e-3)
    assert [model["how"] for model in (*started, result["control"])] == [
        *(["finetune"] * 3),
        "scratch",
    ]
    assert row is not None
    assert (row.role, row.recipe_hash) == ("pretrained", asked.hash)
    assert [step.name for step in steps][2:4] == ["pretrain", "train-0"]
    assert verify(store) == []
    embed = Embedding(teacher=before["teacher_id"], splits=["test"], device="cpu")
    found = embed.backbone(store)
    assert found.format == load_teacher(store, list_teachers(store)[-1], device="cpu").format
    learnt_again = found.network.state_dict()
    assert all(torch.equal(learnt_again[name], value) for name, value in kept.items())
    with pytest.raises(InputError, match="has features and no classifier"):
        load_teacher(store, row, device="cpu")


def test_a_recipe_that_pretrains_nothing_is_the_same_recipe_as_before() -> None:
    assert load_recipe("fashion_mnist").hash == "bf5014e7e708eb77"  # of 0.6.0
    assert recipe().hash == recipe(pretrain={"batch": 32}).hash
    assert recipe().hash != recipe(pretrain={"steps": 3}).hash


def test_a_network_for_small_images_starts_from_its_own_pretraining(store: Store) -> None:
    model = {**MODEL, "architecture": "resnet10t", "small_images": True}
    result = run(recipe(model=model, pretrain={"steps": 1, "batch": 8}), store, device="cpu")

    assert result["teacher"]["how"] == "finetune"


def test_images_that_people_took_out_are_not_pretrained_on(store: Store) -> None:
    exclude(store, [20, 21, 22], reason="blurred", who="ann")
    heard: list[Event] = []
    asked = recipe(pretrain={"steps": 1, "batch": 8})
    result = run(asked, store, device="cpu", on_event=heard.append)
    exclude(store, [23], reason="blurred", who="ann")
    again = run(asked, store, device="cpu")

    said = [event.text for event in heard if isinstance(event, Note)]
    assert "  3 unlabeled images left out: excluded" in said
    assert result["pretrained"]["teacher_id"] != again["pretrained"]["teacher_id"]


@pytest.mark.parametrize("changes", [{}, {"learning_rate": 0.1, "per_images": 256}])
def test_settings_of_models_do_not_pretrain_again(
    store: Store, changes: dict[str, object]
) -> None:
    def key(**values: object) -> str:
        asked = recipe(pretrain={"steps": 3}, **values)
        steps = open_run(asked, store, device="cpu").steps
        return next(step.key for step in steps if step.name == "pretrain")

    assert key() == key(optimizer=changes, model={**MODEL, "dropout": 0.3})


def test_with_a_teacher_given_nothing_is_pretrained_that_no_model_starts_from(
    store: Store,
) -> None:
    first = run(recipe(), store, device="cpu")["teacher"]["teacher_id"]
    scratch = {"teacher": first, "method": {"students": "scratch"}, "pretrain": {"steps": 3}}
    started = {**scratch, "method": {}}
    names = [
        [step.name for step in open_run(recipe(**asked), store, device="cpu").steps]
        for asked in (scratch, started)
    ]

    assert ["pretrain" in each for each in names] == [False, True]


def test_a_view_alone_has_no_pretrained_network(store: Store) -> None:
    run(recipe(), store, device="cpu")
    view = open_view(store, "tiny-labeled")

    with pytest.raises(InputError, match="a view alone has no run"):
        train_on_view(view, recipe(pretrain={"steps": 3}), device="cpu")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": {**MODEL, "pretrained": True}}, "and the recipe names weights"),
        (
            {"model": {**MODEL, "also": [{"architecture": "test_vit"}]}},
            "model.also names more first teachers",
        ),
        (
            {"iteration": {"1": {"model": {"architecture": "resnet10t"}}}},
            r"iteration\.1\.model is another network",
        ),
        (
            {
                "iteration": {"0": {"model": {"architecture": "resnet10t"}}},
                "method": {"students": "scratch"},
            },
            r"iteration\.0\.model is another network .* method\.teacher to scratch",
        ),
        ({"method": {"teacher": "probe"}}, "method probe starts from weights"),
    ],
)
def test_what_cannot_be_pretrained_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(PlstoreError, match=message):
        recipe(pretrain={"steps": 3}, **values)


def test_a_warm_student_of_another_architecture_is_refused(store: Store) -> None:
    changed = {"1": {"model": {"architecture": "test_resnet", "channels": 1}}}

    with pytest.raises(InputError, match="has its teacher's architecture and resolution"):
        run(recipe(iteration=changed, **WARM), store, device="cpu")


def test_a_part_of_the_pool_is_named_by_sql(store: Store) -> None:
    where = "teacher.sample_id % 2 = 0"
    result = run(
        recipe(select={"min_confidence": 0.0, "policy": "none", "where": where}),
        store,
        device="cpu",
    )
    kept = open_view(store, "tiny-1")
    ids = [row["sample_id"] for b in kept.batches() for row in b.to_pylist()]
    pseudo = [n for n in ids if n % 2 == 0]

    assert result["students"][0]["images"] == 30
    assert len(pseudo) >= 30


def test_a_student_of_labels_alone_is_refused(store: Store) -> None:
    with pytest.raises(InputError, match=r"train\.ratio is 0 for student 1"):
        run(recipe(train={**TRAIN, "ratio": 0}), store, device="cpu")


def test_the_teacher_may_have_smaller_batches(store: Store) -> None:
    asked = recipe(iteration={"0": {"train": {"ratio": 0}}})
    opened = open_run(asked, store, device="cpu")
    first = next(step for step in opened.steps if step.name == "train-0")

    assert first.recipe(opened.context).train.ratio == 0
    assert run(asked, store, device="cpu")["students"][0]["images"] == 60


def test_a_models_folder_says_what_made_it(store: Store) -> None:
    asked = recipe()
    student = run(asked, store, device="cpu")["students"][0]
    folder = store.checkpoint(student["checkpoint"])
    said = json.loads((Path(folder) / "config.json").read_text())["provenance"]

    assert said["teacher_id"] == student["teacher_id"]
    assert said["recipe_hash"] == asked.hash
    assert said["view"] == "tiny-1@1"
    assert said["pins"]["images"] >= 1
    assert said["role"] == "student"


def labels_of(store: Store, teacher_id: str, split: str = "unlabeled") -> dict[int, float]:
    rows = store.table("soft_labels").read().to_pylist()
    here = [row for row in rows if (row["teacher_id"], row["split"]) == (teacher_id, split)]
    return {row["sample_id"]: row["confidence"] for row in here}


@pytest.mark.parametrize(
    "parts",
    [
        ["augment"],
        pytest.param(["dropout"], marks=pytest.mark.nightly),
        pytest.param(["crop", "stochastic_depth"], marks=pytest.mark.nightly),
    ],
)
def test_a_teacher_that_is_noised_says_something_else_of_the_pool(
    store: Store, parts: list[str]
) -> None:
    model = {**MODEL, "architecture": "resnet10t", "dropout": 0.5, "stochastic_depth": 0.5}
    optimizer = {"learning_rate": 0.01}
    clean = run(recipe(model=model, optimizer=optimizer), store, device="cpu")
    teacher = clean["teacher"]["teacher_id"]
    bare, seen = labels_of(store, teacher), labels_of(store, teacher, "validation")
    noised = recipe(model=model, optimizer=optimizer, noise={"teacher": parts})
    run(noised, store, device="cpu")
    found = labels_of(store, teacher)
    again = labels_of(store, teacher, "validation")

    assert set(found) == set(bare)
    assert sum(found[n] != bare[n] for n in bare) > len(bare) / 2
    assert again == seen


def test_a_smaller_student_is_told(store: Store) -> None:
    notes: list[Event] = []
    smaller = {"1": {"model": {"architecture": "test_vit", "resolution": 16}}}
    asked = recipe(model={**MODEL, "architecture": "resnet10t"}, iteration=smaller)
    run(asked, store, device="cpu", on_event=notes.append)

    said = " ".join(event.text for event in notes if isinstance(event, Note))
    assert "student 1 (test_vit, " in said
    assert "it is distilled" in said


def test_parts_of_a_step_add_up_to_the_whole(store: Store) -> None:
    """Without batch statistics a step in parts is the step."""
    whole = {"architecture": "test_vit", "resolution": 16}
    losses = []
    for parts in (1, 2):
        asked = recipe(
            model={**MODEL, **whole},
            train={**TRAIN, "labeled_batch": 4, "accumulate": parts},
            noise={"num_ops": 0},
        )
        found = run(asked, store, device="cpu")["teacher"]["teacher_id"]
        losses.append(weights(store, found)["head.weight"])

    assert torch.allclose(losses[0], losses[1], atol=1e-5)


def test_a_run_of_other_precision_is_another_one(store: Store) -> None:
    model = {**MODEL, "resolution": 32}
    found = []
    for precision in ("float32", "bfloat16"):
        asked = recipe(model=model, train={**TRAIN, "precision": precision})
        found.append(run(asked, store, device="cpu")["teacher"]["teacher_id"])
    whole, half = (weights(store, name)["conv1.0.weight"] for name in found)

    assert not torch.equal(whole, half)
    assert torch.allclose(whole, half, atol=2e-2)


@pytest.mark.nightly
def test_a_compiled_training_is_the_same_but_for_rounding(store: Store) -> None:
    found = []
    for compiled in (False, True):
        asked = recipe(train={**TRAIN, "compile": compiled})
        found.append(run(asked, store, device="cpu")["teacher"]["teacher_id"])
    plain, fast = (weights(store, name)["fc.weight"] for name in found)

    assert found[0] != found[1]
    assert torch.allclose(plain, fast, atol=1e-3)


@pytest.mark.nightly
def test_a_model_that_cannot_be_compiled_says_what_is_wanted(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from torch._inductor import config

    torch.compiler.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    asked = recipe(train={**TRAIN, "compile": True}, model={**MODEL, "resolution": 24})

    with (
        config.patch({"cpp.cxx": ("no-such-compiler",)}),
        pytest.raises(InputError, match=r"cannot be compiled for cpu: .*train\.compile"),
    ):
        run(asked, store, device="cpu")
    torch.compiler.reset()


def test_a_gradient_that_is_not_finite_harms_no_weight() -> None:
    network = torch.nn.Linear(2, 2)
    course = Course(steps=9, steps_per_epoch=1, warmup_steps=0)
    state = State(recipe(), course, network, "cpu")
    before = network.weight.detach().clone()
    state.begin()
    broken = network.weight.register_hook(lambda grad: grad * float("nan"))  # type: ignore[no-untyped-call]  # torch's is
    loss = network(torch.ones(1, 2)).sum()
    state.add(loss, loss, 1)
    broken.remove()

    with pytest.raises(PlstoreError, match="the gradient of weight is not finite at step 0"):
        state.end()
    assert torch.equal(network.weight, before)


def test_float16_is_for_gpus(store: Store) -> None:
    with pytest.raises(InputError, match="float16, which is for GPUs"):
        run(recipe(train={**TRAIN, "precision": "float16"}), store, device="cpu")


def test_how_the_two_parts_weigh() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 5, generator=generator)
    targets = torch.softmax(torch.randn(8, 5, generator=generator), dim=1)

    def mean(rows: slice) -> float:
        logs = torch.log_softmax(logits[rows], dim=1)
        return float(-(targets[rows] * logs).sum(dim=1).mean())

    labeled, pseudo = mean(slice(2)), mean(slice(2, 8))
    expected = {
        "mean": (2 * labeled + 6 * pseudo) / 8,
        "paper_code": labeled + 3 * pseudo,
        "equal": labeled + pseudo,
    }
    for weighting, value in expected.items():
        found = combined_cross_entropy(
            logits,
            targets,
            num_labeled=2,
            label_smoothing=0.0,
            weighting=weighting,  # type: ignore[arg-type]  # as a recipe has it
        )
        assert float(found) == pytest.approx(value, rel=1e-5)


def test_labels_are_sharpened_as_the_softmax_of_logits_would_be() -> None:
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    targets = torch.softmax(logits, dim=1)

    sharper = pseudo_targets(targets, num_labeled=1, temperature=0.5)
    hard = pseudo_targets(targets, num_labeled=1, hard=True)

    assert torch.allclose(sharper[1:], torch.softmax(logits[1:] / 0.5, dim=1), atol=1e-6)
    assert torch.equal(sharper[0], targets[0])
    assert torch.equal(hard[1:].argmax(1), logits[1:].argmax(1))
    assert torch.equal(hard[1:].sum(1), torch.ones(3))
    assert pseudo_targets(targets, num_labeled=1) is targets
