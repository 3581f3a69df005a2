"""The frozen store of format version 1, read without plstore's own reader too."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import plstore
from plstore.codec import decode
from plstore.fingerprint import content_hash
from plstore.query import run_sql
from plstore.schema import FORMAT_VERSION
from plstore.store import Store
from plstore.upkeep import verify
from plstore.views import open_view
from tests.data.build_store import CODECS, probabilities

FROZEN = Path(__file__).parents[1] / "data" / "store-format-1"


@pytest.fixture
def frozen(tmp_path: Path) -> Store:
    return plstore.open(shutil.copytree(FROZEN, tmp_path / "store"))


def labels(store: Store, teacher: str) -> list[dict[str, Any]]:
    table = store.table("soft_labels")
    shards = table.shards(partition={"teacher_id": teacher})
    rows: list[dict[str, Any]] = table.dataset_of(shards).to_table().to_pylist()
    return rows


def test_every_later_version_reads_it(frozen: Store) -> None:
    (counts,) = run_sql(
        frozen,
        "select (from images select count(*)) as images,"
        " (from exclusions select any_value(reason)) as excluded,"
        " (from corrections select any_value(label)) as corrected,"
        " (from deletions select any_value(key)) as deleted",
    ).to_pylist()
    tagged = run_sql(frozen, "select count(*) as n from soft_labels", as_of="first")

    assert FORMAT_VERSION == 1  # a later one keeps this store and adds its own
    assert counts == {
        "images": 25,
        "excluded": "blurred",
        "corrected": 2,
        "deleted": "unlabeled/0009.png",
    }
    assert tagged["n"][0].as_py() == 28
    assert open_view(frozen, "v").num_deleted == 1
    assert {problem.what for problem in verify(frozen)} <= {"orphan_file"}


@pytest.mark.parametrize("teacher", CODECS)
def test_labels_are_decoded_as_the_page_says(frozen: Store, teacher: str) -> None:
    exact = probabilities(teacher)
    for row in labels(frozen, teacher):
        label, wanted = row["label"], exact[row["sample_id"] - 6]
        probs = np.zeros(3)
        others = np.setdiff1d(np.arange(3), label["class_ids"])
        if label["tail"] is None:
            probs[others] = label["residual"] / max(len(others), 1)
        else:
            steps, *codes = label["tail"]
            parts = np.array(codes) / steps
            roots = np.where(parts == 1, 0.25 / steps, 1 - parts)
            shares = roots**4 / max((roots**4).sum(), 1e-30) * label["residual"]
            probs[others] = np.minimum(shares, label["probs"][0] * (1 - 2**-11))
        probs[label["class_ids"]] = label["probs"]
        probs /= probs.sum()

        assert row["class_id"] == label["class_ids"][0] == wanted.argmax()
        assert row["confidence"] == wanted.max()
        if teacher != "hard":
            assert np.abs(probs - wanted).max() < 0.05
    table = frozen.table("soft_labels")
    rows = table.dataset_of(table.shards(partition={"teacher_id": teacher})).to_table()
    decoded = decode(rows["label"].combine_chunks(), 3)
    assert (decoded.argmax(axis=1) == rows["class_id"].to_numpy()).all()


def test_names_logs_and_markers_are_as_the_page_says(frozen: Store) -> None:
    marker = json.loads((frozen.root / "plstore.json").read_text())
    log = frozen.root / "soft_labels" / "_delta_log" / f"{1:020d}.json"
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    (add,) = (action["add"] for action in actions if "add" in action)
    info = next(action["commitInfo"] for action in actions if "commitInfo" in action)
    identities = {action["txn"]["appId"] for action in actions if "txn" in action}
    first = (log.parent / f"{0:020d}.json").read_text().splitlines()
    protocol = next(json.loads(line)["protocol"] for line in first if '"protocol"' in line[:20])
    data = (frozen.root / "soft_labels" / add["path"]).read_bytes()
    schema = pq.read_schema(frozen.root / "soft_labels" / add["path"])

    assert (marker["format_version"], marker["profile"]) == (1, "compact")
    assert add["path"].endswith(f"-{content_hash(data)}.parquet")
    assert json.loads(add["stats"])["numRecords"] == 8
    assert json.loads(info["plstore.lineage"]) == {"step": "label"}
    assert info["plstore.transaction"] in identities
    assert (protocol["minReaderVersion"], protocol["minWriterVersion"]) == (1, 2)
    assert "iteration" not in schema.names
    assert json.loads((frozen.root / "_plstore/tags/first.json").read_text())["versions"]
