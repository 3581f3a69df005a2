"""SQL in a child of the command: what nothing else stops is stopped, and it says so."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plstore.store import Store
from tests.conftest import give_labels

STUCK = "select pg_sleep(60) as sample_id"
LARGE = "len(list_sort(range(300000000 + t0.class_id))) > 0"


def plstore(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "plstore.cli.main", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def files(store: Store) -> dict[Path, int]:
    ours = (path for path in store.root.rglob("*") if path.is_file())
    return {path: path.stat().st_mtime_ns for path in ours if "_plstore" not in path.parts}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sql", STUCK, "--seconds", "0.5"], "ran longer than 0.5 s and was stopped"),
        (["select", "v", "--teacher", "t0", "--where", LARGE, "--memory", "200MB"], "memory"),
        pytest.param(
            ["select", "v", "--teacher", "t0", "--seconds", "0.5", "--query"],
            "ran longer than",
            marks=pytest.mark.nightly,
        ),
        pytest.param(
            ["sql", "select * from range(9000000)", "--memory", "200MB"],
            "ask for less",
            marks=pytest.mark.nightly,
        ),
    ],
)
def test_sql_of_the_command_line_is_ended_at_its_limits(
    store: Store, tmp_path: Path, words: list[str], message: str
) -> None:
    give_labels(store)
    own = tmp_path / "own.sql"
    columns = "0 as class_id, 0.5 as confidence, 'kept' as outcome, 1 as copies"
    header = "-- Mine.\n--\n-- grain: image\n-- column sample_id bigint: it\n"
    own.write_text(f"{header}{STUCK}, {columns}")
    before = files(store)
    done = plstore(*words, *([own] if words[-1] == "--query" else []), "--store", store.root)

    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert files(store) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_command_that_was_ended(store: Store, number: int) -> None:
    command = [sys.executable, "-m", "plstore.cli.main", "sql", STUCK]
    command += ["--store", str(store.root)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    child = 0
    while not child:
        time.sleep(0.05)
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        child = int(listed[0]) if listed else 0
    while len(list(Path(f"/proc/{child}/task").iterdir())) < 5:  # DuckDB is at work
        time.sleep(0.05)
    process.send_signal(number)
    _, message = process.communicate(timeout=60)
    while Path(f"/proc/{child}").is_dir():
        time.sleep(0.05)

    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 3)
    assert number == signal.SIGKILL or "interrupted" in message


def test_exit_codes_and_output_are_those_of_the_verb(store: Store) -> None:
    chosen = "select sample_id from images where sample_id < 3"
    done = plstore("exclude", "--query", chosen, "--store", store.root, "--format", "csv")
    refused = plstore("exclude", "--query", "select 1 as one", "--store", store.root)

    assert (done.returncode, done.stdout) == (0, "named,newly excluded\n3,3\n")
    assert refused.returncode == 2
    assert refused.stderr.count("plstore: ") == 1


def test_json_of_sql_has_exact_numbers(store: Store) -> None:
    sql = "select sum(9007199254740993) as n, 1.50::decimal(5, 2) as d, 'nan'::float as x"
    done = plstore("sql", sql, "--store", store.root, "--format", "json")

    assert done.stdout == (
        '[\n  {\n    "n": 9007199254740993,\n    "d": 1.50,\n    "x": null\n  }\n]\n'
    )
