"""Labeling with a model that someone brings; calibration against the literature's formula."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from plstore.codec import Codec, decode
from plstore.errors import InputError
from plstore.images import ImageRecord, import_images
from plstore.labels import LabelBatch, LabelSet, commit_labels, find_teacher, write_labels
from plstore.loaders import open_split
from plstore.store import Store
from tests.conftest import CLASS_NAMES, encode
from tests.trainers.given import record_backends
from trainers.evaluation.calibration import calibrate
from trainers.inference.clean import probabilities
from trainers.labeling.label import Labeling, count_missing, label_missing
from trainers.models.bringing import bring_teacher
from trainers.models.model import (
    build_model,
    image_format,
    load_bundle,
    load_teacher,
    save_bundle,
)
from trainers.sections import Model

MINE = Labeling(
    teacher_id="mine",
    iteration=1,
    splits=("unlabeled", "validation"),
    codec=Codec(name="dense", k=2),
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    settings = Model(architecture="test_resnet", resolution=32, stochastic_depth=0)
    network = build_model(settings, "test_resnet", 3)
    save_bundle(tmp_path / "model", network, image_format(settings, network), CLASS_NAMES)
    return tmp_path / "model"


@pytest.fixture
def brought(store: Store, checkpoint: Path) -> Store:
    bring_teacher(store, "mine", str(checkpoint), device="cpu")
    return store


def labels_of(store: Store, split: str) -> tuple[list[int], np.ndarray]:
    table = store.table("soft_labels")
    shards = table.shards(partition={"teacher_id": "mine", "split": split})
    rows = table.dataset_of(shards).to_table().sort_by("sample_id")
    return rows["sample_id"].to_pylist(), decode(rows["label"].combine_chunks(), 3)


def test_a_model_that_is_brought_labels_as_it_does_alone(
    brought: Store, checkpoint: Path
) -> None:
    counts = label_missing(brought, MINE)
    ids, found = labels_of(brought, "unlabeled")
    images = open_split(brought, "unlabeled")
    bundle = load_bundle(checkpoint)
    alone = torch.cat([probs for _, probs in probabilities(bundle, images, device="cpu")])
    (teacher,) = brought.table("teachers").read().to_pylist()

    assert counts == {"unlabeled": 60, "validation": 6}
    assert ids == list(range(12, 72))
    assert np.abs(found - alone.numpy()).max() < 5e-3
    assert teacher["role"] == "imported"
    assert (brought.root / teacher["checkpoint"] / "model.safetensors").is_file()


def test_only_images_that_were_added_later_are_labeled(brought: Store) -> None:
    label_missing(brought, MINE)
    version = brought.table("soft_labels").version()
    random = np.random.default_rng(5)
    later = [
        ImageRecord(
            key=f"later-{n}.png",
            split="unlabeled",
            data=encode(random.integers(0, 256, (20, 20), dtype=np.uint8)),
        )
        for n in range(4)
    ]
    none_missing = label_missing(brought, MINE)
    import_images(brought, later, dataset="pets", class_names=CLASS_NAMES)
    missing = count_missing(brought, MINE)
    counts = label_missing(brought, MINE)
    ids, _ = labels_of(brought, "unlabeled")

    assert none_missing == {"unlabeled": 0, "validation": 0}
    assert missing == 4
    assert counts == {"unlabeled": 4, "validation": 0}
    assert ids == [*range(12, 72), *range(84, 88)]
    assert brought.table("soft_labels").version() == version + 1


def test_other_settings_are_not_mixed_into_a_label_set(brought: Store) -> None:
    label_missing(brought, MINE)
    with pytest.raises(InputError, match="Name another --iteration"):
        label_missing(brought, replace(MINE, temperature=2))
    again = label_missing(brought, replace(MINE, temperature=2, iteration=2))

    assert again == {"unlabeled": 60, "validation": 6}


def test_a_model_is_brought_once_and_named_once(brought: Store, checkpoint: Path) -> None:
    bring_teacher(brought, "mine", str(checkpoint), device="cpu")
    torch.manual_seed(1)
    settings = Model(architecture="test_resnet", resolution=32, stochastic_depth=0)
    network = build_model(settings, "test_resnet", 3)
    save_bundle(checkpoint, network, image_format(settings, network), CLASS_NAMES)

    assert brought.table("teachers").dataset().count_rows() == 1
    with pytest.raises(InputError, match="has another teacher named 'mine'"):
        bring_teacher(brought, "mine", str(checkpoint), device="cpu")


def test_workers_share_the_ranges_of_ids(
    brought: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plstore.labels import writing
    from trainers.inference import missing

    for module in (writing, missing):
        monkeypatch.setattr(module, "SHARD_IDS", 16)
    parts = [label_missing(brought, replace(MINE, part=(n, 2))) for n in range(2)]
    ids, _ = labels_of(brought, "unlabeled")

    assert [part["unlabeled"] for part in parts] == [4 + 16 + 8, 16 + 16]
    assert ids == list(range(12, 72))


def test_a_model_of_other_classes_is_refused(store: Store, tmp_path: Path) -> None:
    settings = Model(architecture="test_resnet", resolution=32, stochastic_depth=0)
    network = build_model(settings, "test_resnet", 3)
    save_bundle(tmp_path / "m", network, image_format(settings, network), ("cat", "dog", "cow"))
    with pytest.raises(InputError, match="only the model has cow, only the store has owl"):
        bring_teacher(store, "mine", str(tmp_path / "m"), device="cpu")
    assert store.table("teachers").dataset().count_rows() == 0


def test_classes_in_another_order_are_matched_by_name(store: Store, tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = Model(architecture="test_resnet", resolution=32, stochastic_depth=0)
    network = build_model(settings, "test_resnet", 3)
    theirs = ("owl", "cat", "dog")
    with torch.no_grad():
        network.get_classifier().weight.mul_(100)  # type: ignore[operator]
    save_bundle(tmp_path / "m", network, image_format(settings, network), theirs)
    said: list[str] = []
    bring_teacher(store, "mine", str(tmp_path / "m"), device="cpu", say=said.append)
    label_missing(store, MINE)
    ids, found = labels_of(store, "unlabeled")
    images = open_split(store, "unlabeled")
    alone = load_bundle(tmp_path / "m")
    own = torch.cat([p for _, p in probabilities(alone, images, device="cpu")]).numpy()
    (teacher,) = store.table("teachers").read().to_pylist()
    kept = load_bundle(store.root / teacher["checkpoint"])

    assert np.ptp(own, axis=1).min() > 0.1
    for place, name in enumerate(CLASS_NAMES):
        assert np.abs(found[:, place] - own[:, theirs.index(name)]).max() < 5e-3
    assert ids == list(range(12, 72))
    assert kept.class_names == theirs
    assert "matched by name" in said[0]
    assert "matched by name" in teacher["metrics"]


def test_the_same_weights_with_other_classes_are_another_model(
    brought: Store, checkpoint: Path
) -> None:
    path = checkpoint / "config.json"
    path.write_text(path.read_text().replace('"cat"', '"x"').replace('"owl"', '"cat"'))
    path.write_text(path.read_text().replace('"x"', '"owl"'))

    with pytest.raises(InputError, match="has another teacher named 'mine'"):
        bring_teacher(brought, "mine", str(checkpoint), device="cpu")


def test_labels_come_through_the_backend_that_is_asked_for(
    brought: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = record_backends(monkeypatch)
    for iteration, backend in enumerate(("torch", "dali", "auto"), start=1):
        label_missing(brought, replace(MINE, backend=backend, iteration=iteration))  # type: ignore[arg-type]
    lineages = [commit.lineage for commit in brought.table("soft_labels").history()]
    named = {x["iteration"]: x["backend"] for x in lineages if "backend" in x}

    assert used == ["torch", "torch", "dali", "dali", "threads", "threads"]
    assert named == {1: "torch", 2: "dali", 3: "threads"}


def test_lineage_names_the_images_that_were_read(brought: Store) -> None:
    read = brought.table("images").version()

    def meanwhile(_: int) -> None:
        if brought.table("images").version() == read:
            pixels = np.zeros((9, 9), np.uint8)
            late = ImageRecord(key="late.png", split="unlabeled", data=encode(pixels))
            import_images(brought, [late], dataset="pets", class_names=CLASS_NAMES)

    label_missing(brought, replace(MINE, splits=("unlabeled",)), on_images=meanwhile)
    lineages = [commit.lineage for commit in brought.table("soft_labels").history()]
    named = [lineage["images_version"] for lineage in lineages if "images_version" in lineage]

    assert brought.table("images").version() == read + 1
    assert named == [read]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"temperature": 0}, "temperature is 0; wanted a number above 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"iteration": -1}, "iteration is -1; wanted a whole number of 0 or more"),
        ({"part": (2, 2)}, "part is 2; wanted a whole number from 0 to 1"),
        ({"part": (0, 0)}, "parts is 0; wanted a whole number of 1 or more"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        replace(MINE, **changes)


def test_a_teacher_that_is_not_there_is_named(store: Store) -> None:
    with pytest.raises(InputError, match="has no teacher 'mine' with a checkpoint"):
        label_missing(store, MINE)


def test_calibration_finds_the_temperature_that_was_put_in(tmp_path: Path) -> None:
    import plstore

    random = np.random.default_rng(0)
    logits = random.normal(size=(800, 3)) * 2
    truth = np.array(
        [random.choice(3, p=p) for p in torch.softmax(torch.tensor(logits), 1).numpy()]
    )
    too_sure = torch.softmax(torch.tensor(logits * 2.5), dim=1).numpy().astype(np.float32)
    store = plstore.create(tmp_path / "store")
    data = encode(np.zeros((4, 4), np.uint8))
    records = [
        ImageRecord(key=str(n), split="validation", data=data, label=CLASS_NAMES[c])
        for n, c in enumerate(truth)
    ]
    import_images(store, records, dataset="d", class_names=CLASS_NAMES)
    label_set = LabelSet(iteration=1, teacher_id="t", split="validation")
    batch = LabelBatch(sample_ids=np.arange(800), probabilities=too_sure)
    shards = write_labels(store, label_set, [batch], codec=Codec(), identity="t")
    commit_labels(store, shards, lineage={}, transaction="t")
    found = calibrate(store, "t", 1)
    nll = float(cross_entropy(torch.tensor(logits * 2.5), torch.tensor(truth)))
    kept = {row["name"]: row["value"] for row in store.table("runs").read().to_pylist()}

    assert found.temperature == pytest.approx(2.5, rel=0.1)
    assert found.nll_before == pytest.approx(nll, rel=1e-2)
    assert found.nll_after < found.nll_before
    assert found.ece_after < 0.06
    assert found.ece_before > 0.1
    assert kept["calibration/ece_after"] == found.ece_after
    with pytest.raises(InputError, match="'u' has no labels of the validation images"):
        calibrate(store, "u", 1)


def test_a_step_replaces_labels_that_it_did_not_make_range_by_range(
    brought: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plstore.labels import writing
    from trainers.inference import missing
    from trainers.labeling import label as labeling

    for module in (writing, missing):
        monkeypatch.setattr(module, "SHARD_IDS", 16)
    first = replace(MINE, identity="a", splits=["unlabeled"])
    label_missing(brought, first)
    _, before = labels_of(brought, "unlabeled")
    sharper = replace(first, identity="b", temperature=0.25)
    commit, calls = labeling.commit_ranges, []

    def stopped(*args: Any, **options: Any) -> int:  # noqa: ANN401  passed through
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return int(commit(*args, **options))

    monkeypatch.setattr(labeling, "commit_ranges", stopped)
    with pytest.raises(KeyboardInterrupt):
        label_missing(brought, sharper)
    half_ids, half = labels_of(brought, "unlabeled")
    counts = label_missing(brought, sharper)
    ids, after = labels_of(brought, "unlabeled")

    assert half_ids == ids == list(range(12, 72))  # each once
    assert np.allclose(half[20:], before[20:])  # 12 to 31 were done
    assert not np.allclose(after[20:], before[20:])
    assert counts == {"unlabeled": 40}  # the other ranges are not labeled again


def test_ranges_that_workers_wrote_are_one_commit(
    brought: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plstore.labels import writing
    from trainers.inference import missing
    from trainers.labeling import label as labeling

    for module in (writing, missing):
        monkeypatch.setattr(module, "SHARD_IDS", 16)
    label_missing(brought, replace(MINE, splits=["unlabeled"]))
    _, alone = labels_of(brought, "unlabeled")
    version = brought.table("soft_labels").version()
    mine = replace(MINE, identity="b", splits=["unlabeled"])
    teacher = find_teacher(brought, "mine")
    assert teacher is not None
    bundle = load_teacher(brought, teacher, device="cpu")
    ranges = list(labeling.missing_labels(brought, mine, "unlabeled"))
    written = [(r, labeling.label_range(brought, bundle, mine, r)) for r in reversed(ranges)]
    again = [(r, labeling.label_range(brought, bundle, mine, r)) for r in reversed(ranges)]
    labeling.commit_ranges(brought, teacher, mine, written)
    ids, found = labels_of(brought, "unlabeled")

    assert len(ranges) == 5
    assert written == again  # the same ids give the same files
    assert brought.table("soft_labels").version() == version + 1
    assert ids == list(range(12, 72))
    assert np.array_equal(found, alone)
