"""Predictions that people have become labels."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from plstore.codec import Codec, decode
from plstore.errors import InputError
from plstore.exchange import match_predictions
from plstore.exchange.predictions import keep_predictions
from plstore.store import Store
from plstore.upkeep import verify
from tests.conftest import CLASS_NAMES

Floats = npt.NDArray[np.float32]


def keep(store: Store, path: Path, **options: object) -> Floats:
    with match_predictions(store, path, **options) as matched:  # type: ignore[arg-type]  # passed through
        keep_predictions(
            store, matched, teacher_id="mine", iteration=1, codec=Codec(k=3), source="x"
        )
    rows = store.table("soft_labels").read().sort_by("sample_id")
    return decode(rows["label"].combine_chunks(), 3)


@pytest.fixture
def predicted(store: Store) -> tuple[Store, Floats, list[str]]:
    rows = store.table("images").read().sort_by("sample_id").to_pylist()
    keys = [row["key"] for row in rows if row["split"] in {"unlabeled", "validation"}]
    probs = np.random.default_rng(0).dirichlet([1] * 3, len(keys)).astype(np.float32)
    return store, probs, keys


Predicted = tuple[Store, Floats, list[str]]


@pytest.mark.parametrize(
    "kind", ["npy-keys", "npy-ids", "csv", "parquet-columns", "parquet-list"]
)
def test_predictions_become_a_teachers_labels(
    predicted: Predicted, tmp_path: Path, kind: str
) -> None:
    store, probs, keys = predicted
    order = np.random.default_rng(1).permutation(len(keys))  # in any order
    shuffled, names = probs[order], [keys[i] for i in order]
    columns = {name: pa.array(shuffled[:, i]) for i, name in enumerate(CLASS_NAMES)}
    options: dict[str, object] = {}
    path = tmp_path / f"predictions.{kind.partition('-')[0]}"
    if kind == "csv":
        pyarrow.csv.write_csv(pa.table({"key": names, **columns}), path)
    elif kind == "parquet-columns":
        pq.write_table(pa.table({"key": names, **columns}), path, row_group_size=7)
    elif kind == "parquet-list":
        pq.write_table(pa.table({"sample_id": order + 12, "probs": list(shuffled)}), path)
    else:
        np.save(path, shuffled)
        ids = tmp_path / ("ids.txt" if kind == "npy-keys" else "ids.npy")
        if kind == "npy-keys":
            ids.write_text("".join(f"{name}\n" for name in names))
        else:
            np.save(ids, order + 12)
        options["ids"] = ids
    decoded = keep(store, path, **options)
    (teacher,) = store.table("teachers").read().to_pylist()

    assert np.abs(decoded - probs).max() < 2e-3
    assert teacher["role"] == "predictions"
    assert verify(store) == []


def test_logits_get_a_softmax(predicted: Predicted, tmp_path: Path) -> None:
    store, probs, keys = predicted
    np.save(tmp_path / "p.npy", np.log(probs) + 3)
    (tmp_path / "ids.txt").write_text("\n".join(keys))
    decoded = keep(store, tmp_path / "p.npy", ids=tmp_path / "ids.txt", logits=True)

    assert np.abs(decoded - probs).max() < 2e-3


def test_predictions_of_unknown_images_are_counted(
    predicted: Predicted, tmp_path: Path
) -> None:
    store, probs, keys = predicted
    np.save(tmp_path / "p.npy", probs)
    (tmp_path / "ids.txt").write_text("\n".join([*keys[:-2], "who.png", "where.png"]))
    with match_predictions(store, tmp_path / "p.npy", ids=tmp_path / "ids.txt") as matched:
        assert matched.num_unknown == 2
        assert sum(matched.counts.values()) == len(keys) - 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p[:, :2], r"has shape \(66, 2\); wanted \[rows, 3\]"),
        (lambda p: p[:-1], "has 65 rows, and there are 66 ids"),
        (lambda p: p * 5, "Logits want --logits"),
    ],
)
def test_predictions_that_are_wrong_are_refused(
    predicted: Predicted, tmp_path: Path, change: object, words: str
) -> None:
    store, probs, keys = predicted
    np.save(tmp_path / "p.npy", change(probs))  # type: ignore[operator]  # a function
    (tmp_path / "ids.txt").write_text("\n".join(keys))

    with pytest.raises(InputError, match=words):
        keep(store, tmp_path / "p.npy", ids=tmp_path / "ids.txt")
    assert store.table("soft_labels").dataset().count_rows() == 0


def test_one_image_twice_is_refused(predicted: Predicted, tmp_path: Path) -> None:
    store, probs, keys = predicted
    np.save(tmp_path / "p.npy", probs)
    (tmp_path / "ids.txt").write_text("\n".join([keys[0], *keys[:-1]]))

    with pytest.raises(InputError, match="more than one prediction"):
        keep(store, tmp_path / "p.npy", ids=tmp_path / "ids.txt")


def test_predictions_of_one_teacher_add_up_and_replace_only_when_told(
    predicted: Predicted, tmp_path: Path
) -> None:
    store, probs, keys = predicted
    other = np.roll(probs, 1, axis=1)

    def put(name: str, values: Floats, names: list[str], *, replace: bool = False) -> None:
        np.save(tmp_path / f"{name}.npy", values)
        (tmp_path / f"{name}.txt").write_text("\n".join(names))
        paths = tmp_path / f"{name}.npy", tmp_path / f"{name}.txt"
        with match_predictions(store, paths[0], ids=paths[1]) as matched:
            keep_predictions(
                store,
                matched,
                teacher_id="mine",
                iteration=1,
                codec=Codec(k=3),
                source=name,
                replace=replace,
            )

    def classes() -> list[int]:
        rows = store.table("soft_labels").read().sort_by("sample_id")
        found: list[int] = rows["class_id"].to_pylist()
        return found

    put("first", probs[:30], keys[:30])
    put("rest", probs[30:], keys[30:])
    whole = classes()
    put("rest", probs[30:], keys[30:])  # once more
    with pytest.raises(InputError, match="66 of these images have labels by 'mine' already"):
        put("other", other, keys)
    put("other", other, keys, replace=True)
    replaced = classes()
    put("again", probs, keys, replace=True)

    assert whole == probs.argmax(axis=1).tolist()
    assert replaced == other.argmax(axis=1).tolist()
    assert classes() == whole
    assert verify(store) == []


def test_a_trained_teachers_name_is_not_taken_by_predictions(
    predicted: Predicted, tmp_path: Path
) -> None:
    store, probs, keys = predicted
    store.append(
        "teachers", [{"teacher_id": "mine", "role": "teacher"}], identity="t", step="x"
    )
    np.save(tmp_path / "p.npy", probs)
    (tmp_path / "ids.txt").write_text("\n".join(keys))

    with pytest.raises(InputError, match="has a teacher named 'mine'"):
        keep(store, tmp_path / "p.npy", ids=tmp_path / "ids.txt")


def test_numbers_in_a_column_that_is_not_sample_id_are_keys(
    predicted: Predicted, tmp_path: Path
) -> None:
    store, probs, _ = predicted
    columns = {name: pa.array(probs[:, i]) for i, name in enumerate(CLASS_NAMES)}
    pyarrow.csv.write_csv(pa.table({"id": np.arange(66), **columns}), tmp_path / "p.csv")
    with match_predictions(store, tmp_path / "p.csv") as matched:
        assert (matched.num_unknown, matched.counts) == (66, {})
