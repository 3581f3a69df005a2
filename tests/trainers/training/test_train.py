from dataclasses import replace
from pathlib import Path

import pytest
import torch

from plstore.errors import PlstoreError
from plstore.loaders import open_split
from plstore.seeds import Purpose, torch_seed
from plstore.selection import Balance, Selection, select
from plstore.store import Store
from plstore.upkeep import erase
from tests.conftest import give_labels
from trainers.models.lora import with_lora, without_lora
from trainers.models.model import build_model
from trainers.recipe import Recipe, check_recipe
from trainers.training import train as train_module
from trainers.training.losses import combined_cross_entropy
from trainers.training.train import Trained, Training, train
from trainers.training.watching import VALIDATION, Watch

STEPS = 8


def recipe(learning_rate: float = 1e-3, **train_values: object) -> Recipe:
    values = {
        "name": "tiny",
        "model": {"architecture": "test_resnet", "resolution": 16, "dropout": 0.2},
        "train": {
            "steps": STEPS,
            "labeled_batch": 4,
            "threads": 1,
            **train_values,
        },
        "optimizer": {"learning_rate": learning_rate},
        "schedule": {"warmup_steps": 2},
    }
    return check_recipe(values, "test")


def training(store: Store, seed: int = 0, **train_values: object) -> Training:
    give_labels(store)
    balance = Balance(min_confidence=0.3, images_per_class=10, seed=0)
    selection = Selection(view="v", teachers=["t0@1"], balance=balance)
    asked = recipe(**train_values)  # type: ignore[arg-type]  # what a test sets
    return Training(
        recipe=asked,
        run=asked,
        model=asked.model,
        view=select(store, selection, identity="v"),
        num_classes=3,
        labeled_batch=4,
        pseudo_batch=12,
        seed=seed,
        device="cpu",
    )


def weights(trained: Trained) -> dict[str, torch.Tensor]:
    return dict(trained.network.state_dict())


def same(a: Trained, b: Trained) -> bool:
    return all(
        torch.equal(x, y) for x, y in zip(weights(a).values(), weights(b).values(), strict=True)
    )


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(
    store: Store, tmp_path: Path
) -> None:
    first = train(training(store), tmp_path / "a", lambda *_: None)
    second = train(training(store), tmp_path / "b", lambda *_: None)
    other = train(training(store, seed=1), tmp_path / "c", lambda *_: None)

    assert same(first, second)
    assert not same(first, other)


