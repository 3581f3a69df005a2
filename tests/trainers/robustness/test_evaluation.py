"""What teachers say of images that were made worse, kept in a store and measured there."""

import json
from importlib.metadata import PackageNotFoundError
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import plstore
from plstore.cli.main import app
from plstore.codec import decode
from plstore.errors import InputError, MissingExtraError
from plstore.labels import find_teacher
from plstore.loaders import clean_batches, open_split
from plstore.query import run_query
from plstore.store import Store
from plstore.upkeep import correct, verify
from tests.conftest import CLASS_NAMES, give_labels
from tests.trainers.given import add_model
from trainers.events import Event, Note
from trainers.models.model import Bundle, load_teacher
from trainers.robustness import kinds
from trainers.robustness.asking import as_asked
from trainers.robustness.attacks import Attack, Normalised, attacked
from trainers.robustness.corruptions import corrupt
from trainers.robustness.evaluation import Robustness, robustness
from trainers.robustness.kinds import Corruptions, Sequences
from trainers.robustness.labeling import Asked
from trainers.robustness.metrics import flip_probability, top5_distance
from trainers.robustness.perturbations import sequence
from trainers.robustness.published import CORRUPTIONS

SOME = Corruptions(names=("brightness", "pixelate"), severities=(1, 5))


@pytest.fixture
def taught(store: Store) -> Store:
    add_model(store, "t0", iteration=0, seed=0)
    add_model(store, "t1", iteration=1, seed=1)
    return store


def what(**values: Any) -> Robustness:  # noqa: ANN401  of Robustness
    return Robustness(asked=Asked(**values.pop("asked", {})), **values)


def bundle_of(store: Store, name: str) -> Bundle:
    teacher = find_teacher(store, name)
    assert teacher is not None
    return load_teacher(store, teacher, device="cpu")


def clean_pixels(store: Store, bundle: Bundle) -> dict[int, np.ndarray[Any, Any]]:
    (batch,) = clean_batches(open_split(store, "test"), bundle.format)
    pixels = batch.images.permute(0, 2, 3, 1).numpy()
    return dict(zip(batch.sample_ids.tolist(), pixels, strict=True))


def answer(bundle: Bundle, pixels: np.ndarray[Any, Any]) -> torch.Tensor:
    with torch.inference_mode():
        images = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
        return torch.softmax(bundle.logits(images), dim=1)[0]


def kept(store: Store, **columns: object) -> list[dict[str, Any]]:
    rows = store.table("perturbed_labels").read().to_pylist()
    return [row for row in rows if all(row[name] == v for name, v in columns.items())]


def test_labels_are_what_a_model_says_of_the_corrupted_pixels(taught: Store) -> None:
    robustness(taught, ["t0", "t1"], what(corruptions=SOME))
    table = taught.table("perturbed_labels").read()
    found = decode(table["label"].combine_chunks(), 3)

    assert table.num_rows == 2 * 2 * 2 * 6  # teachers, corruptions, severities, images
    for name in ("t0", "t1"):
        bundle = bundle_of(taught, name)
        clean = clean_pixels(taught, bundle)
        for row, probs in zip(table.to_pylist(), found, strict=True):
            if row["teacher_id"] == name:
                seen = corrupt(
                    clean[row["sample_id"]],
                    sample_id=row["sample_id"],
                    name=row["perturbation"],
                    severity=int(row["level"]),
                )
                assert np.allclose(probs, answer(bundle, seen), rtol=2e-3)
    assert verify(taught) == []


def test_what_is_kept_is_not_made_again_and_what_is_lacking_is(taught: Store) -> None:
    first = robustness(taught, ["t0"], what(corruptions=SOME))
    version = taught.table("perturbed_labels").version()
    again = robustness(taught, ["t0"], what(corruptions=SOME))
    assert again == first
    assert taught.table("perturbed_labels").version() == version

    more = Corruptions(names=("brightness", "fog"), severities=(1, 5))
    robustness(taught, ["t0", "t1"], what(corruptions=more))
    assert taught.table("perturbed_labels").version() == version + 3  # fog, t1's two
    harder = Corruptions(names=("fog",), severities=(3,))
    robustness(taught, ["t0"], what(corruptions=harder))
    assert {row["level"] for row in kept(taught, teacher_id="t0", perturbation="fog")} == {3}
    assert {row["level"] for row in kept(taught, teacher_id="t1", perturbation="fog")} == {1, 5}


def test_labels_that_were_replaced_come_back(taught: Store) -> None:
    some = Corruptions(names=("brightness",), severities=(1,))
    first, few, again = (
        robustness(taught, ["t0"], what(corruptions=some, asked={"limit": limit}))
        for limit in (5, 2, 5)
    )
    assert first == again
    assert few[0]["num_perturbed"] == 2
    assert len(kept(taught)) == 5


