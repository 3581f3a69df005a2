"""Every verb on an S3 store: a real server of the same API, started here."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import polars as pl
import pytest
from PIL import Image

import plstore
from plstore.errors import MissingExtraError, StoreError
from plstore.images import ImageFile, import_images, mark_gone
from plstore.loaders import ImageFormat, Noise, RandAugment, load
from plstore.query import diff
from plstore.storage import create_once, files_below, location
from plstore.store import Store, add_tag, tags
from plstore.upkeep import collect, compact, erase, verify
from plstore.views import ViewMode
from tests.conftest import CLASS_NAMES, give_labels, make_records
from tests.views.test_packing import Elsewhere

BUCKET = "pseudo-labels"


@pytest.fixture(scope="module")
def emulator() -> Iterator[dict[str, str]]:
    # A process of its own: delta-rs holds the interpreter while it waits for an answer.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(port)
    variables = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield variables
    server.terminate()
    server.wait()


def wait_for(port: int) -> None:
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail("the emulator did not start within 30 seconds")


@pytest.fixture
def url(
    emulator: dict[str, str],  # noqa: ARG001  it answers
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    monkeypatch.setenv("PLSTORE_CACHE", str(tmp_path / "cache"))
    return f"s3://{BUCKET}/{request.node.name}"


@pytest.fixture
def remote(url: str) -> Store:
    store = plstore.create(url)
    import_images(store, make_records(), dataset="pets", class_names=CLASS_NAMES)
    give_labels(store)
    return store


def test_a_store_in_a_bucket_does_what_one_in_a_folder_does(remote: Store) -> None:
    balance = plstore.Balance(min_confidence=0.0, images_per_class=9, seed=0)
    selection = plstore.Selection(view="v", teachers=["t0@1"], balance=balance)
    view = plstore.select(remote, selection)
    add_tag(remote, "first")
    again = plstore.open(str(remote.root))
    with plstore.connect(again, as_of="first") as sql:
        rows = sql.sql("select count(*), sum(confidence) from soft_labels").fetchall()
    expected = give_labels(remote).max(axis=1).sum(dtype=np.float64)

    assert rows[0] == (60, pytest.approx(expected, rel=1e-6))
    assert sum(batch.num_rows for batch in view.batches()) == view.record.num_images
    assert [tag.name for tag in tags(again)] == ["first"]
    assert verify(again) == []


def test_upkeep_works_in_a_bucket(remote: Store) -> None:
    from datetime import timedelta

    first = give_labels(remote)
    give_labels(remote, name="again", probabilities=first[:, ::-1].copy())
    compact(remote)
    erased = erase(remote, [20], reason="asked for", who="ann")
    gone = collect(remote, grace=timedelta(0))
    keys = remote.root.rglob("*")
    held = [p for p in keys if p.is_file() and make_records()[20].data in p.read_bytes()]

    assert erased.num_images == 1
    assert {item.reason for item in gone} == {"never_committed", "erased"}
    assert held == []
    assert verify(remote) == []


def test_a_bucket_says_which_files_left_in_place_are_gone(
    remote: Store, tmp_path: Path
) -> None:
    data = make_records()[20].data
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(data)
    records = [
        ImageFile(key=f"{n}.png", split="unlabeled", place=str(tmp_path / f"{n}.png"))
        for n in range(2)
    ]
    import_images(remote, records, dataset="more", class_names=CLASS_NAMES, in_place=True)
    (tmp_path / "1.png").unlink()
    gone = mark_gone(remote)

    assert (gone.ids.tolist(), gone.splits) == ([85], {"unlabeled": 1})
    assert remote.count_images("unlabeled") == 61
    assert verify(remote) == []


@pytest.mark.nightly
def test_iterations_are_compared_in_a_bucket(remote: Store) -> None:
    first = give_labels(remote)
    give_labels(remote, "t1", 2, probabilities=np.roll(first, 1, axis=1))
    rows = diff(remote, "1", "2").to_pylist()

    assert {row["change"] for row in rows} == {"flipped"}
    assert sum(row["images"] for row in rows) == 60


def test_a_name_is_given_once_in_a_bucket(url: str) -> None:
    place = location(url) / "once.json"

    assert [create_once(place, b"1"), create_once(place, b"2")] == [True, False]
    assert place.read_bytes() == b"1"


@pytest.mark.usefixtures("emulator")
def test_no_bucket_is_a_clear_error() -> None:
    with pytest.raises(StoreError, match=r"cannot make a store in s3://no-such-bucket"):
        plstore.create("s3://no-such-bucket/store")


def test_a_kind_of_url_without_its_package_names_it() -> None:
    with pytest.raises(MissingExtraError, match="a store at gs://bucket/store needs"):
        plstore.open("gs://bucket/store")


@pytest.mark.nightly
def test_polars_reads_the_bucket_too(remote: Store, emulator: dict[str, str]) -> None:
    options = {
        "aws_endpoint_url": emulator["AWS_ENDPOINT_URL"],
        "aws_access_key_id": "test",
        "aws_secret_access_key": "test",
        "aws_region": "us-east-1",
        "aws_allow_http": "true",
    }
    rows = pl.scan_delta(f"{remote.root}/soft_labels", storage_options=options)

    assert rows.select(pl.len()).collect().item() == 60


def shell(*words: str | Path) -> list[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-m", "plstore.cli.main", *map(str, words), "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, object]] = json.loads(done.stdout)
    return rows


@pytest.mark.nightly
def test_import_train_label_select_and_sql_on_a_bucket(url: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for index in range(24):
        folder = tmp_path / ("labeled/" + "ab"[index % 2] if index < 16 else "unlabeled")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 128, (12, 12), dtype=np.uint8) + 127 * (index % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
    small = ["train.steps=3", "train.labeled_batch=4", "train.ratio=1"]
    small += [
        "schedule.warmup_steps=0",
        "iterations=1",
        "control=false",
        "model.stochastic_depth=0",
    ]
    settings = [word for value in small for word in ("--set", value)]
    images = ["--labeled", f"{tmp_path}/labeled", "--unlabeled", f"{tmp_path}/unlabeled"]
    model = ["--model", "test_resnet", "--resolution", "32"]
    rows = shell("run", *images, *model, *settings, "--store", url)
    (teacher,) = [
        row["teacher_id"]
        for row in shell("sql", "select * from teachers where role = 'teacher'", "--store", url)
    ]
    store = ["--store", url]
    labeled = shell("label", "--teacher", str(teacher), "--iteration", "7", *store)
    choice = ["--teacher", str(teacher), "--min-confidence", "0.1"]
    chosen = shell("select", "mine", *choice, *store)
    count = shell("sql", "select count(*) as n from soft_labels where iteration = 7", *store)

    assert len(rows) == 2
    assert [row["labeled"] for row in labeled] == [8, 2]
    assert chosen[0]["n"] == "mine@1"
    assert count == [{"n": 10}]
    assert shell("verify", *store) == []
    place = location(url)
    assert (place.parent / f"{place.name}.result.json").is_file()


@pytest.mark.parametrize("mode", ["packed", "reference"])
def test_a_loader_reads_a_bucket_in_windows_or_through_its_copy(
    remote: Store, mode: ViewMode
) -> None:
    balance = plstore.Balance(min_confidence=0.0, images_per_class=9, seed=0)
    selection = plstore.Selection(view="v", teachers=["t0@1"], balance=balance, mode=mode)
    view = plstore.select(remote, selection)
    for shuffle in ("global", "windowed"):
        loader = load(
            view,
            labeled_batch=4,
            pseudo_batch=8,
            image_format=ImageFormat(size=16),
            noise=Noise(augment=RandAugment(n=0)),
            seed=0,
            shuffle=shuffle,
        )
        found = loader.verify()
        assert found.ok, (shuffle, found.errors)
        assert found.images == view.record.num_images


@pytest.mark.nightly
def test_workers_elsewhere_pack_by_way_of_the_bucket(remote: Store) -> None:
    balance = plstore.Balance(min_confidence=0.0, policy="none")
    selection = plstore.Selection(view="v", teachers=["t0@1"], balance=balance, max_side=20)
    seen: list[int] = []

    def watched(work: Any, tasks: Sequence[Any]) -> Iterator[Any]:  # noqa: ANN401  any work
        for done in map(work.open(lambda _: None), tasks):
            seen.append(len(list(files_below(remote.work_folder("select")))))
            yield done

    here = plstore.select(remote, selection)
    there = plstore.select(remote, selection, engine=Elsewhere(watched))
    names = [
        [(shard.path.rpartition("-")[2], shard.size_bytes) for shard in view.shards()]
        for view in (here, there)
    ]

    assert names[0] == names[1]
    assert len(names[0]) == 2  # labeled, and not
    assert min(seen) > 0
    assert list(files_below(remote.work_folder("select"))) == []
