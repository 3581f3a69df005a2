"""Pools that are not as the labeled images, made of real ones."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import plstore
from plstore.errors import InputError, RecipeError
from plstore.exchange import Source
from tests.conftest import encode
from trainers.data.pools import UnknownTruthError
from trainers.recipe import check_recipe
from trainers.sections import Data
from trainers.sources import open_source


def truths(source: Source) -> Counter[str | None]:
    return Counter(r.truth for r in source.records() if r.split == "unlabeled")


@pytest.fixture(scope="module")
def plain() -> Source:
    return open_source(Data(), 0)


def test_a_long_tailed_pool_has_the_imbalance_that_is_asked_for(plain: Source) -> None:
    tail = open_source(Data(imbalance=10), 3)
    counts = sorted(truths(tail).values())
    again = open_source(Data(imbalance=10), 3)
    other = open_source(Data(imbalance=10), 4)

    assert counts[-1] == min(truths(plain).values())
    assert counts[-1] / counts[0] == pytest.approx(10, rel=0.02)
    ratios = [after / before for before, after in pairwise(counts)]
    assert ratios == pytest.approx([10 ** (1 / 9)] * 9, rel=0.03)
    assert tail.splits == {**plain.splits, "unlabeled": sum(counts)}
    assert list(tail.keys()) == list(again.keys()) == [r.key for r in tail.records()]
    assert tail.identity == again.identity != plain.identity
    assert truths(other) != truths(tail)
    assert set(tail.keys()) < set(plain.keys())


@pytest.mark.parametrize("pool", ["all", "in", "out"])
def test_classes_leave_the_label_space_and_stay_in_the_pool(plain: Source, pool: str) -> None:
    data = Data.model_validate({"classes_out": 2, "pool": pool})
    left = open_source(data, 0)
    everything = truths(plain)
    gone = sum(everything[name] for name in plain.class_names[8:])
    inside = sum(everything.values()) - gone
    counts = truths(left)

    assert list(left.class_names) == list(plain.class_names)[:8]
    assert {r.label for r in left.records() if r.split != "unlabeled"} == set(left.class_names)
    assert left.splits["labeled"] == 240
    assert counts[None] == (0 if pool == "in" else gone)
    assert sum(counts.values()) - counts[None] == (0 if pool == "out" else inside)
    assert left.splits["unlabeled"] == sum(counts.values())


def folders(root: Path, unlabeled: str) -> Data:
    random = np.random.default_rng(0)
    for number in range(24):
        name = f"class-{number % 3}"
        for place in (f"labeled/{name}", unlabeled.replace("CLASS", name)):
            path = root / place / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(random.integers(0, 256, (9, 9), dtype=np.uint8)))
    values = {"labeled": str(root / "labeled"), "unlabeled": str(root / "unlabeled")}
    return Data.model_validate({"source": "folders", **values})


def test_folders_say_the_true_class(tmp_path: Path) -> None:
    data = folders(tmp_path, "unlabeled/CLASS")
    out = open_source(data.model_copy(update={"classes_out": 1, "pool": "out"}), 0)

    assert out.splits["unlabeled"] == 8
    assert all("class-2" in r.key for r in out.records() if r.split == "unlabeled")
    imported = plstore.import_images(plstore.create(tmp_path / "store"), out)
    assert imported.counts.splits["unlabeled"] == 8
    assert sum(imported.counts.splits.values()) == 8 + 16


def test_a_pool_of_unknown_truth_and_of_no_classes(tmp_path: Path) -> None:
    data = folders(tmp_path, "unlabeled/anywhere")
    with pytest.raises(UnknownTruthError, match="folders named as the classes"):
        open_source(data.model_copy(update={"imbalance": 3.0}), 0)
    with pytest.raises(InputError, match="classes_out is 2, and there are 3 classes"):
        open_source(data.model_copy(update={"classes_out": 2}), 0)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"pool": "out"}, "pool 'out' is of domains: set classes_out"),
        ({"imbalance": 1}, "data.imbalance: found 1"),
        ({"source": "store", "imbalance": 2}, "'store' has none"),
    ],
)
def test_what_a_recipe_may_not_say(data: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        check_recipe({"name": "x", "data": data}, "here")


def test_other_recipes_have_the_identity_of_before() -> None:
    plain = check_recipe({"name": "x"}, "here")
    tail = check_recipe({"name": "x", "data": {"imbalance": 2}}, "here")

    assert plain.hash != tail.hash
    assert plain.hash == "54eb46f63eaa0216"  # as in 0.6.0
