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
from trainers import train as train_module
from trainers.lora import with_lora, without_lora
from trainers.losses import combined_cross_entropy
from trainers.model import build_model
from trainers.recipe import Recipe, check_recipe
from trainers.train import Trained, Training, train
from trainers.watching import VALIDATION, Watch

STEPS = 8


def recipe(**train_values: object) -> Recipe:
    values = {
        "name": "tiny",
        "model": {"teacher": "test_resnet", "resolution": 16, "dropout": 0.2},
        "train": {
            "steps": STEPS,
            "warmup_steps": 2,
            "labeled_batch": 4,
            "threads": 1,
            **train_values,
        },
    }
    return check_recipe(values, "test")


def training(store: Store, seed: int = 0, **train_values: object) -> Training:
    give_labels(store)
    balance = Balance(min_confidence=0.3, images_per_class=10, seed=0)
    selection = Selection(view="v", teachers=["t0@1"], balance=balance)
    asked = recipe(**train_values)
    return Training(
        recipe=asked,
        model=asked.model,
        architecture="test_resnet",
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
    fresh = build_model(begun.recipe.model, begun.architecture, begun.num_classes)
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
    with pytest.raises(PlstoreError, match=r"lower train\.learning_rate"):
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

    steps = asked.recipe.train.steps
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
