"""A bucket that throttles, hangs up, refuses and lags: nothing is lost, the same command ends.

A server passes the requests of both clients on to an emulator of S3, and makes some fail.
"""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
import numpy as np
import pytest

import plstore
from plstore import buckets, storage
from plstore.errors import BucketError, InputError, StoreError
from plstore.images import import_images
from plstore.labels import writing
from plstore.loaders import ImageFormat, Noise, RandAugment, load
from plstore.query import run_sql
from plstore.store import Store
from plstore.upkeep import collect, verify
from tests.conftest import CLASS_NAMES, give_labels, make_records
from tests.test_object_store import wait_for
from trainers.events import TaskAdvanced
from trainers.inference import missing
from trainers.labeling.label import Labeling, label
from trainers.models.bringing import bring_teacher
from trainers.models.model import build_model, image_format, save_bundle
from trainers.sections import Model

BUCKET = "faulty"
_IMAGES = "select count(*) as n, count(distinct key) as d from images"
_LABELS = """
select teacher_id, count(*) as n, count(distinct sample_id) as d
from soft_labels
group by teacher_id
order by teacher_id
"""


class Proxy:
    """The server: told which faults to make, asked what it counted."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/_control"

    def set(self, *faults: Mapping[str, Any]) -> None:
        request = Request(self._url, json.dumps(faults).encode(), method="PUT")  # noqa: S310
        with urlopen(request) as answer:  # noqa: S310  our own
            answer.read()

    def report(self) -> dict[str, Any]:
        with urlopen(self._url) as answer:  # noqa: S310
            found: dict[str, Any] = json.loads(answer.read())
        return found


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def server() -> Iterator[Proxy]:
    from s3fs import S3FileSystem

    ports = free_port(), free_port()
    target = f"http://127.0.0.1:{ports[0]}"
    commands = (
        ["-m", "moto.server", "-H", "127.0.0.1", "-p", str(ports[0])],
        ["-m", "benchmarks.proxy", "--port", str(ports[1]), "--target", target],
    )
    null = subprocess.DEVNULL
    started = [
        subprocess.Popen([sys.executable, *words], stdout=null, stderr=null)
        for words in commands
    ]
    for port in ports:
        wait_for(port)
    variables = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports[1]}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        S3FileSystem.clear_instance_cache()  # of other endpoints
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield Proxy(ports[1])
    S3FileSystem.clear_instance_cache()
    for process in started:
        process.terminate()
        process.wait()


@pytest.fixture
def proxy(server: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setenv("PLSTORE_CACHE", str(tmp_path / "cache"))
    server.set()
    server.report()
    yield server
    server.set()


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    return f"s3://{BUCKET}/{request.node.name}".replace("[", "-").replace("]", "")


def work(url: str) -> Store:
    """Import, label in three commits, select, load an epoch and collect; what is done stays."""
    store = plstore.create(url)
    import_images(store, make_records(), dataset="pets", class_names=CLASS_NAMES)
    for iteration in (1, 2, 3):
        give_labels(store, f"t{iteration}", iteration)
    balance = plstore.Balance(min_confidence=0.0, images_per_class=9, seed=0)
    selection = plstore.Selection(view="v", teachers=["t3@3"], balance=balance)
    view = plstore.select(store, selection, identity="once")
    loader = load(
        view,
        labeled_batch=4,
        pseudo_batch=8,
        image_format=ImageFormat(size=16),
        noise=Noise(augment=RandAugment(n=0)),
        seed=0,
    )
    assert loader.verify().ok
    collect(store, grace=timedelta(days=1))
    return store


def check(store: Store) -> None:
    """Every row is there, once, and every file is what its name says."""
    (images,) = run_sql(store, _IMAGES).to_pylist()
    labels = run_sql(store, _LABELS).to_pylist()
    assert images == {"n": 84, "d": 84}
    assert labels == [{"teacher_id": f"t{n}", "n": 60, "d": 60} for n in (1, 2, 3)]
    assert [row["view"] for row in store.table("views").read().to_pylist()] == ["v"]
    assert verify(store) == []


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["slow_down", "drop", "drop_answer"])
def test_work_goes_on_through_faults(proxy: Proxy, url: str, kind: str) -> None:
    proxy.set({"kind": kind, "share": 0.1})
    store = work(url)
    report = proxy.report()
    proxy.set()

    assert report["failed"] > 20
    check(plstore.open(str(store.root)))


@pytest.mark.nightly
def test_a_store_that_is_always_busy_says_so(
    proxy: Proxy, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    work(url)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    proxy.set({"kind": "slow_down", "share": 1})
    words = ["log", "--store", url]
    done = subprocess.run(
        [sys.executable, "-m", "plstore.cli.main", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    proxy.set()

    assert done.returncode == 3
    assert "the store was too busy at each of 2 attempts (SlowDown)" in done.stderr
    assert "fewer workers, or a higher AWS_MAX_ATTEMPTS" in done.stderr
    check(plstore.open(url))


@pytest.mark.nightly
@pytest.mark.parametrize("after", [3, 60, 150, 300])
def test_credentials_that_expire_stop_it_and_the_same_command_ends_it(
    proxy: Proxy, url: str, after: int
) -> None:
    proxy.set({"kind": "expired", "after": after})
    with pytest.raises((BucketError, PermissionError)) as stopped:
        work(url)
    said = buckets.meaning(stopped.value)
    proxy.set()
    store = work(url)  # the same command, with new credentials

    assert said is not None
    assert "expired" in said
    assert "run the same command again; what was committed stays" in said
    check(store)


@pytest.mark.nightly
def test_a_labeling_says_how_much_is_committed_when_credentials_expire(
    proxy: Proxy, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (writing, missing):
        monkeypatch.setattr(module, "SHARD_IDS", 16)
    store = plstore.create(url)
    import_images(store, make_records(), dataset="pets", class_names=CLASS_NAMES)
    settings = Model(architecture="test_resnet", resolution=32, stochastic_depth=0)
    network = build_model(settings, "test_resnet", 3)
    save_bundle(tmp_path / "model", network, image_format(settings, network), CLASS_NAMES)
    bring_teacher(store, "mine", str(tmp_path / "model"), device="cpu")
    labeling = Labeling(teacher_id="mine", splits=["unlabeled"])
    seen = 0

    def expire(event: object) -> None:
        nonlocal seen
        seen += event.count if isinstance(event, TaskAdvanced) else 0
        if seen > 20:  # of the ranges of 4, 16, 16, 16 and 8 images the third is looked at
            proxy.set({"kind": "expired", "after": 0})

    words = (
        r"labeling stopped; 20 of 60 images are committed: .*expired.*the same command again"
    )
    with pytest.raises(BucketError, match=words):
        label(store, labeling, on_event=expire)
    proxy.set()
    counts = label(plstore.open(url), labeling)
    (row,) = run_sql(store, _LABELS).to_pylist()

    assert counts == {"unlabeled": 40}
    assert row == {"teacher_id": "mine", "n": 60, "d": 60}
    assert verify(store) == []


def put_large(place: Path, data: bytes) -> None:
    storage.write_atomically(place, data)


@pytest.mark.slow
def test_a_large_file_is_uploaded_in_parts_and_a_part_is_tried_again(
    proxy: Proxy, url: str
) -> None:
    data = np.random.default_rng(0).bytes(3 * buckets.PART_BYTES)
    place = storage.location(url) / "large"
    proxy.report()
    proxy.set({"kind": "part", "times": 1})
    put_large(place, data)
    report = proxy.report()

    assert report["failed"] == 1
    assert report["requests"]["PART"] == 3
    assert place.read_bytes() == data


@pytest.mark.slow
def test_a_part_that_fails_for_good_leaves_nothing(
    proxy: Proxy, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from s3fs import S3FileSystem

    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    S3FileSystem.clear_instance_cache()
    place = storage.location(url) / "large"
    proxy.set({"kind": "part", "times": 1000})
    with pytest.raises(StoreError, match=r"cannot write s3://.*/large: .*internal error"):
        put_large(place, bytes(2 * buckets.PART_BYTES))
    proxy.set()
    S3FileSystem.clear_instance_cache()
    left = boto3.client("s3").list_multipart_uploads(Bucket=BUCKET)

    assert not place.exists()
    assert "Uploads" not in left


@pytest.mark.nightly
def test_listings_that_lag_lose_nothing_and_repeat_nothing(proxy: Proxy, url: str) -> None:
    proxy.set({"kind": "lag", "seconds": 1.5})
    store = work(url)
    versions = [int(row["version"]) for row in store.table("soft_labels")._delta().history()]
    proxy.set()

    assert versions == sorted(set(versions), reverse=True)
    check(plstore.open(url))


@pytest.mark.usefixtures("server")
def test_attempts_and_mode_are_those_of_the_environment(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "7")
    monkeypatch.setenv("AWS_RETRY_MODE", "adaptive")
    files = storage.fsspec_filesystem(storage.location(url))

    assert files.config_kwargs == {"retries": {"mode": "adaptive", "total_max_attempts": 7}}
    assert buckets.delta_options(url) == {"max_retries": "6", "retry_timeout": "180s"}
    assert buckets.delta_options("file:///store") is None
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "many")
    with pytest.raises(InputError, match="AWS_MAX_ATTEMPTS is 'many'; wanted a whole number"):
        storage.location(f"{url}/other")


def test_errors_of_folders_mean_what_they_say(tmp_path: Path) -> None:
    refused = PermissionError(13, "Permission denied", str(tmp_path / "403"))

    assert buckets.meaning(refused) is None
    assert buckets.meaning(OSError("disk full")) is None
    assert "access was refused" in str(buckets.meaning(PermissionError("Forbidden")))