def test_an_attack_after_a_correction_is_another_one(taught: Store) -> None:
    attack = Attack(kind="fgsm", epsilons=(0.05,))
    robustness(taught, ["t0"], what(attacks=[attack]))
    before = taught.table("perturbed_labels").version()
    gone = int(open_split(taught, "test").sample_ids[0])
    filed = open_split(taught, "test").class_ids[0]
    correct(taught, {gone: CLASS_NAMES[(filed + 1) % 3]}, who="me")
    robustness(taught, ["t0"], what(attacks=[attack]))
    assert taught.table("perturbed_labels").version() == before + 1


def test_published_figures_are_of_all_severities(taught: Store) -> None:
    some = Corruptions(names=CORRUPTIONS, severities=(1,))
    asked = what(corruptions=some, baseline="alexnet", asked={"limit": 1})
    assert not asked.is_mce
    (row,) = robustness(taught, ["t0"], asked)
    assert "mean_corruption_error" in row
    assert "mCE" not in row


def test_a_model_is_a_share_of_its_baseline(taught: Store) -> None:
    every = Corruptions(names=CORRUPTIONS, severities=(2,))
    rows = robustness(taught, ["t0", "t1"], what(corruptions=every, asked={"limit": 3}))
    table = run_query(taught, "evaluation/perturbed_accuracy").to_pylist()
    errors = {
        name: [1 - row["accuracy"] for row in table if row["teacher_id"] == name]
        for name in ("t0", "t1")
    }
    ratios = np.array(errors["t1"]) / np.array(errors["t0"])

    assert [row["num_perturbed"] for row in rows] == [3, 3]
    assert rows[0]["mCE"] == 100
    assert rows[1]["mCE"] == pytest.approx(100 * ratios.mean())
    assert rows[1]["corrupted_accuracy"] == pytest.approx(100 - 100 * np.mean(errors["t1"]))
    runs = {row["name"]: row["value"] for row in taught.table("runs").read().to_pylist()}
    assert runs["test_mCE"] in {row["mCE"] for row in rows}


def test_nothing_is_divided_by_a_baseline_without_mistakes(taught: Store) -> None:
    (right, *_) = open_split(taught, "test").sample_ids.tolist()
    said = answer(bundle_of(taught, "t0"), clean_pixels(taught, bundle_of(taught, "t0"))[right])
    correct(taught, {right: CLASS_NAMES[int(said.argmax())]}, who="me")
    notes: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.text)

    every = Corruptions(names=CORRUPTIONS, severities=(1,))
    asked = {"limit": 1, "seed": seed_of(taught, right)}
    (row,) = robustness(taught, ["t0"], what(corruptions=every, asked=asked), on_event=listen)

    assert row["mean_corruption_error"] < 100
    assert "mCE" not in row
    assert sum("mCE is left out: the baseline makes no mistake" in note for note in notes) == 1


def seed_of(store: Store, sample_id: int) -> int:
    """Return a seed that draws an image alone."""
    images = open_split(store, "test")
    return next(
        seed
        for seed in range(100)
        if images.sample_ids[Asked(limit=1, seed=seed).rows(images)].tolist() == [sample_id]
    )


def test_flips_are_those_of_the_frames(taught: Store) -> None:
    rotate = Sequences(names=("rotate", "gaussian_noise"), num_frames=3)
    (row,) = robustness(taught, ["t0"], what(sequences=rotate))
    bundle = bundle_of(taught, "t0")
    wanted, moved = [], []
    for name in rotate.names:
        said = [
            [
                answer(bundle, frame).numpy()
                for frame in sequence(pixels, sample_id=number, name=name, num_frames=3)
            ]
            for number, pixels in clean_pixels(taught, bundle).items()
        ]
        scores, noise = np.array(said), name == "gaussian_noise"
        wanted.append(flip_probability(scores.argmax(2), noise=noise))
        moved.append(top5_distance(scores, noise=noise))

    assert row["flip_probability"] == pytest.approx(100 * np.mean(wanted))
    assert row["top5_distance"] == pytest.approx(np.mean(moved))
    assert len(kept(taught, kind="sequence")) == 2 * 3 * 6


