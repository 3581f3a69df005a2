"""A linear probe of any model: its accuracy is that of a regression on the same features."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import timm
import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import plstore
from plstore.embeddings import EmbeddingSet, embedding_sets, read_embeddings
from plstore.errors import InputError
from plstore.images import import_images
from plstore.store import Store
from plstore.upkeep import correct, exclude
from tests.cli.shell import shell
from tests.conftest import CLASS_NAMES, make_records
from tests.trainers.exported import give_model
from trainers.evaluation.intervals import wilson
from trainers.evaluation.probe import probe
from trainers.exporting import export_model


def labels(store: Store, split: str) -> npt.NDArray[np.int64]:
    sql = f"select label from images where split = '{split}' order by sample_id"  # noqa: S608
    return np.asarray(plstore.run_sql(store, sql)["label"].to_numpy())


def vectors(store: Store, model: str, split: str) -> npt.NDArray[np.float32]:
    (batch,) = read_embeddings(store, EmbeddingSet(model=model, split=split))
    return batch.vectors


def test_it_is_the_regression_that_scikit_learn_finds(store: Store) -> None:
    give_model(store)
    found = probe(store, "t0", device="cpu")
    scaler = StandardScaler().fit(vectors(store, "t0-16", "labeled"))
    theirs = LogisticRegression(C=found.strength, max_iter=1000, tol=1e-8)
    theirs.fit(scaler.transform(vectors(store, "t0-16", "labeled")), labels(store, "labeled"))
    tested = scaler.transform(vectors(store, "t0-16", "test"))
    rows = plstore.run_sql(store, "select run, name, value from runs order by name").to_pylist()

    assert found.accuracy == pytest.approx(100 * theirs.score(tested, labels(store, "test")))
    assert found.interval == wilson(round(found.accuracy * 6 / 100), 6)
    assert (found.num_train, found.num_validation, found.num_test) == (12, 6, 6)
    assert found.chosen_by == "both"
    assert rows == [
        {"run": "t0", "name": "probe/labeled/test/accuracy", "value": found.accuracy},
        {"run": "t0", "name": "probe/labeled/test/strength", "value": found.strength},
    ]


def test_asked_again_it_says_the_same_and_adds_nothing(store: Store) -> None:
    give_model(store)
    first = probe(store, "t0", device="cpu")
    version = store.table("runs").version()

    assert probe(store, "t0", device="cpu") == first
    assert store.table("runs").version() == version


def test_a_folder_that_was_exported_is_the_teacher(store: Store, tmp_path: Path) -> None:
    give_model(store)
    done = export_model(store, "t0", tmp_path / "out")
    inside, outside = (probe(store, m, device="cpu") for m in ("t0", str(done.folder)))

    assert outside.accuracy == inside.accuracy
    assert outside.strength == inside.strength
    assert outside.model != inside.model
    assert outside.model in {of.model for of in embedding_sets(store)}


def test_weights_from_elsewhere_are_probed(store: Store, tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "test_resnet.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), weights)
    found = probe(store, str(weights), test="validation", device="cpu")

    assert found.model.startswith("test_resnet-")
    assert (found.num_test, found.num_validation, found.chosen_by) == (6, 0, "folds")


def test_what_people_decided_and_held_out_bytes_are_honoured(store: Store) -> None:
    give_model(store)
    records = [r for r in make_records() if r.split == "labeled"][:3]
    tested = next(r for r in make_records() if r.split == "test")
    again = [
        type(r)(key=f"again/{r.key}", split="labeled", data=d, label=r.label)
        for r, d in zip(records, [tested.data, records[1].data, records[2].data], strict=True)
    ]
    import_images(store, again, dataset="copies", class_names=CLASS_NAMES)
    exclude(store, [0, 1], reason="blurred", who="ann")
    found = probe(store, "t0", device="cpu")
    own = probe(store, "t0", train="pets/labeled", device="cpu")

    assert found.num_train + sum(found.dropped.values()) == store.count_images("labeled")
    assert found.dropped["excluded"] == own.dropped["excluded"] == 2
    assert found.dropped["held_out"] == 1
    assert (own.num_train, own.num_validation) == (10, 6)
    by_class = []
    for name in CLASS_NAMES:
        correct(store, dict.fromkeys(range(78, 84), name), who="ann")
        by_class.append(probe(store, "t0", device="cpu").accuracy)
    assert sum(by_class) == pytest.approx(100)  # each image is seen as one class


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("t9",), r"'t9' is no teacher .* \(those with a model are t0\), no file or folder"),
        (("t0", "--train", "unlabeled"), "'unlabeled'; wanted labeled, validation, test, or"),
        (("t0", "--train", "test"), "6 images are both in 'test', to be fitted, and in 'test'"),
        (("t0", "--train", "cars/labeled"), "has no dataset 'cars'; it has pets"),
    ],
)
def test_what_cannot_be_probed_is_told(
    store: Store, words: tuple[str, ...], message: str
) -> None:
    give_model(store)
    done = shell("probe", *words, "--store", store.root, "--device", "cpu")

    assert done.returncode == 2
    with pytest.raises(InputError, match=message):
        raise InputError(done.stderr)


def test_the_command_prints_accuracy_interval_and_strength(store: Store) -> None:
    give_model(store)
    words = ("--store", store.root, "--device", "cpu", "--format", "json")
    done = shell("probe", "t0", "--train", "pets/labeled", "--test", "test", *words)
    (row,) = json.loads(done.stdout)
    found = probe(store, "t0", train="pets/labeled", device="cpu")

    assert row["accuracy"] == round(found.accuracy, 4)
    assert (row["low"], row["high"]) == tuple(round(end, 4) for end in found.interval)
    assert (row["C"], row["chosen by"]) == (found.strength, "both")
