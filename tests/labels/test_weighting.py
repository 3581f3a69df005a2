"""Votes, and weights that validation images choose."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import plstore
from plstore.codec import decode
from plstore.errors import InputError
from plstore.images import ImageRecord, import_images
from plstore.labels import (
    LabelBatch,
    LabelSet,
    Member,
    Method,
    Validation,
    commit_labels,
    find_teacher,
    make_ensemble,
    read_validation,
    write_labels,
)
from plstore.labels.fusion import fuse
from plstore.store import Store
from plstore.upkeep import correct
from tests.cli.shell import shell
from tests.conftest import CLASS_NAMES, encode

Floats = npt.NDArray[np.float32]
METHODS: tuple[Method, ...] = ("arithmetic", "geometric", "votes")
NUM_IMAGES = 40


@pytest.fixture
def store(tmp_path: Path) -> Store:
    random = np.random.default_rng(0)
    records = [
        ImageRecord(
            key=f"{split}/{n}.png",
            split=split,
            data=encode(random.integers(0, 256, (4, 4, 3), dtype=np.uint8)),
            label=None if split == "unlabeled" else CLASS_NAMES[n % 3],
        )
        for split, count in (("labeled", 3), ("validation", NUM_IMAGES), ("unlabeled", 5))
        for n in range(count)
    ]
    made = plstore.create(tmp_path / "store")
    import_images(made, records, dataset="pets", class_names=CLASS_NAMES)
    return made


def images_of(store: Store, split: str) -> list[int]:
    rows = store.table("images").read(columns=["sample_id", "split"]).to_pylist()
    return sorted(row["sample_id"] for row in rows if row["split"] == split)


def label(
    store: Store, teacher_id: str, probs: Floats, split: str = "validation", first: int = 0
) -> None:
    ids = np.array(images_of(store, split), np.int64)[first : first + len(probs)]
    label_set = LabelSet(teacher_id=teacher_id, iteration=1, split=split)
    batch = LabelBatch(sample_ids=ids, probabilities=probs)
    shards = write_labels(
        store, label_set, [batch], codec=plstore.Codec(k=3), identity=f"{teacher_id}-{split}"
    )
    commit_labels(store, shards, lineage={}, transaction=f"{teacher_id}-{split}")


def opinions(seed: int, sharpness: float, skill: float) -> Floats:
    """What a teacher says of the validation images: surer with one, better with the other."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(NUM_IMAGES, 3))
    logits[np.arange(NUM_IMAGES), np.arange(NUM_IMAGES) % 3] += skill
    powers = np.exp(sharpness * logits)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


@pytest.fixture
def two(store: Store) -> Store:
    label(store, "good", opinions(1, 1.5, 1.2))
    label(store, "rash", opinions(2, 3.0, 1.0))
    return store


def nll(found: Validation, weights: Sequence[float], method: Method) -> float:
    """The loss, from what `fuse` makes of the labels as they are stored."""
    names = zip(("good", "rash"), weights, strict=True)
    members = [Member(teacher_id=name, iteration=1, weight=w) for name, w in names]
    fused = fuse([probs.copy() for probs in found.distributions], members, method)
    likelihood = fused[np.arange(NUM_IMAGES), found.classes].astype(np.float64)
    if method == "votes":
        right = [probs.argmax(axis=1) == found.classes for probs in found.distributions]
        likelihood = likelihood[np.logical_or(*right)]
    return float(-np.log(np.maximum(likelihood, 1e-12)).mean())


@pytest.mark.parametrize("method", METHODS)
def test_no_other_weights_make_the_true_classes_likelier(two: Store, method: Method) -> None:
    made = make_ensemble(two, "both", ["good", "rash"], method=method, weights="fitted")
    found = made.weighting
    assert found is not None
    said = read_validation(two, [("good", 1), ("rash", 1)])
    best = min(nll(said, (share, 1 - share), method) for share in np.linspace(0, 1, 401))

    assert sum(found.weights) == pytest.approx(1, abs=1e-9)
    assert [member.weight for member in made.members] == list(found.weights)
    assert found.nll_before == pytest.approx(nll(said, (0.5, 0.5), method), abs=1e-5)
    assert found.nll_after == pytest.approx(nll(said, found.weights, method), abs=1e-5)
    assert best - 1e-4 < found.nll_after <= best + 1e-6
    assert found.nll_after < found.nll_before - 1e-3
    assert found.weights[0] > found.weights[1] > 0
    assert found.num_images == NUM_IMAGES
    assert (found.num_telling == NUM_IMAGES) is (method != "votes")


def test_a_vote_is_a_hard_label_however_sure(store: Store) -> None:
    a = np.array([[0.5, 0.3, 0.2], [0.4, 0.35, 0.25], [0.1, 0.1, 0.8]], np.float32)
    b = np.array([[0.0, 1.0, 0.0], [0.9, 0.1, 0.0], [0.4, 0.4, 0.2]], np.float32)
    label(store, "a", a, "unlabeled")
    label(store, "b", b, "unlabeled")
    make_ensemble(store, "both", ["a*3", "b"], method="votes")
    shards = store.table("soft_labels").shards(partition={"teacher_id": "both"})
    rows = store.table("soft_labels").dataset_of(shards).to_table().sort_by("sample_id")
    fused = decode(rows["label"].combine_chunks(), 3)
    teacher = find_teacher(store, "both")

    assert np.abs(fused - [[0.75, 0.25, 0], [1, 0, 0], [0.25, 0, 0.75]]).max() < 2e-3
    assert rows["class_id"].to_pylist() == [0, 0, 2]
    assert teacher is not None
    assert teacher.architecture == "votes of 2"


