"""SQL in a process that is ended for it: nothing of it outlives a limit or reaches anything."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from benchmarks.hostile_sql import statements
from plstore.errors import InputError, QueryError
from plstore.query import Limits, run_isolated, run_sql
from plstore.query.isolated import _worker
from plstore.store import Store
from tests.conftest import give_labels

SECRET = "planted-51c9"  # noqa: S105  the one to be found


def test_the_answer_is_that_of_the_process_itself(store: Store) -> None:
    give_labels(store, "t0", 1)
    pins = store.versions()
    give_labels(store, "t1", 2)
    sql = "select sample_id, label, $more as more from soft_labels where confidence > $least"
    values: dict[str, Any] = {"least": 0.5, "more": [Decimal("1.5"), None]}

    found = run_isolated(store, sql, values, as_of=pins)
    assert found.equals(run_sql(store, sql, values, as_of=pins))
    assert found.num_rows > 0


def test_what_no_thread_can_stop_is_stopped(store: Store) -> None:
    with pytest.raises(QueryError, match=r"ran longer than 0\.5 s and was stopped"):
        run_isolated(store, "select pg_sleep(60)", limits=Limits(seconds=0.5))


@pytest.mark.parametrize(
    "sql",
    [
        "select md5(repeat('x', 1000000000))",
        "select len(list_sort(range(300000000)))",
        "select range, repeat('x', 1000) from range(1000000)",
    ],
)
def test_memory_that_duckdb_does_not_count_is_limited(store: Store, sql: str) -> None:
    with pytest.raises(QueryError, match="raise the memory limit"):
        run_isolated(store, sql, limits=Limits(memory="200MB", seconds=30))


def test_threads_may_ask_at_once(store: Store) -> None:
    def ask(number: int) -> object:
        sql = f"select count(*) + {number} as n from images"  # noqa: S608  a number
        return run_isolated(store, sql)["n"][0].as_py()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(16))) == [84 + number for number in range(16)]


def test_a_worker_that_was_ended_is_started_again(store: Store) -> None:
    run_isolated(store, "select 1")
    process = _worker._process
    assert process is not None
    process.send_signal(signal.SIGKILL)
    process.wait()

    assert run_isolated(store, "select 1 as one").to_pylist() == [{"one": 1}]


def test_errors_come_across_as_they_are(store: Store) -> None:
    with pytest.raises(QueryError, match="The tables are classes, images"):
        run_isolated(store, "select * from nope")
    with pytest.raises(InputError, match="memory limit 'much'"):
        run_isolated(store, "select 1", limits=Limits(memory="much"))


def tree(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_hostile_statements_reach_nothing(store: Store, tmp_path: Path) -> None:
    places = {"secret": tmp_path / "secret.txt", "inside": store.root / "inside.txt"}
    for path in places.values():
        path.write_text(f"{SECRET}\n")
    places |= {"out": tmp_path / "out", "store": store.root}
    places["out"].mkdir()
    before = tree(tmp_path)
    some = [text for kind, text in statements() if kind != "long"][::12]
    assert len(some) >= 25
    for text in some:
        sql = text
        for name, place in places.items():
            sql = sql.replace(f"{{{name}}}", str(place))
        assert SECRET not in told(store, sql), sql
        assert tree(tmp_path) == before, sql


def told(store: Store, sql: str) -> str:
    try:
        found = run_isolated(store, sql, limits=Limits(memory="200MB", seconds=0.5))
    except QueryError as error:
        return str(error)
    return str(found.slice(0, 100).to_pylist())


def test_a_statement_ends_with_who_asked_for_it(store: Store) -> None:
    (store.root / "ask.py").write_text(
        "import sys, plstore\n"
        "from plstore.query import run_isolated\n"
        "run_isolated(plstore.open(sys.argv[1]), 'select pg_sleep(60)')\n"
    )
    command = [sys.executable, str(store.root / "ask.py"), str(store.root)]
    asking = subprocess.Popen(command)
    family: list[int] = []
    while len(family) < 2:  # the worker, and its child for the statement
        time.sleep(0.05)
        family = descendants(asking.pid)
    asking.send_signal(signal.SIGKILL)
    asking.wait()
    while any(Path(f"/proc/{pid}").is_dir() for pid in family):
        time.sleep(0.05)


def descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found


def test_a_process_that_forked_has_a_worker_of_its_own(store: Store) -> None:
    run_isolated(store, "select 1")
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer = run_isolated(store, "select 7 as n")["n"][0].as_py()
        os.write(writing, str(answer).encode())
        os._exit(0)
    os.waitpid(pid, 0)

    assert os.read(reading, 9) == b"7"
    assert run_isolated(store, "select 8 as n").to_pylist() == [{"n": 8}]
