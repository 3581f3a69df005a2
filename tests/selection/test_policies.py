"""Every policy against the plain arithmetic of what it promises, on many random stores."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import plstore
from plstore.errors import InputError, StoreError
from plstore.query import run_query
from plstore.query.macros import TICKETS, create_macros
from plstore.query.session import connect
from plstore.selection import Balance, Selection, balanced, preview, select
from plstore.selection.balance import Policy, share_out
from plstore.selection.balanced import choose_balanced
from plstore.selection.counts import edge, floor_bucket
from plstore.selection.engine import scratch_connection
from plstore.store import Store
from plstore.upkeep import collect, erase
from plstore.views import open_view
from tests.conftest import CLASS_NAMES, give_labels

NUM = 60


def decide(store: Store, balance: Balance) -> tuple[dict[str, Any], pa.Table]:
    with ExitStack() as stack:
        selection = Selection(view="v", teachers=["t0"], balance=balance)
        choice = choose_balanced(store, selection, store.versions(), stack, only_counts=False)
        parts = list(choice.rows())
    rows = pa.Table.from_batches(parts) if parts else pa.table({"sample_id": []})
    return dict(choice.counts), rows


def draws_of(ids: npt.NDArray[np.int64], seed: int) -> list[int]:
    with closing(duckdb.connect()) as connection:
        create_macros(connection)
        connection.register("ids", pa.table({"id": ids}))
        sql = "select lottery(id, $seed) as draw from ids order by id"
        return [draw for (draw,) in connection.sql(sql, params={"seed": seed}).fetchall()]


def by_hand(probs: npt.NDArray[np.float32], balance: Balance) -> dict[int, tuple[int, int]]:
    """Return class and copies by sample id: `exact`, `cap` and `none` as one would say them."""
    ids = np.arange(12, 12 + len(probs))
    confidence, classes = probs.max(axis=1), probs.argmax(axis=1)
    draws = dict(zip(ids.tolist(), draws_of(ids, balance.seed), strict=True))
    kept: dict[int, tuple[int, int]] = {}
    for class_id in range(probs.shape[1]):
        here = (classes == class_id) & (confidence > np.float32(balance.min_confidence))
        k = balance.images_per_class or int(here.sum())
        order = sorted(ids[here].tolist(), key=lambda n: (-confidence[n - 12], n))[:k]
        if not order:
            continue
        base, rest = divmod(k, len(order)) if balance.policy == "exact" else (1, 0)
        lucky = set(sorted(order, key=lambda n: (draws[n], n))[:rest])
        kept |= {n: (class_id, base + (n in lucky)) for n in order}
    return kept


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    policy=st.sampled_from(["exact", "cap", "none"]),
    k=st.integers(1, 70),
    floor=st.sampled_from([0.0, 0.3, 0.4, 0.4567, 0.5, 0.99]),
    seed=st.integers(0, 2**40),
    steps=st.sampled_from([3, 20, 1000]),
)
def test_a_policy_keeps_what_it_promises(
    tmp_path_factory: pytest.TempPathFactory,
    policy: Policy,
    k: int,
    floor: float,
    seed: int,
    steps: int,
) -> None:
    store = labeled_store(tmp_path_factory)
    random = np.random.default_rng([k, steps])
    values = np.round(random.dirichlet([0.5] * 3, NUM) * steps + 0.01)  # few steps, many ties
    probs = (values / values.sum(axis=1, keepdims=True)).astype(np.float32)
    give_labels(store, probabilities=probs, name=f"again-{random.integers(1 << 60)}")
    balance = Balance(
        policy=policy,
        min_confidence=floor,
        images_per_class=None if policy == "none" else k,
        seed=seed,
    )
    counts, rows = decide(store, balance)
    found = {row["sample_id"]: (row["class_id"], row["copies"]) for row in rows.to_pylist()}
    stored = store.table("soft_labels").read().sort_by("sample_id")
    confidence = stored["confidence"].to_numpy()
    one_hot = np.zeros((NUM, 3), np.float32)
    one_hot[np.arange(NUM), stored["class_id"].to_numpy()] = confidence

    assert found == by_hand(one_hot, balance)
    assert rows["sample_id"].to_pylist() == sorted(found)
    assert counts["kept"] == len(found)
    assert counts["draws"] == sum(copies for _, copies in found.values())
    assert counts["in"] == counts["kept"] + sum(counts["dropped"].values()) == NUM
    selection = Selection(view="v", teachers=["t0"], balance=balance)
    assert preview(store, selection) == counts


_STORES: list[Store] = []


def labeled_store(factory: pytest.TempPathFactory) -> Store:
    if not _STORES:
        from plstore.images import import_images
        from tests.conftest import make_records

        store = plstore.create(factory.mktemp("policies") / "store")
        import_images(store, make_records(), dataset="pets", class_names=CLASS_NAMES)
        _STORES.append(store)
    return _STORES[0]


@pytest.mark.parametrize("k", [3, 7, 50])
def test_the_policy_exact_is_the_saved_query(store: Store, k: int) -> None:
    give_labels(store)
    counts, rows = decide(store, Balance(min_confidence=0.42, images_per_class=k, seed=9))
    saved = run_query(
        store,
        "selection/class_balanced",
        teacher_id="t0",
        iteration=1,
        min_confidence=0.42,
        images_per_class=k,
        seed=9,
    ).to_pylist()
    columns = ("sample_id", "class_id", "confidence", "copies")
    kept = [{name: row[name] for name in columns} for row in saved if row["outcome"] == "kept"]

    assert rows.select(columns).to_pylist() == kept
    for why in ("low_confidence", "over_quota"):
        dropped = sum(row["outcome"] == why for row in saved)
        assert counts["dropped"].get(why, 0) == dropped


def test_the_policy_reference_keeps_whole_bins_and_meets_the_quota_on_average(
    store: Store,
) -> None:
    probs = give_labels(store)
    confidence, classes = probs.max(axis=1), probs.argmax(axis=1)
    totals: Counter[int] = Counter()
    for seed in range(40):
        balance = Balance(policy="reference", min_confidence=0.4, images_per_class=9, seed=seed)
        counts, rows = decide(store, balance)
        for class_id in range(3):
            here = rows.filter(pa.compute.equal(rows["class_id"], class_id))
            totals[class_id] += sum(here["copies"].to_pylist())
            values = np.sort(confidence[(classes == class_id) & (confidence > 0.4)])[::-1]
            lowest = np.floor(values[8] * 100) / 100 if len(values) >= 9 else 0.4
            eligible = (values > np.float32(lowest)).sum()
            assert min(here["confidence"].to_pylist()) > np.float32(lowest)
            most = -(-9 // eligible)
            assert set(here["copies"].to_pylist()) <= {most, max(most - 1, 1)}
        assert counts["kept"] == rows.num_rows

    assert all(abs(total / 40 - 9) < 1 for total in totals.values())


def test_quotas_may_differ_by_class_and_add_up_to_a_total(store: Store) -> None:
    give_labels(store)
    quotas, _ = decide(store, Balance(min_confidence=0.0, quotas={"cat": 5, "owl": 40}))
    total, _ = decide(store, Balance(min_confidence=0.0, total=100, power=1.0))
    even, _ = decide(store, Balance(min_confidence=0.0, total=100))

    assert quotas["draws_by_class"] == [5, 0, 40]
    assert quotas["classes_without_candidate"] == []
    assert total["draws"] == even["draws"] == 100
    assert even["draws_by_class"] == [34, 33, 33]
    assert (
        np.argsort(total["draws_by_class"]).tolist()
        == np.argsort(total["candidates_by_class"], kind="stable").tolist()
    )


@given(
    total=st.integers(1, 10**9),
    candidates=st.lists(st.integers(0, 10**6), min_size=1, max_size=30),
    power=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_shares_sum_to_the_total(total: int, candidates: list[int], power: float) -> None:
    counts = np.array(candidates)
    shares = share_out(total, counts, power)

    assert shares.sum() == (total if counts.any() else 0)
    assert (shares[counts == 0] == 0).all()
    assert (shares >= 0).all()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"policy": "best"}, "policy 'best'; wanted exact, reference, cap, none"),
        ({"min_confidence": 1.0}, "min_confidence 1.0; wanted 0 up to below 1"),
        ({"images_per_class": 0}, "images_per_class 0; wanted 1 or more"),
        ({"images_per_class": 3, "total": 9}, "images_per_class and total at once"),
        ({"power": 0.5}, "power 0.5; wanted 0 to 1, and a total"),
        ({"policy": "none", "total": 3}, "total with policy 'none'"),
        ({"quotas": {"cat": -1}}, "a quota below 0"),
        ({"seed": -1}, "seed -1; wanted 0 or more"),
    ],
)
def test_impossible_balances_say_what_is_wrong(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Balance(**values)


def test_quotas_of_unknown_classes_name_those_there_are(store: Store) -> None:
    give_labels(store)

    with pytest.raises(InputError, match="quotas name 'cow'; the classes are cat, dog, owl"):
        decide(store, Balance(quotas={"cow": 3}))


def test_a_floor_of_three_decimals_is_the_edge_of_a_bucket() -> None:
    for number in range(1000):
        assert floor_bucket(number / 1000) == number
    assert floor_bucket(0.3141) is None
    assert edge(300) == np.float32(0.3)


def test_counts_beside_labels_are_used_rebuilt_and_collected(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import timedelta

    from plstore.selection import pool

    give_labels(store)
    balance = Balance(min_confidence=0.4, images_per_class=7)
    wanted, rows = decide(store, balance)
    folder = store.work_folder("histograms")
    (kept,) = folder.rglob("*.parquet")
    with monkeypatch.context() as patch:

        def never(*_: object, **__: object) -> None:
            raise AssertionError

        patch.setattr(pool, "count_by_sql", never)
        patch.setattr(pool, "write_histograms", never)
        assert decide(store, balance)[0] == wanted
    kept.unlink()

    assert decide(store, balance)[0] == wanted
    assert kept.exists()
    erase(store, rows["sample_id"].to_pylist()[:2], reason="test")
    after, left = decide(store, balance)
    assert after["in"] == wanted["in"] - 2
    assert left.num_rows == after["kept"]
    collect(store, grace=timedelta(0))  # the labels it is of
    collect(store, grace=timedelta(0))
    assert not kept.exists()
    assert decide(store, balance)[0] == after


def test_wrong_counts_are_noticed_before_a_view_is_made(store: Store) -> None:
    give_labels(store)
    (kept,) = store.work_folder("histograms").rglob("*.parquet")
    table = pq.read_table(kept)
    more = pa.array(np.asarray(table["num_labels"]) + 1)
    pq.write_table(table.set_column(2, "num_labels", more), kept)
    balance = Balance(policy="none", min_confidence=0.4)

    with pytest.raises(StoreError, match="labels are selected and"):
        select(store, Selection(view="v", teachers=["t0"], balance=balance))
    with pytest.raises(InputError, match="no view 'v'"):
        open_view(store, "v")


def test_who_may_not_write_counts_each_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plstore.selection import pool

    give_labels(store)
    balance = Balance(min_confidence=0.4, images_per_class=7)
    wanted, _ = decide(store, balance)
    (kept,) = store.work_folder("histograms").rglob("*.parquet")
    kept.unlink()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(pool, "write_histograms", refuse)

    assert decide(store, balance)[0] == wanted
    assert not kept.exists()


def test_the_same_rows_on_any_number_of_threads_and_files(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_labels(store)
    balance = Balance(min_confidence=0.4, images_per_class=50)
    answers = [decide(store, balance)]
    scratch = scratch_connection

    @contextmanager
    def on_threads(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
        with scratch(folder) as connection:
            connection.execute("set threads = 8")
            yield connection

    monkeypatch.setattr(balanced, "scratch_connection", on_threads)
    monkeypatch.setattr(balanced, "_FILES_IN_ORDER", 1)
    answers.append(decide(store, balance))

    assert answers[0][0] == answers[1][0]
    assert answers[0][1].equals(answers[1][1])


def test_draws_are_spread_and_differ_by_seed() -> None:
    ids = np.arange(20_000, dtype=np.int64)
    one, two = (np.array(draws_of(ids, seed)) for seed in (0, 1))
    deciles = np.bincount((one * 10 // TICKETS), minlength=10)

    assert len(np.unique(one)) == len(ids)
    assert abs(deciles - 2000).max() < 200
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.03
    assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 0.03


def test_a_dry_run_writes_no_view(store: Store, tmp_path: Path) -> None:
    give_labels(store)
    before = store.versions()
    counts = preview(store, Selection(view="v", teachers=["t0"]))

    assert counts["quota_by_class"] == [20, 20, 20]
    assert store.versions() == before
    with closing(connect(store)) as connection:
        assert connection.sql("select count(*) from views").fetchall() == [(0,)]
    assert not list(tmp_path.rglob("*.arrow"))