@pytest.mark.parametrize("stop_at", [1, 5, STEPS - 1])
def test_a_stopped_training_goes_on_to_the_same_bits(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    monkeypatch.setattr(train_module, "_CHECKPOINT_SECONDS", 0.0)
    whole = train(training(store), tmp_path / "whole", lambda *_: None)

    def stop(done: int, _: float) -> None:
        if done == stop_at:
            raise KeyboardInterrupt

    started: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        train(training(store), tmp_path / "part", stop)
    resumed = train(training(store), tmp_path / "part", lambda done, _: started.append(done))

    assert started[0] == stop_at - 1
    assert same(whole, resumed)
    assert whole.metrics == resumed.metrics


def test_the_average_follows_the_steps_of_its_training(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_module, "_CHECKPOINT_SECONDS", 0.0)
    begun = training(store, steps=4, ema_decay=0.9)
    torch.manual_seed(torch_seed(begun.seed, Purpose.MODEL_INIT))
    fresh = build_model(begun.recipe.model, begun.model.architecture, begun.num_classes)
    expected = {name: value.clone() for name, value in fresh.state_dict().items()}
    partial, checked = tmp_path / "part", []

    def follow(_: int, __: float) -> None:
        if not partial.is_file():
            return
        state = torch.load(partial, weights_only=True)
        step = state["step"] - 1
        if step in checked:
            return
        checked.append(step)
        decay = min(0.9, (1 + step) / (10 + step))
        for name, value in state["network"].items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value
                found = state["ema"][f"module.{name}"]
                torch.testing.assert_close(found, expected[name], rtol=1e-4, atol=1e-6)

    train(begun, partial, follow)

    assert checked == [0, 1, 2]


def test_a_partial_training_that_cannot_be_read_says_what_to_do(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / "part").write_bytes(b"PK\x03\x04cut off")
    with pytest.raises(PlstoreError, match=r"part, of a training that was stopped.*Delete it"):
        train(training(store), tmp_path / "part", lambda *_: None)


def test_a_training_does_not_go_on_with_other_images(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_module, "_CHECKPOINT_SECONDS", 0.0)

    def stop(done: int, _: float) -> None:
        if done == 5:
            raise KeyboardInterrupt

    begun = training(store)
    with pytest.raises(KeyboardInterrupt):
        train(begun, tmp_path / "part", stop)
    (batch, *_) = begun.view.batches()
    erase(store, [batch["sample_id"][0].as_py()], reason="asked for")
    with pytest.raises(PlstoreError, match=r"changed since .*part was written"):
        train(begun, tmp_path / "part", lambda *_: None)


def test_damaged_images_are_counted_among_the_metrics(store: Store, tmp_path: Path) -> None:
    whole = train(training(store), tmp_path / "whole", lambda *_: None)
    (path,) = Path(store.cache_folder()).glob("view-*.arrow")
    data = bytearray(path.read_bytes())
    for batch in training(store).view.batches():
        for row in batch.to_pylist()[:6]:
            data[data.index(row["image"]) + 40] ^= 0xFF
    path.unlink()  # it may be mapped
    path.write_bytes(data)
    trained = train(training(store), tmp_path / "damaged", lambda *_: None)

    assert whole.num_replaced == 0
    assert trained.num_replaced > 0
    assert trained.summary["input/replaced_images"] == trained.num_replaced
    assert trained.summary["input/backend"] == "threads"
    assert not same(whole, trained)


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_harmed(
    store: Store, tmp_path: Path
) -> None:
    with pytest.raises(PlstoreError, match=r"lower optimizer\.learning_rate"):
        train(training(store, learning_rate=1e30), tmp_path / "x", lambda *_: None)


def test_the_loss_is_the_mean_over_labeled_and_pseudo_labeled_images() -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, 3)
    targets = torch.softmax(torch.randn(5, 3), dim=1)
    expected = -(targets * torch.log_softmax(logits, dim=1)).sum(dim=1).mean()
    loss = combined_cross_entropy(logits, targets, num_labeled=2, label_smoothing=0.0)

    torch.testing.assert_close(loss, expected)


def test_only_hard_labels_are_smoothed() -> None:
    logits = torch.randn(4, 3)
    targets = torch.eye(3)[[0, 1, 2, 0]]
    smoothed = combined_cross_entropy(logits, targets, num_labeled=4, label_smoothing=0.1)
    half = combined_cross_entropy(logits, targets, num_labeled=0, label_smoothing=0.1)
    library = torch.nn.functional.cross_entropy(
        logits, targets.argmax(dim=1), label_smoothing=0.1
    )

    torch.testing.assert_close(smoothed, library)
    torch.testing.assert_close(half, torch.nn.functional.cross_entropy(logits, targets))


def test_weights_divide_by_the_number_of_images_and_not_by_their_sum() -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, 3)
    targets = torch.softmax(torch.randn(5, 3), dim=1)
    weights = torch.tensor([1, 1, 0.5, 0.25, 0.125])
    each = -(targets * torch.log_softmax(logits, dim=1)).sum(dim=1)
    pseudo = (0.5 * each[2] + 0.25 * each[3] + 0.125 * each[4]) / 3
    expected = (2 * each[:2].mean() + 3 * pseudo) / 5
    loss = combined_cross_entropy(
        logits, targets, num_labeled=2, label_smoothing=0.0, weights=weights
    )

    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_weights_of_1_leave_loss_and_gradient_bit_for_bit(label_smoothing: float) -> None:
    torch.manual_seed(0)
    targets = torch.softmax(torch.randn(192, 10), dim=1)
    start = torch.randn(192, 10)
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    for weights in (None, torch.ones(192)):
        logits = start.clone().requires_grad_()
        loss = combined_cross_entropy(
            logits,
            targets,
            num_labeled=48,
            label_smoothing=label_smoothing,
            weights=weights,
        )
        (gradient,) = torch.autograd.grad(loss, logits)
        found.append((loss.detach(), gradient))

    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


