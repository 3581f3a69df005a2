"""Questions from the command line: what is chosen and what lacks is said, rows stay clean."""

import json

from plstore.store import Store
from plstore.upkeep import erase
from tests.cli.shell import shell
from tests.conftest import give_labels
from tests.query.test_audits import select


def test_what_was_chosen_goes_to_stderr_and_csv_stays_clean(store: Store) -> None:
    give_labels(store, "t0", 1)
    give_labels(store, "t1", 2)
    words = ("query", "run", "coverage/labels_by_file", "--store", store.root)
    done = shell(*words, "--format", "csv")
    lines = done.stdout.splitlines()

    assert done.returncode == 0
    assert lines[0].startswith("key,class_name,confidence,margin,second_class,label,")
    assert len(lines) == 1 + 60
    assert done.stderr == (
        "teacher t1, iteration 2: the newest labels; --teacher-id, --iteration for others\n"
    )


def test_an_empty_answer_is_explained_on_stderr(store: Store) -> None:
    words = ("--store", store.root, "--format", "csv")
    saved = shell("query", "run", "coverage/labels_by_file", *words)
    own = shell("sql", "select sample_id from soft_labels", *words)

    assert (saved.returncode, own.returncode) == (0, 0)
    assert own.stdout == "sample_id\n"
    assert saved.stderr == own.stderr
    assert own.stderr.startswith("no soft labels yet: plstore run, plstore label or")


def test_the_list_has_the_parameters_with_their_defaults() -> None:
    listed = json.loads(shell("query", "list", "--format", "json").stdout)
    parameters = {row["query"]: row["parameters"] for row in listed}

    assert parameters["coverage/verdicts"] is None
    assert parameters["coverage/labels_by_file"] == (
        "split='unlabeled', teacher_id=newest, iteration=newest, num_images=0"
    )


def test_help_of_a_query_explains_its_parameters(store: Store) -> None:
    words = ("query", "run", "selection/low_margin_images")
    named = shell(*words, "--store", store.root, "--help").stdout
    bare = shell("query", "run", "--help").stdout
    wrong = shell(*words, "--store", store.root, "--colour", "red")

    assert named.startswith(bare.rstrip())
    assert "smallest lead of the first class" in " ".join(named.split())
    assert "--num-images  rows wanted; 0 for all (bigint, 20 unless given)" in named
    assert "of the newest labels unless given" in " ".join(named.split())
    assert wrong.returncode == 2
    assert "'colour' is unknown. It takes teacher_id (varchar, of the newest" in wrong.stderr


def test_an_audit_of_notes_alone_is_clean(store: Store) -> None:
    give_labels(store)
    select(store)
    erase(store, [20], reason="asked for")
    done = shell("audit", "--store", store.root, "--format", "json")
    notes = {row["audit"]: row["notes"] for row in json.loads(done.stdout) if row["notes"]}

    assert done.returncode == 0
    assert notes == {"audit/views_with_deletions": 1}
    assert done.stderr == "no faults, 1 note; plstore query run audit/NAME lists them\n"
