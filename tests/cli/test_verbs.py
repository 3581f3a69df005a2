"""Every verb that keeps a store, as people type it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plstore.store import Store
from tests.cli.shell import shell
from tests.conftest import give_labels, make_records


def rows(store: Store, *words: str | Path, code: int = 0) -> list[dict[str, Any]]:
    done = shell(*words, "--store", store.root, "--format", "json")
    assert done.returncode == code, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.mark.nightly
def test_a_working_day(store: Store, tmp_path: Path) -> None:
    give_labels(store, "t0", 1)
    first = rows(store, "select", "v", "--teacher", "t0", "--images-per-class", "9")
    tags = rows(store, "tag", "iteration-1", "-m", "first")
    rows(
        store, "exclude", "--query", "select sample_id from images where sample_id in (20, 21)"
    )
    (tmp_path / "right.csv").write_text("sample_id,label\n22,owl\n")
    corrected = rows(store, "correct", "--file", tmp_path / "right.csv")
    give_labels(store, "t1", 2)
    fused = rows(store, "fuse", "t0@1", "t1*2", "--teacher", "both", "--codec", "dense")
    flipped = rows(store, "diff", "t0", "t1", "--changes", "flipped,kept")
    count = "select count(*) as n from soft_labels"
    now, then = (
        rows(store, "sql", count, *as_of) for as_of in ([], ["--as-of", "iteration-1"])
    )
    rows(store, "compact")
    deleted = rows(store, "delete", "--ids", "23", "--reason", "asked for")
    could_go = rows(store, "gc")
    gone = rows(store, "gc", "--delete")
    exported = rows(store, "export", "v", tmp_path / "out", "--to", "webdataset")
    log = rows(store, "log")
    files = rows(store, "files", "soft_labels", "--as-of", "iteration-1")

    assert first[0]["n"] == "v@1"
    assert [(tag["tag"], tag["message"]) for tag in tags] == [("iteration-1", "first")]
    assert corrected == [{"named": 1, "newly corrected": 1, "without a label": 0}]
    assert fused == [{"split": "unlabeled", "fused": 60, "not labeled by all": 0}]
    assert sum(row["images"] for row in flipped) == 60
    assert (now, then) == ([{"n": 180}], [{"n": 60}])
    assert deleted[0] == {"what": "images deleted", "n": 1}
    assert could_go == gone != []
    assert rows(store, "gc") == []
    assert exported[0]["images"] > 0
    assert log[0]["number"] == len(log)
    assert next(row for row in log if row["tags"])["table"] == "views"
    assert [row["rows"] for row in files] == [59]
    assert rows(store, "verify") == []
    assert {row["table"]: row["rows"] for row in rows(store, "info")}["images"] == 83


def test_verify_exits_with_1_and_says_what_is_wrong(store: Store) -> None:
    path = Path(store.table("images").files()[0])
    data = bytearray(path.read_bytes())
    data[100] ^= 255
    path.write_bytes(data)
    (problem,) = rows(store, "verify", code=1)

    assert problem["what"] == "checksum"
    assert problem["where"].startswith("images/part-images-")


def test_a_selection_is_tried_made_and_made_anew(store: Store, tmp_path: Path) -> None:
    give_labels(store, "t0", 1)
    give_labels(store, "t1", 2)
    quotas = tmp_path / "quotas.csv"
    quotas.write_text("class,quota\ncat,5\nowl,9\n")
    own = tmp_path / "own.sql"
    own.write_text(
        "-- The sure ones.\n--\n-- grain: one row per (sample_id)\n"
        "-- param least float: confidence, 0 to 1\n-- param teacher_id varchar: whose\n"
        "-- column sample_id bigint: the image\n"
        "select sample_id, class_id, confidence, 'kept' as outcome, 1 as copies "
        "from soft_labels where teacher_id = $teacher_id and confidence > $least::float"
    )
    tried = rows(store, "select", "v", "--teacher", "t0", "--quotas", quotas, "--dry-run")
    made = rows(store, "select", "v", "--teacher", "t0", "--quotas", quotas)
    again = rows(
        store, "select", "w", "--teacher", "t1", "--relabel", "v@1", "--mode", "packed"
    )
    agreed = rows(
        store, "select", "x", "--teacher", "a=t0", "--teacher", "b=t1", "--agree", "2"
    )
    words = ("--query", own, "--parameter", "least=0.6")
    mine = rows(store, "select", "y", "--teacher", "t0", *words)
    draws = {row["class"]: row["draws"] for row in tried}

    assert draws["cat"] == 5
    assert draws["dog"] == 0
    assert draws["owl"] == 9
    assert draws["(all)"] == 14
    assert made[0]["n"] == "v@1"
    assert made[2] == {"what": "draws", "n": 12 + 14}
    assert again[1]["n"] == made[1]["n"]
    assert any(row["what"] == "dropped: no_agreement" for row in agreed)
    assert mine[0]["n"] == "y@1"


def test_an_audit_exits_with_1_where_something_is_wrong(store: Store) -> None:
    give_labels(store, "t0", 1)
    sound = rows(store, "audit")
    rows(store, "select", "v", "--teacher", "t0")
    rows(store, "exclude", "--ids", "0", "--reason", "blurred")
    found = {row["audit"]: row["faults"] for row in rows(store, "audit", code=1)}

    assert not any(row["faults"] or row["notes"] for row in sound)
    assert {name for name, n in found.items() if n} == {"audit/excluded_in_views"}


def test_predictions_come_in_by_one_command(store: Store, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    keys = [r.key for r in make_records() if r.split == "unlabeled"]
    np.save(tmp_path / "logits.npy", random.normal(size=(61, 3)))
    (tmp_path / "names.txt").write_text("\n".join([*keys, "unknown.png"]))
    words = ["import", "predictions", str(tmp_path / "logits.npy"), "--logits"]
    found = rows(store, *words, "--ids", tmp_path / "names.txt", "--teacher", "clip")

    assert found == [
        {"what": "unlabeled images labeled", "n": 60},
        {"what": "predictions of images not in the store", "n": 1},
        {"what": "predictions of refused images", "n": 0},
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sql", "select 1", "--as-of", "never"], "'never' is no snapshot"),
        (["exclude"], "exactly one of --ids, --file and --query"),
        (["exclude", "--ids", "a,b"], "--ids is 'a,b'; wanted numbers"),
        (
            ["exclude", "--query", "select 1 as one"],
            "wanted one that names images",
        ),
        (["exclude", "--query", "select 1.5::double as sample_id"], "sample_id is double"),
        (["delete", "--query", "select null::bigint as sample_id"], "with 1 nulls"),
        (["delete", "--ids", "999999"], "never were deleted from it"),
        (["sql", "select 1 as x, 2 as x"], "columns of the same name: x"),
        (
            ["select", "v", "--teacher", "t0", "--min-confidence", "9"],
            "min_confidence 9.0; wanted 0 up",
        ),
        (
            ["label", "--teacher", "t0", "--temperature", "-1"],
            "temperature is -1.0; wanted a number above 0",
        ),
        (["predict", "."], "has no teacher yet with a model"),
        (["correct", "--ids", "3"], "--ids without --label: what is their class?"),
        (["select", "v", "--teacher", "t0", "--parameter", "a=1"], "without --query"),
        (["select", "v", "--teacher", "t0", "--quotas", "no.csv"], "no.csv is no file"),
        (["sql", "select 1", "--memory", "much"], "memory limit 'much'"),
        (["query", "run", "coverage/labels_per_class", "--min-confidence", "x"], "is 'x'"),
        (["fuse", "a", "b", "--teacher", "c"], "has no labels by 'a'; it has those by t0"),
        (["fuse", "t0", "t0", "--teacher", "c", "--method", "max"], "wanted arithmetic, g"),
        (["select", "v", "--teacher", "x"], "has no labels by 'x'"),
        (["diff", "1", "9"], "'9' is no teacher, iteration or view"),
        (["export", "nothing", "out"], "has no labels by 'nothing'"),
        (["label", "--teacher", "t9", "--splits", "some"], "--splits has ['some']"),
        (["label", "--teacher", "t9", "--part", "4/4"], "--part is '4/4'; wanted such as"),
        (["gc", "--grace-hours", "-1"], "--grace-hours is -1"),
        (["import", "table", "no.csv"], "no.csv is no file"),
        (["files", "nope"], "no table 'nope'; the tables are classes"),
    ],
)
def test_bad_words_get_one_message(store: Store, words: list[str], message: str) -> None:
    give_labels(store)
    done = shell(*words, "--store", store.root)

    assert done.returncode == 2
    assert message in done.stderr