WEIGHTED = """-- Everything.
--
-- grain: one row per (sample_id)
-- param teacher_id varchar: the teacher
-- column sample_id bigint: the image
select sample_id, class_id, confidence, 'kept' as outcome, 1 as copies, {weight} as weight
from soft_labels where teacher_id = $teacher_id
"""


def test_a_student_learns_less_from_what_weighs_less(store: Store, tmp_path: Path) -> None:
    give_labels(store)
    losses: dict[str, float] = {}
    for weight in ("1", "0.01"):
        own = tmp_path / "own.sql"
        own.write_text(WEIGHTED.format(weight=weight))
        chosen = Selection(view=f"w{len(losses)}", teachers=["t0@1"], query=str(own))
        seen: list[float] = []

        def note(_: int, loss: float, seen: list[float] = seen) -> None:
            seen.append(loss)

        begun = replace(training(store), view=select(store, chosen))
        train(begun, tmp_path / weight, note)
        losses[weight] = seen[1]

    assert losses["0.01"] < 0.5 * losses["1"]


def test_validation_is_looked_at_and_changes_no_weight(store: Store, tmp_path: Path) -> None:
    asked = training(store)
    watch = Watch(images=open_split(store, "validation"), looks=3)
    looks: list[int] = []

    blind = train(asked, tmp_path / "a.pt", lambda *_: None)
    watched = train(
        replace(asked, watch=watch),
        tmp_path / "b.pt",
        lambda *_: None,
        lambda step, _: looks.append(step),
    )

    steps = asked.course.steps
    assert looks == [n for n in range(1, steps + 1) if n % max(steps // 3, 1) == 0]
    assert all(value.equal(weights(blind)[name]) for name, value in weights(watched).items())
    assert len([1 for _, name, _ in watched.metrics if name == VALIDATION]) == len(looks)


def test_a_training_that_gains_no_more_ends(store: Store) -> None:
    watch = Watch(images=open_split(store, "validation"), looks=5, patience=2)

    def stopped(*values: float) -> bool:
        return watch.has_stopped_gaining([(n, VALIDATION, v) for n, v in enumerate(values)])

    assert not stopped(50, 40)
    assert not stopped(50, 40, 51)
    assert stopped(50, 40, 50)
    assert not stopped(40, 50, 50, 51)


def test_low_rank_updates_end_in_a_plain_model(store: Store, tmp_path: Path) -> None:
    asked = replace(training(store), lora_rank=2)

    trained = train(asked, tmp_path / "a.pt", lambda *_: None)
    again = train(asked, tmp_path / "b.pt", lambda *_: None)

    fresh = build_model(asked.model, "test_resnet", 3)
    assert weights(trained).keys() == fresh.state_dict().keys()
    assert all(value.equal(weights(again)[name]) for name, value in weights(trained).items())


def test_low_rank_updates_have_their_rank(store: Store) -> None:
    asked = training(store)
    torch.manual_seed(0)
    network = build_model(asked.model, "test_resnet", 3)
    before = {name: value.clone() for name, value in network.state_dict().items()}

    updated = with_lora(network, 2)
    trainable = {name for name, value in updated.named_parameters() if value.requires_grad}
    for name, value in updated.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(value)
    merged = without_lora(updated).state_dict()

    assert trainable
    assert all("lora_" in name or "fc" in name for name in trainable)
    change = (merged["layer2.0.conv1.weight"] - before["layer2.0.conv1.weight"]).flatten(1)
    assert 1 <= torch.linalg.matrix_rank(change, rtol=1e-3) <= 2
