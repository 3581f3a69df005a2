import json
from datetime import UTC, datetime, timedelta

import pytest

import plstore
from plstore.errors import InputError, StoreError
from plstore.query import run_sql
from plstore.store import Store, add_tag, delete_tag, numbered, resolve, tags
from plstore.upkeep import collect
from tests.conftest import give_labels

COUNT = "select count(*) as n from soft_labels"


def count(store: Store, as_of: object) -> int:
    return int(run_sql(store, COUNT, as_of=as_of)["n"][0].as_py())  # type: ignore[arg-type]  # each kind of it


def test_a_tag_names_a_snapshot_for_good(store: Store) -> None:
    give_labels(store, "t0", 1)
    add_tag(store, "iteration-1", message="as in the paper")
    give_labels(store, "t1", 2)
    (tag,) = tags(store)

    assert (count(store, "iteration-1"), count(store, None)) == (60, 120)
    assert tag.message == "as in the paper"
    assert tag.versions["soft_labels"] == 1


def test_tags_do_not_move(store: Store) -> None:
    add_tag(store, "first")

    with pytest.raises(InputError, match="tags do not move"):
        add_tag(store, "first")
    delete_tag(store, "first")
    assert tags(store) == []
    with pytest.raises(InputError, match="has no tag 'first'"):
        delete_tag(store, "first")


@pytest.mark.parametrize("name", ["12", "", "Upper", "../up", "a/b", ".hidden"])
def test_names_that_can_be_no_tag_are_refused(store: Store, name: str) -> None:
    with pytest.raises(InputError, match="at least one letter"):
        add_tag(store, name)


def test_commits_have_numbers_and_each_is_a_snapshot(store: Store) -> None:
    give_labels(store, "t0", 1)
    give_labels(store, "t1", 2)
    commits = numbered(store)
    last, table = commits[-1][0], commits[-1][1].table

    assert [number for number, _ in commits] == list(range(1, len(commits) + 1))
    assert last == sum(store.versions().values())
    assert table == "soft_labels"
    assert [count(store, n) for n in (0, last - 2, last - 1, last, str(last))] == [
        0,
        0,
        60,
        120,
        120,
    ]
    assert resolve(store, last) == store.versions()
    with pytest.raises(InputError, match=f"has commits 1 to {last}; found {last + 1}"):
        resolve(store, last + 1)


def test_a_moment_is_a_snapshot(store: Store) -> None:
    give_labels(store, "t0", 1)
    now = datetime.now(UTC)

    assert count(store, now) == 60
    assert count(store, now.isoformat()) == 60
    assert count(store, now.replace(tzinfo=None).isoformat()) == 60  # as the log prints it
    with pytest.raises(InputError, match="was made at"):
        resolve(store, now - timedelta(days=1))


def test_a_view_names_what_it_read(store: Store) -> None:
    give_labels(store, "t0", 1)
    balance = plstore.Balance(min_confidence=0.3, images_per_class=9, seed=0)
    view = plstore.select(
        store,
        plstore.Selection(view="v", teachers=["t0@1"], balance=balance),
    )
    give_labels(store, "t1", 2)

    assert count(store, view.key) == 60
    with pytest.raises(InputError, match="no view 'v' of version 7"):
        count(store, "v@7")


def test_what_is_no_snapshot_is_refused_with_all_that_are(store: Store) -> None:
    add_tag(store, "first")

    with pytest.raises(InputError, match=r"'frist' is no snapshot.*a tag \(first\)"):
        resolve(store, "frist")


def test_a_version_that_was_collected_says_so(store: Store) -> None:
    give_labels(store, name="once")
    give_labels(store, name="again", probabilities=give_labels(store, "t9", 1)[::-1].copy())
    old = store.table("soft_labels").version() - 2
    collect(store, grace=timedelta(0))

    with pytest.raises(StoreError, match="was collected"):
        store.table("soft_labels").read(version=old)


def test_a_clock_that_went_back_does_not_change_the_order_of_a_table(store: Store) -> None:
    for number in range(3):
        store.append("runs", [{"run": "r", "step": number}], identity=f"n{number}", step="test")
    entry = store.table("runs").root / "_delta_log" / f"{2:020d}.json"
    lines = [json.loads(line) for line in entry.read_text().splitlines()]
    for line in lines:
        if "commitInfo" in line:
            line["commitInfo"]["timestamp"] -= 3_600_000
    entry.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    reopened = plstore.open(store.root)
    found = [commit.version for _, commit in numbered(reopened) if commit.table == "runs"]
    last = len(numbered(reopened))

    assert found == [1, 2, 3]
    assert resolve(reopened, last - 1)["runs"] == 2
