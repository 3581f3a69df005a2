"""Finished runs are kept side by side, and each can be reported again."""

from pathlib import Path

import pytest

import plstore
from plstore.errors import InputError
from plstore.store import Store
from tests.cli.shell import shell
from tests.trainers.test_run import TRAIN, recipe


def test_a_second_run_leaves_the_first_to_be_read(store: Store, tmp_path: Path) -> None:
    assert plstore.list_runs(store) == []
    first = plstore.run(recipe(), store, device="cpu")
    second = plstore.run(recipe(train={**TRAIN, "steps": 4}), store, device="cpu")
    kept = plstore.list_runs(store)
    again = plstore.run(recipe(), store, device="cpu")

    assert [run.run_id for run in kept] == [first["run"], second["run"]]
    assert plstore.list_runs(store) == kept  # the same run, finished when it was first
    assert again["students"] == first["students"] == kept[0].result["students"]
    assert plstore.find_run(store).run_id == second["run"]
    assert plstore.find_run(store, first["run"][:6]).row()["best"] == first["best"]
    plstore.report_run(store, plstore.find_run(store, first["run"]), tmp_path / "first.html")
    assert first["recipe_hash"] in (tmp_path / "first.html").read_text()


def test_a_run_that_is_not_there_is_said_with_those_that_are(store: Store) -> None:
    with pytest.raises(InputError, match="has no finished run; it has none; 'plstore run'"):
        plstore.find_run(store)
    made = plstore.run(recipe(), store, device="cpu")
    with pytest.raises(InputError, match=f"0 finished runs 'zz'; it has {made['run']}"):
        plstore.find_run(store, "zz")
    plstore.run(recipe(seed=1), store, device="cpu")
    with pytest.raises(InputError, match="has 2 finished runs ''"):
        plstore.find_run(store, "")


def test_the_shell_lists_runs_and_writes_a_report(store: Store, tmp_path: Path) -> None:
    made = plstore.run(recipe(), store, device="cpu")
    out = tmp_path / "again.html"
    listed, shown, written = (
        shell(*words, "--store", store.root).stdout
        for words in (["runs"], ["runs", made["run"]], ["report", "--out", out])
    )

    assert made["run"] in listed
    assert made["best"] in listed
    assert made["students"][0]["teacher_id"] in shown
    assert written.strip() == str(out)
    assert "<h2>Result</h2>" in out.read_text()
