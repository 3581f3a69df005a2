"""Predictions in tables, as spreadsheets, pandas and plstore itself write them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import plstore
from plstore.cli.importing import import_predictions
from plstore.errors import InputError
from plstore.exchange import PREDICTIONS_KEY
from plstore.images import ImageRecord, import_images
from plstore.report.output import Format, render
from plstore.store import Store
from tests.conftest import CLASS_NAMES, make_records
from tests.exchange.predicted import KEYS, NUM, PROBS, keep, kept, pool, taken, wide, written


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """For tests that write nothing."""
    store = plstore.create(tmp_path_factory.mktemp("images") / "store")
    import_images(store, make_records(), dataset="pets", class_names=CLASS_NAMES)
    return store


@pytest.mark.parametrize("start", ["", "prob_", "p_", "logit ", "softmax/"])
@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_columns_of_classes_may_start_alike(
    images: Store, tmp_path: Path, start: str, ending: str
) -> None:
    rows = {"key": KEYS, "split": ["x"] * NUM}
    rows |= {f"{start}{name}": PROBS[:, i].tolist() for i, name in enumerate(CLASS_NAMES)}
    table, path = pa.table(rows), tmp_path / f"p.{ending}"
    if ending == "csv":
        pyarrow.csv.write_csv(table, path)
    elif ending == "parquet":
        pq.write_table(table.cast(pa.schema([*table.schema])), path)
    else:
        path.write_text(json.dumps(table.to_pylist()))
    _, found = taken(images, path)

    assert np.abs(found - PROBS).max() < 2e-3


def test_logits_of_classes_that_the_store_lacks_are_not_dropped(
    images: Store, tmp_path: Path
) -> None:
    (tmp_path / "p.csv").write_text("key,z_cat,z_dog,z_owl,z_cow\nunlabeled/0012.png,1,2,3,9\n")
    with pytest.raises(InputError, match="has a column 'z_cow', of no class of the store"):
        taken(images, tmp_path / "p.csv", logits=True)


def test_a_spreadsheet_with_semicolons_and_decimal_commas_is_read(
    images: Store, tmp_path: Path
) -> None:
    path = wide(tmp_path / "p.csv", KEYS, start="p_", text="{:.6f}")
    text = path.read_text().replace(",", ";").replace(".", ",").replace(",png", ".png")
    path.write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    _, found = taken(images, path)

    assert np.abs(found - PROBS).max() < 2e-3


def test_leading_zeros_of_names_are_kept(tmp_path: Path) -> None:
    store = pool(tmp_path / "s", "007", "7")
    path = tmp_path / "p.csv"
    path.write_text("name,cat,dog,owl\n7,1,0,0\n007,0,0,1\n")
    _, found = taken(store, path, id_column="name")

    assert found.argmax(axis=1).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("key,prob_cat,prob_dog\n", "no column for 1 of the 3 classes, such as 'prob_owl'"),
        ("key,cat,label\n", "no column for 2 of the 3 classes, such as 'dog'"),
        ("key,x\n", "labels in a column named label or class"),
        ("key,x\na,1\n", "It has key, x"),
        ("name,cat,dog,owl\n", "has no column 'sample_id or key or path .*it has name, cat"),
        (
            "key,p_cat,p_dog,p_owl,z_cat,z_dog,z_owl\n",
            "columns 'p_cat' and 'z_cat'; which are the predictions",
        ),
        ("key,cat,dog,owl\n", "has no rows"),
        ("key,cat,dog,owl,cat\n", "2 columns named 'cat'"),
        (
            "key,cat,dog,owl\nunlabeled/0012.png,1,,0\n",
            r"row 1 \('unlabeled/0012\.png'\) holds",
        ),
        ("key,cat,dog,owl\nunlabeled/0012.png,1,no,0\n", "Row #2: .*invalid value 'no'"),
        ("sample_id,cat,dog,owl\n12,1,0,0\nx,1,0,0\n", "sample_id is string, and 'x' in row 2"),
        ("key,label\nunlabeled/0012.png,cow\n", "row 1 has the label 'cow', .* cat, dog, owl"),
        ("key,label,confidence\na,cat,\n", "row 1 has the confidence nan; .* 0.333 to 1"),
        ("key,label,confidence\na,,\nb,cat,87.5\n", "row 2 has the confidence 87.5"),
        ("key,label,confidence\na,cat,0.1\n", "row 1 has the confidence 0.1"),
    ],
)
def test_tables_that_are_wrong_are_told_apart(
    images: Store, tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        taken(images, tmp_path / "p.csv")


def test_labels_get_their_confidence_and_the_rest_is_shared_out(
    store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "p.csv"
    path.write_text(
        "path,class,confidence\n/x/0012.png,dog,0.7\n0013.png,owl,1\n0014.png,owl,0.333\n"
    )
    matched = keep(store, path)
    decoded = kept(store)

    assert decoded[0] == pytest.approx([0.15, 0.7, 0.15], abs=1e-3)
    assert decoded[1].tolist() == [0, 0, 1]
    assert decoded[2] == pytest.approx([1 / 3] * 3, abs=2e-3)
    assert decoded.argmax(axis=1).tolist() == [1, 2, 2]
    assert (
        matched.notes[0]
        == "labels of column 'class' of p.csv, with the confidence of 'confidence'"
    )
    with pytest.raises(InputError, match="holds labels, no logits; leave out --logits"):
        keep(store, path, logits=True)


def test_labels_without_confidence_are_certain(images: Store, tmp_path: Path) -> None:
    table = pa.table({"sample_id": [12, 13, 14], "label": ["owl", None, "cat"]})
    pq.write_table(table, tmp_path / "p.parquet")
    matched, found = taken(images, tmp_path / "p.parquet")

    assert found.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert matched.left_out == {"no class": 1}


def test_labels_of_numbers_are_those_of_the_store(tmp_path: Path) -> None:
    record = make_records()[0]
    names = [str(n) for n in range(11)]
    images = [
        ImageRecord(key=f"{n}.png", split="unlabeled", data=record.data) for n in range(4)
    ]
    store = plstore.create(tmp_path / "s")
    import_images(store, images, dataset="d", class_names=names)
    keys = [f"{n}.png" for n in range(4)]
    pq.write_table(pa.table({"key": keys, "label": [10.0, 2.0, -1.0, None]}), tmp_path / "p.pq")
    matched, found = taken(store, tmp_path / "p.pq")

    assert found.argmax(axis=1).tolist() == [10, 2]
    assert matched.left_out == {"no class": 2}


@pytest.mark.parametrize("form", ["csv", "json"])
@pytest.mark.parametrize("with_probabilities", [True, False])
def test_what_predict_writes_comes_back(
    images: Store, tmp_path: Path, form: Format, with_probabilities: bool
) -> None:
    rows: list[dict[str, Any]] = []
    for key, probs in zip(KEYS, PROBS.tolist(), strict=True):
        row: dict[str, Any] = {"path": key.partition("/")[2]}
        row |= {"class": CLASS_NAMES[int(np.argmax(probs))]}
        row |= {"confidence": round(max(probs), 6), "verdict": "accepted"}
        if with_probabilities:
            row |= {f"prob_{n}": round(p, 6) for n, p in zip(CLASS_NAMES, probs, strict=True)}
        rows.append(row)
    for row, verdict in zip(rows, ["truncated", "empty", "truncated"], strict=False):
        row |= {**dict.fromkeys(row), "path": row["path"], "verdict": verdict}
    path = tmp_path / f"predictions.{form}"
    path.write_text(render(rows, form) + "\n")
    matched, found = taken(images, path)

    assert matched.counts == {"unlabeled": NUM - 3}
    assert matched.left_out == {"empty": 1, "truncated": 2}
    assert np.abs(found.max(axis=1) - PROBS[3:].max(axis=1)).max() < 1e-3
    assert (found.argmax(axis=1) == PROBS[3:].argmax(axis=1)).all()
    assert (float(np.abs(found - PROBS[3:]).max()) < 1e-5) is with_probabilities


def own_lists(path: Path, class_names: Any, columns: dict[str, Any]) -> Path:  # noqa: ANN401
    """A Parquet file of lists that says in its metadata which classes they are of."""
    about = {PREDICTIONS_KEY: json.dumps({"class_names": class_names}).encode()}
    pq.write_table(pa.table(columns).replace_schema_metadata(about), path)
    return path


def test_lists_that_name_their_classes_are_matched_by_name(
    images: Store, tmp_path: Path
) -> None:
    verdicts = ["truncated", "empty", *["accepted"] * (NUM - 2)]
    lists = [None, None, *PROBS[2:, [2, 0, 1]].tolist()]
    columns = {"path": KEYS, "verdict": verdicts, "probabilities": lists}
    path = own_lists(tmp_path / "p.parquet", ["owl", "cat", "dog"], columns)
    matched, found = taken(images, path)

    assert np.abs(found - PROBS[2:]).max() < 1e-6
    assert matched.left_out == {"empty": 1, "truncated": 1}
    assert "the classes of p.parquet are matched by name" in matched.notes


@pytest.mark.parametrize(
    ("class_names", "words"),
    [
        (["cat", "dog", "cow"], "is of the classes cat, dog, cow; wanted those of the store"),
        ("cat", "has 'cat' for names of classes; wanted a list"),
        (None, "has None for names of classes"),
    ],
)
def test_lists_of_other_classes_are_refused(
    images: Store, tmp_path: Path, class_names: object, words: str
) -> None:
    columns = {"path": KEYS, "probabilities": PROBS.tolist()}
    path = own_lists(tmp_path / "p.parquet", class_names, columns)

    with pytest.raises(InputError, match=words):
        taken(images, path)


def test_a_list_that_is_missing_without_a_reason_is_no_prediction(
    images: Store, tmp_path: Path
) -> None:
    lists = [*PROBS[:-1].tolist(), None]
    pq.write_table(pa.table({"key": KEYS, "probs": lists}), tmp_path / "p.parquet")

    with pytest.raises(InputError, match=r"row 60 .* holds nan for class 0; wanted"):
        taken(images, tmp_path / "p.parquet")


def test_what_was_assumed_and_left_out_is_printed(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values, ids = written(tmp_path, "a", PROBS)
    import_predictions(str(store.root), values, "mine", ids=ids)
    array = capsys.readouterr()
    path = tmp_path / "p.csv"
    path.write_text("path,class,verdict\n0013.png,dog,accepted\n0014.png,,truncated\n")
    import_predictions(str(store.root), path, "other", format_="csv")
    table = capsys.readouterr()

    assert "a.npy is taken to be in the order of the store: cat, dog, owl" in array.err
    assert "'0013.png' for 'unlabeled/0013.png'" in table.err
    assert '"rows without a class, truncated",1' in table.out
