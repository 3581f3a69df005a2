"""A full disk, a store that may not be written, a bad place: nothing that is stored is lost."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import plstore
from plstore.images import import_images
from plstore.store import Store
from plstore.upkeep import verify
from tests.conftest import CLASS_NAMES, give_labels, make_records

ROOT = Path(__file__).parents[2]

FULL_DISK = """
import resource, sys
import plstore
from plstore.errors import StoreError
from tests.conftest import give_labels
store = plstore.open(sys.argv[1])
store.class_names
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # a write beyond it fails
try:
    give_labels(store, "t5", 5)
except StoreError as error:
    print(error)
"""

READ_ONLY = """
import os, sys
import plstore
from plstore.errors import StoreError
from plstore.query import run_sql
from plstore.store import add_tag
from tests.conftest import give_labels
store = plstore.open(sys.argv[1])
give_labels_to = store.table("soft_labels")
if os.geteuid() == 0:
    os.seteuid(65534)  # root may write anywhere
print(run_sql(store, "select count(*) as n from soft_labels")["n"][0])
for work in (lambda: give_labels(store, "t5", 5), lambda: add_tag(store, "mine")):
    try:
        work()
    except StoreError as error:
        print(error)
"""


def program(text: str, *words: object) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", text, *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("limit", [0, 300, 2000])
def test_a_full_disk_is_a_clear_error_and_loses_nothing(store: Store, limit: int) -> None:
    give_labels(store)
    before = store.versions()
    (message,) = program(FULL_DISK, store.root, limit)
    left = {problem.what for problem in verify(store)}

    assert message.startswith("cannot ")
    assert "Nothing" in message
    assert "run the same command again" in message
    assert store.versions() == before
    assert left <= {"orphan_file"}
    give_labels(store, "t5", 5)
    assert store.table("soft_labels").dataset().count_rows() == 120


@pytest.fixture
def open_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:  # one that others may enter
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_store_that_may_only_be_read_is_read_and_says_so(open_folder: Path) -> None:
    store = plstore.create(open_folder / "store")
    import_images(store, make_records(), dataset="pets", class_names=CLASS_NAMES)
    give_labels(store)
    for folder, names, files in os.walk(store.root):
        Path(folder).chmod(0o555)
        for file in files:
            Path(folder, file).chmod(0o444)
        del names
    count, labeling, tagging = program(READ_ONLY, store.root)
    for folder, *_ in os.walk(store.root):
        Path(folder).chmod(0o755)

    assert count == "60"
    for message in (labeling, tagging):
        assert "Permission denied" in message
        assert "nothing stored is lost" in message
    assert store.table("soft_labels").dataset().count_rows() == 60
