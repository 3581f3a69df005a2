import numpy as np
import numpy.typing as npt
import pytest

from plstore.codec import Codec, decode
from plstore.errors import InputError
from plstore.labels import (
    LabelBatch,
    LabelSet,
    Member,
    commit_labels,
    make_ensemble,
    member_of,
    write_labels,
)
from plstore.labels.fusion import fuse
from plstore.store import Store
from tests.conftest import give_labels

Floats = npt.NDArray[np.float32]
DENSE = Codec(name="dense", k=3)


def fused_labels(store: Store, teacher: str) -> Floats:
    table = store.table("soft_labels")
    shards = table.shards(partition={"teacher_id": teacher, "split": "unlabeled"})
    rows = table.dataset_of(shards).to_table().sort_by("sample_id")
    return decode(rows["label"].combine_chunks(), 3)


def two() -> list[Member]:
    return [Member(teacher_id=name, iteration=1) for name in ("a", "b")]


def test_the_mean_of_two_teachers_is_a_teacher_that_names_them(store: Store) -> None:
    a = give_labels(store, "a", 1)
    b = give_labels(store, "b", 1, probabilities=a[:, ::-1].copy())
    made = make_ensemble(store, "both", two(), iteration=1)
    (teacher,) = store.table("teachers").read().to_pylist()

    assert made.images == {"unlabeled": 60}
    assert made.incomplete == {"unlabeled": 0}
    assert np.abs(fused_labels(store, "both") - (a + b) / 2).max() < 2e-3
    assert teacher["role"] == "ensemble"
    assert '"teacher_id":"a"' in teacher["members"]
    assert '"method":"arithmetic"' in teacher["members"]


def test_a_fusion_made_again_adds_nothing(store: Store) -> None:
    give_labels(store, "a", 1)
    give_labels(store, "b", 1, probabilities=np.eye(3, dtype=np.float32)[np.arange(60) % 3])
    make_ensemble(store, "both", two(), iteration=1)
    before = store.versions()["teachers"], store.table("soft_labels").dataset().count_rows()
    make_ensemble(store, "both", two(), iteration=1)
    after = store.versions()["teachers"], store.table("soft_labels").dataset().count_rows()

    assert before == after


def test_a_fusion_follows_its_members_there_and_back(store: Store) -> None:
    a = give_labels(store, "a", 1)
    b = np.roll(a, 1, axis=1)
    found = []
    for number, probabilities in enumerate((b, a, b)):
        give_labels(store, "b", 1, probabilities=probabilities, name=f"n{number}")
        make_ensemble(store, "both", two(), iteration=1)
        found.append(fused_labels(store, "both"))

    assert np.array_equal(found[0], found[2])
    assert not np.array_equal(found[0], found[1])


def test_the_name_of_another_teacher_is_not_taken(store: Store) -> None:
    give_labels(store, "a", 1)
    give_labels(store, "b", 1)
    make_ensemble(store, "both", two(), iteration=1)

    with pytest.raises(InputError, match="has a teacher 'both' already"):
        make_ensemble(store, "both", two(), iteration=1, method="geometric")


def test_weights_and_temperatures_do_what_the_formulas_say() -> None:
    random = np.random.default_rng(0)
    a, b = (random.dirichlet([0.5] * 6, 50).astype(np.float32) for _ in range(2))
    members = [
        Member(teacher_id="a", iteration=1, weight=3, temperature=2),
        Member(teacher_id="b", iteration=1, weight=1),
    ]
    cooled = a.astype(np.float64) ** 0.5
    cooled /= cooled.sum(axis=1, keepdims=True)
    arithmetic = 0.75 * cooled + 0.25 * b
    geometric = cooled**0.75 * b.astype(np.float64) ** 0.25
    geometric /= geometric.sum(axis=1, keepdims=True)

    assert np.allclose(fuse([a.copy(), b.copy()], members, "arithmetic"), arithmetic, atol=1e-6)
    assert np.allclose(fuse([a.copy(), b.copy()], members, "geometric"), geometric, atol=1e-5)


def test_images_that_one_teacher_lacks_are_counted_and_left_out(store: Store) -> None:
    a = give_labels(store, "a", 1)
    label_set = LabelSet(iteration=1, teacher_id="b", split="unlabeled")
    batch = LabelBatch(sample_ids=np.arange(30, 80), probabilities=a[:50])
    shards = write_labels(store, label_set, [batch], codec=DENSE, identity="b")
    commit_labels(store, shards, lineage={}, transaction="b")
    made = make_ensemble(store, "both", two(), iteration=1)

    assert made.images == {"unlabeled": 42}  # 30 to 71
    assert made.incomplete == {"unlabeled": 26}  # 12 to 29, 72 to 79


def test_ranges_of_ids_are_fused_one_by_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plstore.labels import fusion, writing

    for module in (fusion, writing):
        monkeypatch.setattr(module, "SHARD_IDS", 16)
    a = give_labels(store, "a", 1)
    b = give_labels(store, "b", 1, probabilities=np.roll(a, 1, axis=1))
    make_ensemble(store, "both", two(), iteration=1)
    shards = store.table("soft_labels").shards(partition={"teacher_id": "both"})

    assert [(s.first_id, s.last_id) for s in shards] == [
        (12, 15),
        (16, 31),
        (32, 47),
        (48, 63),
        (64, 71),
    ]
    assert np.abs(fused_labels(store, "both") - (a + b) / 2).max() < 2e-3


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([Member(teacher_id="a", iteration=1)], "two or more different teachers"),
        ([Member(teacher_id="a", iteration=1)] * 2, "two or more different teachers"),
        ([*two()[:1], Member(teacher_id="b", iteration=1, weight=0)], "has weight 0"),
        ([*two()[:1], Member(teacher_id="c", iteration=1)], "labeled no split together"),
    ],
)
def test_impossible_fusions_are_refused(
    store: Store, members: list[Member], words: str
) -> None:
    give_labels(store, "a", 1)
    give_labels(store, "b", 1)

    with pytest.raises(InputError, match=words):
        make_ensemble(store, "both", members, iteration=1)


def test_members_are_named_as_people_write_them(store: Store) -> None:
    give_labels(store, "a", 1)
    give_labels(store, "a", 2)

    assert member_of(store, "a") == Member(teacher_id="a", iteration=2)
    assert member_of(store, "a@1*0.5") == Member(teacher_id="a", iteration=1, weight=0.5)
    with pytest.raises(InputError, match="has no labels by 'x'; it has those by a"):
        member_of(store, "x")
    with pytest.raises(InputError, match=r"wanted TEACHER\[@ITERATION\]"):
        member_of(store, "a@one")