def test_a_correction_changes_the_weights(two: Store) -> None:
    before = make_ensemble(two, "before", ["good", "rash"], weights="fitted").weighting
    rash = read_validation(two, [("rash", 1)]).distributions[0].argmax(axis=1)
    ids = images_of(two, "validation")
    correct(two, {i: CLASS_NAMES[c] for i, c in zip(ids, rash, strict=True)}, who="ann")
    after = make_ensemble(two, "after", ["good", "rash"], weights="fitted").weighting

    assert before is not None
    assert before.weights[0] > 0.5
    assert after is not None
    assert after.weights[1] > 0.9
    assert after.accuracy_after == 100


def test_images_that_a_member_lacks_do_not_count(store: Store) -> None:
    label(store, "a", opinions(1, 1.5, 1.2)[:30])
    label(store, "b", opinions(2, 3.0, 1.0)[20:], first=20)
    found = make_ensemble(store, "both", ["a", "b"], weights="fitted").weighting
    both = read_validation(store, [("a", 1), ("b", 1)])

    assert found is not None
    assert found.num_images == 10
    assert both.classes.tolist() == [n % 3 for n in range(20, 30)]
    assert np.abs(both.distributions[1] - opinions(2, 3.0, 1.0)[20:30]).max() < 2e-3


def test_equal_members_keep_equal_weights(store: Store) -> None:
    for name in "abc":
        label(store, name, opinions(1, 1.5, 1.2))
    found = make_ensemble(store, "all", ["a", "b", "c"], weights="fitted").weighting

    assert found is not None
    assert found.weights == (1 / 3, 1 / 3, 1 / 3)
    assert found.nll_after == found.nll_before


def test_what_was_found_is_kept_and_found_again(two: Store) -> None:
    make_ensemble(two, "both", ["good", "rash"], method="votes", weights="fitted")
    before = two.versions()
    again = make_ensemble(two, "both", ["good", "rash"], method="votes", weights="fitted")
    teacher = find_teacher(two, "both")
    commit = next(c for c in two.table("soft_labels").history() if c.lineage["step"] == "fuse")

    assert again.weighting is not None
    assert two.versions() == before
    assert teacher is not None
    assert teacher.members is not None
    for kept in (teacher.members, commit.lineage):
        weights = [member["weight"] for member in kept["members"]]
        assert weights == list(again.weighting.weights)
        assert kept["weighting"]["nll_before"] > kept["weighting"]["nll_after"] > 0
        assert kept["weighting"]["num_images"] == NUM_IMAGES


def test_temperatures_come_before_weights(two: Store) -> None:
    cooled = [
        Member(teacher_id="good", iteration=1),
        Member(teacher_id="rash", iteration=1, temperature=2.0),
    ]
    found = make_ensemble(two, "cooled", cooled, weights="fitted").weighting
    said = read_validation(two, [("good", 1), ("rash", 1)])
    roots = np.sqrt(said.distributions[1].astype(np.float64))
    mean = (said.distributions[0] + roots / roots.sum(axis=1, keepdims=True)) / 2

    assert found is not None
    assert found.nll_before == pytest.approx(
        -np.log(mean[np.arange(NUM_IMAGES), said.classes]).mean(), abs=1e-5
    )


def test_impossible_weights_are_refused(two: Store) -> None:
    label(two, "new", opinions(3, 1, 1)[:5], "unlabeled")
    wrong = np.eye(3, dtype=np.float32)[(np.arange(NUM_IMAGES) + 1) % 3]
    for name in ("wrong", "wrong2"):
        label(two, name, wrong)
    data = encode(np.zeros((4, 4, 3), np.uint8))
    late = ImageRecord(key="late.png", split="validation", data=data, label="cat")
    import_images(two, [late], dataset="late", class_names=CLASS_NAMES)
    label(two, "late", opinions(1, 1, 1)[:1], first=NUM_IMAGES)
    cases: list[tuple[list[str], dict[str, Any], str]] = [
        (["good"], {}, "two or more different teachers"),
        (
            ["good", "new"],
            {},
            "'new' has no labels of the validation images in .* 'plstore lab",
        ),
        (["good", "rash*2"], {}, r"'rash' has the weight 2\.0, and weights are to be fitted"),
        (["good", "rash"], {"weights": "best"}, "weights are 'best'; wanted given or fitted"),
        (["good", "rash"], {"method": "max"}, "'max'; wanted arithmetic, geometric, votes"),
        (["good", "late"], {}, "none of the 41 validation images .* labeled by good and late"),
        (["wrong", "wrong2"], {"method": "votes"}, "no member is right about any of 40"),
    ]
    before = two.versions()

    for members, options, words in cases:
        with pytest.raises(InputError, match=words):
            make_ensemble(two, "both", members, **{"weights": "fitted", **options})
    assert two.versions() == before


def test_a_temperature_changes_no_vote(two: Store) -> None:
    cooled = [
        Member(teacher_id=name, iteration=1, temperature=2.0) for name in ("good", "rash")
    ]

    with pytest.raises(InputError, match=r"temperature 2\.0, and no temperature changes"):
        make_ensemble(two, "both", cooled, method="votes")


def test_the_shell_says_what_it_found(two: Store) -> None:
    words = ("fuse", "good", "rash", "--teacher", "both", "--method", "votes")
    done = shell(*words, "--weights", "fitted", "--store", two.root, "--format", "json")
    teacher = find_teacher(two, "both")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["split"] == "validation"
    assert teacher is not None
    assert teacher.members is not None
    good, rash = (member["weight"] for member in teacher.members["members"])
    found = teacher.members["weighting"]
    assert f"40 validation images: good@1 {good:g}, rash@1 {rash:g}" in done.stderr
    assert f"{found['nll_before']:.4f} -> {found['nll_after']:.4f} nats" in done.stderr
