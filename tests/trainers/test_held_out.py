"""A run leaves out images to train on that are in validation or test, and says how many."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import plstore
from plstore.exchange import parquet_folder, write_parquet_folder
from plstore.query import run_sql
from trainers.data import sample_folder

SETTINGS = [
    *("train.steps=2", "schedule.warmup_steps=1", "train.labeled_batch=4", "iterations=1"),
    *("control=false", "select.min_confidence=0", "select.images_per_class=1"),
    *("data.limit_unlabeled=60", "data.source=parquet"),
]


@pytest.mark.nightly
def test_a_run_leaves_out_what_is_held_out_and_says_how_many(tmp_path: Path) -> None:
    source = parquet_folder(sample_folder(), dataset="d")
    records = list(source.records())
    first = {split: [r for r in records if r.split == split][:60] for split in source.splits}
    pool, test = first["unlabeled"], first["test"]
    pool[:3] = [replace(r, data=test[n].data) for n, r in enumerate(pool[:3])]
    kept = [record for some in first.values() for record in some]
    write_parquet_folder(tmp_path / "data", replace(source, records=lambda: iter(kept)))
    words = [sys.executable, "-m", "plstore.cli.main", "run", "fashion_mnist"]
    for setting in (*SETTINGS, f"data.path={tmp_path / 'data'}"):
        words += ["--set", setting]
    done = subprocess.run(
        [*words, "--store", str(tmp_path / "store")], check=True, capture_output=True, text=True
    )
    rows = run_sql(
        plstore.open(tmp_path / "store"),
        "select count(*) as n from view_rows where content_hash in "
        "(select content_hash from images where split in ('validation', 'test'))",
    ).to_pylist()

    assert "held_out 3" in done.stderr
    assert rows == [{"n": 0}]