def test_an_attack_is_of_the_model_that_is_attacked(taught: Store) -> None:
    attack = Attack(kind="pgd", epsilons=(8 / 255, 0.1), steps=3)
    rows = robustness(taught, ["t0", "t1"], what(attacks=[attack]))
    images = open_split(taught, "test")
    for name, found in zip(("t0", "t1"), rows, strict=True):
        bundle = bundle_of(taught, name)
        (batch,) = clean_batches(images, bundle.format)
        network = Normalised(bundle.network, bundle.format.mean, bundle.format.std)
        classes = torch.from_numpy(images.class_ids.astype(np.int64))
        wanted = attacked(network, batch.images.float() / 255, classes, attack)
        for written, logits in zip(("8/255", "0.1"), wanted.logits.values(), strict=True):
            accuracy = 100 * float((logits.argmax(1) == classes).double().mean())
            assert found[f"pgd_linf {written}"] == pytest.approx(accuracy)


def test_a_deleted_image_has_no_labels_and_small_ones_are_told(taught: Store) -> None:
    notes: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.text)

    robustness(taught, ["t0"], what(corruptions=SOME), on_event=listen)
    gone = int(open_split(taught, "test").sample_ids[0])
    plstore.erase(taught, [gone], reason="asked for", who="ann")

    assert sum("images of 16 pixels were resized to 32" in note for note in notes) == 1
    assert not kept(taught, sample_id=gone)
    assert len(kept(taught)) == 2 * 2 * 5
    assert verify(taught) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"corruptions": "fogg"},
            "corruption is 'fogg'; wanted one or more, each once",
        ),
        ({"sequences": "turn"}, "perturbation is 'turn'; wanted one or more"),
        ({"attacks": "fgsm,cw"}, "attack is cw; wanted some of fgsm, pgd, pgd_l2"),
        ({"severities": "1,x"}, "--severities is '1,x'; wanted numbers such as 1,3,5"),
        ({"corruptions": "fog", "severities": "6"}, "severity is 6; wanted one or more"),
        ({"baseline": "t9"}, "the baseline is 't9'; wanted alexnet, for images of ImageNet-1k"),
    ],
)
def test_what_cannot_be_asked_is_said(
    taught: Store, changes: dict[str, Any], words: str
) -> None:
    values: dict[str, Any] = {
        "corruptions": None,
        "severities": "1",
        "sequences": None,
        "attacks": None,
        "baseline": "",
        "workers": 0,
    }
    with pytest.raises(InputError, match=words):
        robustness(taught, ["t0"], as_asked(**{**values, **changes}))


def test_bad_words_are_refused_before_long_work(taught: Store) -> None:
    words = ["evaluate", "t0", "--splits", "test", "--store", str(taught.root)]
    for bad in (["--corruptions", "fogg"], ["--corruptions", "fog", "--severities", "6"]):
        done = CliRunner().invoke(app, [*words, *bad])
        assert done.exit_code != 0
        assert taught.table("soft_labels").read().num_rows == 0


def test_without_the_extra_it_is_named_before_long_work(
    taught: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(kinds, "version", gone)
    with pytest.raises(MissingExtraError, match="robustness"):
        robustness(taught, ["t0"], what(corruptions=SOME))
    assert taught.table("soft_labels").read().num_rows == 0


def test_what_was_measured_is_in_the_lineage_and_comes_back(taught: Store) -> None:
    for name in ("pixelate", "contrast", "pixelate"):
        some = Corruptions(names=(name,), severities=(5,))
        robustness(taught, ["t0"], what(corruptions=some))
    commits = [
        commit.lineage
        for commit in taught.table("runs").history()
        if "corruptions" in commit.lineage
    ]

    newest_first = [lineage["corruptions"] for lineage in commits]
    assert newest_first == [["pixelate"], ["contrast"], ["pixelate"]]
    assert {lineage["baseline"] for lineage in commits} == {"t0"}


def test_labels_alone_cannot_be_made_worse(store: Store) -> None:
    give_labels(store, "clip", 1, split="test")
    with pytest.raises(InputError, match="no teacher 'clip'"):
        robustness(store, ["clip"], what(corruptions=SOME))


def test_the_shell_prints_one_row_for_each_teacher(taught: Store) -> None:
    words = ["evaluate", "t0", "t1", "--splits", "test", "--store", str(taught.root)]
    words += [
        "--corruptions",
        "contrast",
        "--severities",
        "1",
        "--workers",
        "0",
        "--limit",
        "4",
    ]
    done = CliRunner().invoke(app, [*words, "--format", "json"])
    rows = json.loads(done.stdout)
    table = CliRunner().invoke(app, words)

    assert [(row["teacher_id"], row["num_images"], row["num_perturbed"]) for row in rows] == [
        ("t0", 6, 4),
        ("t1", 6, 4),
    ]
    assert "corrupted_accuracy" in table.stdout
    assert "same_top1" in table.stdout
