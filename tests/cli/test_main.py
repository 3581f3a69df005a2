import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plstore.store import Store
from tests.cli.shell import shell
from tests.conftest import give_labels, make_records


def plstore(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "plstore.cli.main", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | variables,
    )


def test_machines_read_stdout_and_people_stderr(store: Store) -> None:
    done = plstore(
        "sql",
        "select split, count(*) as n from images group by 1 order by 1",
        "--store",
        store.root,
        "--format",
        "json",
    )

    assert done.returncode == 0
    assert json.loads(done.stdout)[0] == {"split": "labeled", "n": 12}
    assert done.stderr == ""


def test_the_store_may_be_named_by_the_environment(store: Store) -> None:
    done = plstore("info", "--format", "csv", PLSTORE_STORE=str(store.root))

    assert done.returncode == 0
    assert "images,1,84,1," in done.stdout


def test_tables_are_for_people(store: Store) -> None:
    done = plstore(
        "sql",
        "select null as nothing, 'a [b]' as text, 0.1::float as number",
        "--store",
        store.root,
    )

    assert done.stdout.split("\n")[1].split() == ["-", "a", "[b]", "0.1"]
    assert "(1 row)" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sql", "drop table images"], "found DROP; wanted exactly one SELECT"),
        (["sql", "select * from nope"], "Table with name nope does not exist"),
        (["query", "run", "no/such"], "no saved query 'no/such'"),
        (["query", "run", "drift/flips_by_clas"], "did you mean drift/flips_by_class"),
        (["query", "run", "coverage/labels_by_file", "--colour", "1"], "It takes split (varc"),
        (
            ["query", "run", "coverage/labels_per_class", "--min-confidence", "high"],
            "--min-confidence is 'high'; wanted float",
        ),
        (["sql", "select 1", "--format", "xml"], "wanted table, json or csv"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    store: Store, words: list[str], message: str
) -> None:
    done = shell(*words, "--store", store.root)

    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""


def test_no_store_says_how_to_make_one(tmp_path: Path) -> None:
    done = plstore("log", "--store", tmp_path / "none")

    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "plstore init --store" in done.stderr


def test_init_import_query_log(tmp_path: Path) -> None:
    for record in make_records():
        name = record.label or "x"
        path = tmp_path / record.split / name / Path(record.key).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(record.data)
    (tmp_path / "unlabeled" / "broken.jpg").write_bytes(make_records()[0].data[:-9])
    home = tmp_path / "store"
    folders: list[str | Path] = [
        "--labeled",
        tmp_path / "labeled",
        "--unlabeled",
        tmp_path / "unlabeled",
    ]
    assert shell("init", "--store", home).returncode == 0
    imported = shell("import", "images", "--store", home, *folders, "--format", "json")
    listed = shell("query", "list", "--format", "json")
    log = shell("log", "--store", home, "--format", "json")

    assert json.loads(imported.stdout) == [
        {"what": "already there", "images": 0},
        {"what": "accepted", "images": 72},
        {"what": "truncated", "images": 1},
    ]
    assert "coverage/verdicts" in {row["query"] for row in json.loads(listed.stdout)}
    assert json.loads(json.loads(log.stdout)[0]["lineage"])["dataset"] == "images"
    assert shell("query", "show", "coverage/verdicts").stdout.startswith("-- What import made")


def test_a_saved_query_takes_its_parameters_as_options(store: Store) -> None:
    give_labels(store)
    done = plstore(
        "query",
        "run",
        "coverage/labels_per_class",
        "--min-confidence=0.5",
        "--store",
        store.root,
        "--format",
        "json",
    )

    assert {row["class_name"] for row in json.loads(done.stdout)} == {"cat", "dog", "owl"}


def test_a_dry_run_prints_steps_and_touches_nothing(tmp_path: Path) -> None:
    home = tmp_path / "store"
    done = shell(
        "run",
        "fashion_mnist",
        "--dry-run",
        "--store",
        home,
        "--format",
        "json",
        "--set",
        "train.labeled_batch=4",
        "--set",
        "label.views=true",
    )
    rows = json.loads(done.stdout)
    views = [row for row in rows if row["step"].startswith("label-views-")]

    assert [row["step"] for row in views] == ["label-views-1", "label-views-2", "label-views-3"]
    assert all(row["seconds"] > 0 and row["images"] == 75 * 12 for row in views), views
    assert [row["step"] for row in rows[:4]] == ["import", "labeled", "train-0", "evaluate-0"]
    assert rows[-1]["step"] == "total"
    assert rows[-1]["seconds"] > 0
    assert not home.exists()


def test_run_without_a_recipe_or_images_says_what_to_name() -> None:
    done = shell("run")

    assert done.returncode == 2
    assert "--labeled" in done.stderr


@pytest.mark.parametrize("verb", ["init", "run", "predict", "sql", "log", "info"])
def test_every_verb_explains_itself_with_an_example(verb: str) -> None:
    done = shell(verb, "--help")

    assert done.returncode == 0
    assert "--store" in done.stdout
    assert "Example" in done.stdout or verb in {"log", "info"}


def test_a_long_query_stops_when_it_is_interrupted(store: Store) -> None:
    sql = "select count(*) from range(100000000000) as a(n), range(1000) where n % 7 = 3"
    command = [sys.executable, "-m", "plstore.cli.main", "sql", sql, "--store", str(store.root)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=30)

    assert process.returncode == 3
    assert "interrupted" in message
