"""ImageNet's test sets, laid out as they are published, small: read and asked as is right."""

import json
import pkgutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

import plstore
from plstore.errors import InputError, StoreError
from plstore.exchange import image_folders
from plstore.images import ImageRecord, find_gone, import_images
from plstore.labels import TeacherRecord, add_teacher
from plstore.loaders import ImageFormat, open_split
from plstore.schema import EVALUATION, Split
from plstore.selection import Balance, Selection, preview
from plstore.store import Store
from plstore.upkeep import erase
from tests.cli.shell import shell
from tests.conftest import encode, give_labels, make_records
from tests.trainers.given import add_model
from trainers.evaluation import test_sets
from trainers.evaluation.evaluate import agreement, evaluate
from trainers.evaluation.imagenet import real_labels, synset_map, without_border
from trainers.evaluation.measured import Images, answers
from trainers.evaluation.test_sets import import_answers, import_test_set
from trainers.events import Event, Note
from trainers.inference.clean import probabilities
from trainers.labeling.label import Labeling, label
from trainers.models.model import build_model, keep_bundle, load_teacher
from trainers.sections import Data, Model
from trainers.sources import open_source

SYNSETS = list(synset_map([str(n) for n in range(1000)]))


def pixels(seed: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of ImageNet's classes with a model of random weights."""
    store = plstore.create(tmp_path_factory.mktemp("in1k") / "store")
    records = [
        ImageRecord(
            key=f"{split}/{SYNSETS[n]}/ILSVRC2012_val_{n + 1:08d}.JPEG",
            split=split,
            data=encode(pixels(n)),
            label=SYNSETS[n],
        )
        for n, split in enumerate(["labeled"] * 4 + ["validation"] * 20)
    ]
    import_images(store, records, dataset="in1k", class_names=SYNSETS)
    torch.manual_seed(0)
    settings = Model(architecture="test_resnet", resolution=16, stochastic_depth=0)
    network = build_model(settings, "test_resnet", len(SYNSETS))
    torch.nn.init.normal_(network.get_classifier().weight, std=2)  # type: ignore[operator]
    name, digest = keep_bundle(store, "t0", network, ImageFormat(size=16), SYNSETS)
    record = TeacherRecord(
        teacher_id="t0", iteration=0, role="teacher", checkpoint=name, checkpoint_hash=digest
    )
    add_teacher(store, record, identity="t0", step="train")
    return store


def write(home: Path, names: dict[str, int]) -> Path:
    for place, (name, count) in enumerate(names.items()):
        (home / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            data = encode(pixels(100 * place + number + 1000))
            (home / name / f"{place}-{number}.png").write_bytes(data)
    return home


def said(
    store: Store, split: Split, dataset: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return what the model says of images, and their classes, in order of number."""
    teacher = plstore.find_teacher(store, "t0")
    assert teacher is not None
    bundle, images = load_teacher(store, teacher, device="cpu"), open_split(store, split)
    found = torch.cat([probs for _, probs in probabilities(bundle, images, device="cpu")])
    rows = store.table("images").read(columns=["sample_id", "dataset"]).to_pylist()
    ids = [row["sample_id"] for row in rows if row["dataset"] == dataset]
    here = np.isin(images.sample_ids, ids)
    return found.numpy()[here], images.class_ids[here].astype(np.int64)


@pytest.mark.parametrize("name", ["imagenet-a", "imagenet-r"])
def test_of_200_classes_only_their_logits_count(
    name: str, imagenet: Store, tmp_path: Path
) -> None:
    info = "imagenet_a" if name == "imagenet-a" else "imagenet_r"
    synsets = (pkgutil.get_data("timm.data", f"_info/{info}_synsets.txt") or b"").decode()
    few = synsets.split()[3:90:20]
    path = write(tmp_path / name, dict.fromkeys(few, 3))

    import_test_set(imagenet, path, name=name)
    (row,) = evaluate(imagenet, "t0", splits=(), sets=[name], device="cpu")
    (free,) = evaluate(imagenet, "t0", splits=(), sets=[name], among="all", device="cpu")
    own = [SYNSETS.index(n) for n in few]
    probs, classes = said(imagenet, EVALUATION, name)
    among = np.array(own)[probs[:, own].argmax(1)]

    assert (row["dataset"], row["among"], row["num_images"]) == (name, "own", 15)
    assert row["accuracy"] == pytest.approx(100 * (among == classes).mean())
    assert free["accuracy"] == pytest.approx(100 * (probs.argmax(1) == classes).mean())
    kept = probs[:, own] / probs[:, own].sum(1, keepdims=True)
    right = kept[np.arange(15), [own.index(c) for c in classes]]
    assert row["nll"] == pytest.approx(-np.log(right).mean(), rel=2e-3)
    assert row["mean_confidence"] == pytest.approx(kept.max(1).mean(), rel=2e-3)


def test_folders_of_v2_are_numbers_in_the_order_of_synsets(
    imagenet: Store, tmp_path: Path
) -> None:
    path = write(tmp_path / "v2", {"0": 1, "10": 2, "999": 1})

    import_test_set(imagenet, path, name="imagenet-v2")
    (row,) = evaluate(imagenet, "t0", splits=(), sets=["imagenet-v2"], device="cpu")

    _, classes = said(imagenet, EVALUATION, "imagenet-v2")
    assert sorted(classes.tolist()) == [0, 10, 10, 999]
    assert (row["num_images"], row["among"]) == (4, "all")


def objectnet(home: Path) -> Path:
    write(home / "images", {"plate": 2, "air_freshener": 3, "stingray": 1})
    words = [f"words {n}" for n in range(1000)]
    ids = {str(n): 999 - n for n in range(1000)}  # as theirs, another order
    maps = {
        "folder_to_objectnet_label.json": {
            "plate": "Plate",
            "air_freshener": "Air freshener",
            "stingray": "Sting ray",
        },
        "objectnet_to_imagenet_1k.json": {
            "Plate": f"{words[ids['923']]}; {words[ids['7']]}",
            "Sting ray": words[ids["6"]],
        },
        "pytorch_to_imagenet_2012_id.json": ids,
    }
    (home / "mappings").mkdir()
    for name, values in maps.items():
        (home / "mappings" / name).write_text(json.dumps(values))
    (home / "mappings" / "imagenet_to_label_2012_v2").write_text("\n".join(words))
    return home


def test_objectnet_accepts_any_of_its_classes_and_loses_its_border(
    imagenet: Store, tmp_path: Path
) -> None:
    found = import_test_set(imagenet, objectnet(tmp_path / "o"), name="objectnet")
    (row,) = evaluate(imagenet, "t0", splits=(), sets=["objectnet"], device="cpu")
    probs, classes = said(imagenet, EVALUATION, "objectnet")
    right = {923: (923, 7), 6: (6,)}
    wanted = [top in right[label] for top, label in zip(probs.argmax(1), classes, strict=True)]
    rows = imagenet.table("images").read(columns=["dataset", "width", "height"]).to_pylist()

    assert found.imported.remarks["of a class that the map leads nowhere, left out"] == 3
    assert found.imported.remarks["border of 2 pixels cut off"] == 3
    assert found.num_accepted == 3
    assert sorted(classes.tolist()) == [6, 923, 923]
    assert row["accuracy"] == pytest.approx(100 * np.mean(wanted))
    assert row["nll"] is None
    sizes = {(r["width"], r["height"]) for r in rows if r["dataset"] == "objectnet"}
    assert sizes == {(20, 20)}
    assert without_border(b"no image") == b"no image"


def test_real_accepts_several_classes_of_validation_images(imagenet: Store) -> None:
    right = real_labels(SYNSETS)

    count = import_answers(imagenet, "real")
    again = import_answers(imagenet, "real")
    evaluate(imagenet, "t0", splits=["validation"], device="cpu")
    (row,) = answers(imagenet, ["t0"], splits=["validation"])
    tops = said(imagenet, "validation", "in1k")[0].argmax(1)
    names = [f"ILSVRC2012_val_{n + 1:08d}.JPEG" for n in range(4, 24)]
    known = [n for n, name in enumerate(names) if name in right]
    hits = [SYNSETS[tops[n]] in right[names[n]] for n in known]

    assert (count, again) == (len(known), 0)
    assert len(known) < 20  # images of which it accepts nothing are left out
    assert (row["source"], row["num_images"]) == ("real", len(known))
    assert row["accuracy"] == pytest.approx(100 * np.mean(hits))


def test_timm_reads_the_same_reassessed_labels() -> None:
    from timm.data import RealLabelsImagenet

    names = [f"ILSVRC2012_val_{n + 1:08d}.JPEG" for n in range(50_000)]
    theirs = RealLabelsImagenet(names).real_labels

    ours = real_labels([str(n) for n in range(1000)])
    assert {n: [int(c) for c in found] for n, found in ours.items()} == {
        n: found for n, found in theirs.items() if found
    }


def test_answers_of_a_table_are_asked_beside_the_labels(store: Store, tmp_path: Path) -> None:
    add_model(store, "t0", iteration=0, seed=0)
    table = tmp_path / "second-look.csv"
    names = [f"test/{number:04d}.png" for number in range(78, 84)]
    rows = [f"{name},{label}" for name in names for label in ("cat", "dog", "owl")]
    table.write_text("\n".join(["key,label", *rows]))

    assert import_answers(store, table) == 6
    evaluate(store, "t0", splits=["test"], device="cpu")
    (row,) = answers(store, ["t0"], splits=["test"])

    assert (row["source"], row["accuracy"], row["num_images"]) == ("second-look", 100, 6)


def test_runs_and_selections_do_not_see_a_test_set(
    make_store: Callable[..., Store], tmp_path: Path
) -> None:
    store = make_store()
    give_labels(store)
    balance = Selection(view="v", teachers=["t0"], balance=Balance(min_confidence=0.0))
    before = preview(store, balance)
    copy = next(r for r in make_records() if r.split == "unlabeled")
    path = write(tmp_path / "set", {"cat": 1, "dog": 1})
    (path / "cat" / "copy.png").write_bytes(copy.data)

    found = import_test_set(store, path, name="camera")
    after = preview(store, balance)

    assert found.num_trained == 1
    assert after["dropped"]["held_out"] == before["dropped"].get("held_out", 0) + 1
    assert after["kept"] + 1 == before["kept"]


def test_only_classes_of_the_set_may_be_said_where_several_are_right(
    store: Store, tmp_path: Path
) -> None:
    add_model(store, "t0", iteration=0, seed=0)
    path = write(tmp_path / "set", {"lynx": 4, "wolf": 4})
    several = {"lynx": ["cat"], "wolf": ["cat", "dog"]}
    import_test_set(store, path, name="wild", class_map=several)

    (own,) = evaluate(store, "t0", splits=(), sets=["wild"], among="own", device="cpu")
    (every,) = evaluate(store, "t0", splits=(), sets=["wild"], device="cpu")
    names = {row["name"] for row in store.table("runs").read().to_pylist()}
    probs, _ = said(store, EVALUATION, "wild")
    right = [[0]] * 4 + [[0, 1]] * 4
    among = probs[:, :2].argmax(1)

    for row, classes in ((own, among), (every, probs.argmax(1))):
        hits = [c in of for c, of in zip(classes, right, strict=True)]
        assert row["accuracy"] == 100 * np.mean(hits)
    assert {"wild_accuracy", "wild-among-own_accuracy"} <= names


def test_every_query_of_an_evaluation_keeps_to_the_classes_of_the_set(
    store: Store, tmp_path: Path
) -> None:
    path = write(tmp_path / "set", {"cat": 3, "dog": 3})
    import_test_set(store, path, name="wild")
    cats = [[0.2, 0.1, 0.7], [0.1, 0.3, 0.6], [0.0, 0.0, 1.0]]  # the last: neither cat nor dog
    dogs = [[0.1, 0.4, 0.5], [0.3, 0.2, 0.5], [0.2, 0.8, 0.0]]
    right = [[0.9, 0.1, 0.0]] * 3 + [[0.1, 0.9, 0.0]] * 3
    for name, probs in (("a", cats + dogs), ("b", right)):
        given = np.array(probs, np.float32)
        give_labels(store, name, probabilities=given, split=EVALUATION)

    def rows(query: str, *columns: str, among: str = "own") -> list[tuple[object, ...]]:
        found = plstore.run_query(
            store, f"evaluation/{query}", split=EVALUATION, dataset="wild", among=among
        ).to_pylist()
        kept = [row for row in found if row.get("teacher_id", "a") == "a"]
        return [tuple(row[column] for column in columns) for row in kept]

    alike = ("num_images", "same_top1", "only_a", "only_b")
    assert rows("agreement", *alike) == [(6, 3 / 6, 0, 3 / 6)]
    assert rows("agreement", *alike, among="all") == [(6, 1 / 6, 0, 5 / 6)]
    per_class = rows("per_class", "class_name", "recall", "num_predicted", "precision")
    assert per_class == [("cat", 1 / 3, 2, 1 / 2), ("dog", 2 / 3, 3, 2 / 3)]
    pairs = ("true_name", "predicted_name", "num_images")
    assert set(rows("confusions", *pairs)) == {
        *{("cat", "cat", 1), ("cat", "dog", 1), ("cat", None, 1)},
        *{("dog", "dog", 2), ("dog", "cat", 1)},
    }
    surest = rows("selective_accuracy", "num_images", "accuracy", "min_confidence")
    assert (surest[0], surest[-1]) == ((1, 1, pytest.approx(0.8)), (6, 3 / 6, 0))
    confidence = np.mean([2 / 3, 3 / 4, 0, 0.8, 0.6, 0.8])
    (measured,) = rows("metrics", "accuracy", "mean_confidence")
    assert measured == (3 / 6, pytest.approx(confidence, rel=1e-3))  # labels are rounded


def test_how_alike_teachers_are_is_said_of_the_classes_that_they_may_say(
    store: Store, tmp_path: Path
) -> None:
    for seed, name in enumerate(("t0", "t1")):
        add_model(store, name, iteration=0, seed=seed)
    import_test_set(store, write(tmp_path / "set", {"cat": 4, "dog": 4}), name="wild")
    words = ("evaluate", "t0", "t1", "--sets", "wild", "--store", store.root)

    found = [shell(*words, "--among", among).stdout for among in ("own", "all")]
    said = {
        among: agreement(store, ["t0", "t1"], EVALUATION, "wild", among)[0]
        for among in ("own", "all")
    }

    assert said["own"]["mean_kl"] != pytest.approx(said["all"]["mean_kl"], rel=0.01)
    for text, among in zip(found, said, strict=True):
        assert f"{said[among]['mean_kl']:.6g}" in text


def test_a_part_of_an_official_set_is_told_to_be_easier(
    imagenet: Store, tmp_path: Path
) -> None:
    events: list[Event] = []
    names = synset_map(SYNSETS)
    path = write(tmp_path / "r", {"n01443537": 1, "n01484850": 1})
    store = plstore.create(tmp_path / "copy")
    import_images(
        store,
        [ImageRecord(key="a", split="labeled", data=encode(pixels(1)), label=SYNSETS[0])],
        dataset="in1k",
        class_names=list(names),
    )
    teacher = plstore.find_teacher(imagenet, "t0")
    assert teacher is not None
    import_test_set(store, path, name="imagenet-r")
    ids = store.table("images").read(columns=["sample_id"])["sample_id"].to_numpy()[1:]
    np.save(tmp_path / "ids.npy", ids)
    np.save(tmp_path / "p.npy", np.full((2, 1000), 0.001, np.float32))
    plstore.import_predictions(
        store, tmp_path / "p.npy", ids=tmp_path / "ids.npy", teacher_id="flat"
    )

    evaluate(store, "flat", splits=(), sets=["imagenet-r"], on_event=events.append)

    notes = [event.text for event in events if isinstance(event, Note)]
    assert len(notes) == 1
    assert "imagenet-r has images of 2 of its 200 classes here: among fewer" in notes[0]


def test_labels_of_splits_and_of_sets_have_settings_of_their_own(
    store: Store, tmp_path: Path
) -> None:
    add_model(store, "t0", iteration=0, seed=0)
    import_test_set(store, write(tmp_path / "set", {"cat": 1, "dog": 1}), name="camera")
    evaluate(store, "t0", splits=["test"], sets=["camera"], device="cpu")
    both = Labeling(teacher_id="t0", splits=["test", EVALUATION], temperature=2, device="cpu")

    (row,) = evaluate(store, "t0", splits=["validation"], device="cpu")

    assert row["num_images"] == 6
    with pytest.raises(InputError, match="has labeled iteration 1 with temperature 1"):
        label(store, both)
    with pytest.raises(InputError, match=r"split is 'evaluation'; wanted .* \(--sets\)"):
        evaluate(store, "t0", splits=["test", EVALUATION], device="cpu")


def test_labels_that_a_set_has_already_are_measured(store: Store, tmp_path: Path) -> None:
    add_model(store, "t0", iteration=0, seed=0)
    import_test_set(store, write(tmp_path / "set", {"cat": 1, "dog": 1}), name="camera")
    label(store, Labeling(teacher_id="t0", splits=[EVALUATION], device="cpu"))

    (row,) = evaluate(store, "t0", splits=(), sets=["camera"], device="cpu")

    assert row["num_images"] == 2


def test_a_set_whose_folder_is_away_stops_nothing_else(store: Store, tmp_path: Path) -> None:
    add_model(store, "t0", iteration=0, seed=0)
    path = write(tmp_path / "set", {"cat": 1, "dog": 1})
    import_test_set(store, path, name="camera", in_place=True)
    before = find_gone(store).identity
    path.rename(tmp_path / "away")

    evaluate(store, "t0", splits=["test"], device="cpu")

    assert find_gone(store).identity == before
    with pytest.raises(InputError, match="no test set camera with images that can be read"):
        evaluate(store, "t0", splits=(), sets=["camera"], device="cpu")
    (tmp_path / "away").rename(path)
    (row,) = evaluate(store, "t0", splits=(), sets=["camera"], device="cpu")
    assert row["num_images"] == 2


def test_images_of_a_set_are_imported_again_to_be_trained_or_held_out(
    store: Store, tmp_path: Path
) -> None:
    path = write(tmp_path / "set", {"cat": 2, "dog": 2})
    import_test_set(store, path, name="camera")

    later = image_folders(validation=path, dataset="later")
    imported = plstore.import_images(store, later)

    assert imported.counts.elsewhere == 0
    assert imported.counts.splits["validation"] == 4


def test_answers_of_labels_without_a_model_are_told_in_every_format(
    store: Store, tmp_path: Path
) -> None:
    np.save(tmp_path / "ids.npy", open_split(store, "test").sample_ids)
    np.save(tmp_path / "p.npy", np.full((6, 3), 1 / 3, np.float32))
    plstore.import_predictions(
        store, tmp_path / "p.npy", ids=tmp_path / "ids.npy", teacher_id="clip"
    )
    (tmp_path / "look.csv").write_text("key,label\ntest/0078.png,cat\ntest/0079.png,owl\n")
    import_answers(store, tmp_path / "look.csv")
    words = ["evaluate", "clip", "--splits", "test", "--store", str(store.root)]

    rows = json.loads(shell(*words, "--format", "json").stdout)

    assert [(row["teacher_id"], row["source"], row["num_images"]) for row in rows] == [
        ("clip", None, 6),
        ("clip", "look", 2),
    ]


def test_a_set_whose_import_was_stopped_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = plstore.create(tmp_path / "copy")
    records = [ImageRecord(key="a", split="labeled", data=encode(pixels(1)), label=SYNSETS[0])]
    import_images(store, records, dataset="in1k", class_names=SYNSETS)
    path = objectnet(tmp_path / "o")

    def stop(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(test_sets, "_note", stop)
        with pytest.raises(KeyboardInterrupt):
            import_test_set(store, path, name="objectnet")
    images = Images(split=EVALUATION, dataset="objectnet")
    with pytest.raises(InputError, match="of 3 of 3 images of objectnet it is not noted"):
        images.metrics(store, store.versions())

    assert import_test_set(store, path, name="objectnet").num_accepted == 3


def test_the_identity_of_a_stores_images_is_that_of_its_runs(
    store: Store, tmp_path: Path
) -> None:
    data = Data(source="store")
    before = open_source(data, 0, store).identity
    import_test_set(store, write(tmp_path / "set", {"cat": 1, "dog": 1}), name="camera")
    (first, *_) = open_split(store, EVALUATION).sample_ids.tolist()

    erase(store, [first], reason="asked", who="me")

    assert open_source(data, 0, store).identity == before


def test_the_command_measures_several_sets_side_by_side(store: Store, tmp_path: Path) -> None:
    for seed, name in enumerate(("t0", "t1")):
        add_model(store, name, iteration=seed, seed=seed)
    given: list[str | Path] = ["--store", str(store.root)]
    for name in ("one", "two"):
        path = write(tmp_path / name, {"cat": 2, "owl": 1})
        done = shell("import", "test-set", path, "--name", name, *given)
        assert done.returncode == 0, done.stderr

    table = shell("evaluate", "t0", "t1", "--sets", "all", "--device", "cpu", *given)
    found = shell("evaluate", "t0", "--sets", "two", "--format", "json", *given)
    split = shell(
        "evaluate", "t0", "--splits", "test", "--sets", "one", "--format=json", *given
    )
    rows = json.loads(found.stdout)

    assert table.returncode == 0, table.stderr
    assert table.stdout.count("evaluation") == 4  # a row for each teacher and set
    assert [(r["dataset"], r["num_images"], r["among"]) for r in rows] == [("two", 3, "all")]
    assert [r.get("dataset") for r in json.loads(split.stdout)] == [None, "one"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--sets", "three"),
            "has no test set three with images that can be read; it has none",
        ),
        (("--sets", "a", "--among", "few"), "--among is 'few'; wanted all or own"),
        (("--among", "own"), "--among is of test sets; name some with --sets"),
        (
            ("--sets", "a", "--corruptions", "fog"),
            "attacks want --splits; found test sets alone",
        ),
    ],
)
def test_what_cannot_be_asked_is_said(words: tuple[str, ...], said: str, store: Store) -> None:
    add_model(store, "t0", iteration=0, seed=0)

    done = shell("evaluate", "t0", *words, "--store", store.root)

    assert done.returncode == 2
    assert said in done.stderr


def test_sets_that_a_store_cannot_have_are_refused(store: Store, tmp_path: Path) -> None:
    path = write(tmp_path / "set", {"cat": 1})

    with pytest.raises(InputError, match="images to train on or to test with of the dataset"):
        import_test_set(store, path, name="pets")
    for name in ("test", "all", "a,b", ""):
        with pytest.raises(InputError, match="wanted letters, digits"):
            import_test_set(store, path, name=name)
    import_test_set(store, write(tmp_path / "two", {"cat": 1, "dog": 1}), name="two")
    with pytest.raises(InputError, match="has a test set 'two', which says itself which"):
        import_answers(store, "real", source="two")
    with pytest.raises(InputError, match="wanted those of ImageNet-1k, named by synset"):
        import_test_set(store, path, name="imagenet-a")
    empty = plstore.create(tmp_path / "empty")
    with pytest.raises(StoreError, match="has no classes yet; 'plstore import images'"):
        import_test_set(empty, path, name="camera")
    (tmp_path / "wrong.csv").write_text("key,label\ntest/0078.png,lynx\n")
    with pytest.raises(InputError, match="row 1 has the label 'lynx', which is no class"):
        import_answers(store, tmp_path / "wrong.csv")
