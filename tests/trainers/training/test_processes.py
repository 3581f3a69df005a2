"""Two processes train one model: the losses of one, and a killed one ends the run."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from plstore.errors import InputError
from plstore.images import import_images
from plstore.store import Store, create
from plstore.store import open as open_store
from tests.conftest import CLASS_NAMES, make_records
from trainers.training.processes import ALONE, Processes, join, synchronised

RUN = ["-m", "plstore", "run", "images", "--device", "cpu", "--set", "data.source=store"]
SMALL = {
    "iterations": 1,
    "control": "false",
    "model.resolution": 16,
    "model.architecture": "test_vit",
    "model.dropout": 0.3,
    "model.stochastic_depth": 0,
    "train.labeled_batch": 4,
    "train.threads": 1,
    "train.looks": 2,
    "label.codec": "topk",
    "select.min_confidence": 0,
    "select.policy": "none",
}


def command(store: Store, processes: int, **settings: object) -> list[str]:
    named = {name.replace("__", "."): value for name, value in settings.items()}
    chosen = {**SMALL, **named}
    overrides = [f"--set={name}={value}" for name, value in chosen.items()]
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        start += [str(processes)]
    return [*start, *RUN, "--store", str(store.root), *overrides]


def start(store: Store, processes: int, **settings: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command(store, processes, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def finish(process: "subprocess.Popen[str]") -> str:
    said, _ = process.communicate(timeout=240)
    return said


def losses(store: Store) -> dict[str, list[float]]:
    rows = open_store(store.root).table("runs").read().to_pylist()
    found: dict[str, list[float]] = {}
    for row in sorted(rows, key=lambda row: (row["run"], row["step"])):
        if row["name"] == "train/loss":
            found.setdefault(row["run"].partition("-")[0], []).append(row["value"])
    return found


def filled(folder: Path) -> Store:
    store = create(folder / "store")
    import_images(store, make_records(), dataset="pets", class_names=CLASS_NAMES)
    return store


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return the store of one process that did each step in two parts."""
    store = filled(tmp_path_factory.mktemp("alone"))
    said = finish(start(store, 1, train__steps=100, train__accumulate=2))
    assert "result: " in said, said
    return store


@pytest.mark.nightly
def test_two_processes_have_the_losses_of_one(alone: Store, tmp_path: Path) -> None:
    """A step in two parts of one process is a part in each of two, dropout and all."""
    two = filled(tmp_path)
    said = finish(start(two, 2, train__steps=100))

    expected, found = losses(alone), losses(two)
    assert set(expected) == set(found) == {"t0", "t1"}, said
    for model, values in expected.items():
        assert np.allclose(values, found[model], rtol=1e-3), (model, values, found[model])
    assert len(open_store(two.root).table("teachers").read()) == 2
    assert said.count("result: ") == 1


@pytest.mark.nightly
def test_a_killed_process_ends_the_run_which_goes_on_with_any_number(
    alone: Store, tmp_path: Path
) -> None:
    store = filled(tmp_path)
    process = start(store, 2, train__steps=100)
    assert process.stdout is not None
    until_it_trains = next(line for line in process.stdout if "train the teacher" in line)
    os.kill(second_process(store), signal.SIGKILL)
    said = finish(process)

    assert until_it_trains
    assert process.returncode != 0
    assert "SIGKILL" in said or "lost another" in said or "exitcode: -9" in said
    ended = finish(start(store, 1, train__steps=100, train__accumulate=2))
    assert "result: " in ended, ended
    expected, found = losses(alone), losses(store)
    assert np.allclose(expected["t1"], found["t1"], rtol=1e-3), (expected, found)


@pytest.mark.nightly
def test_two_processes_replay_the_labels_of_views_of_one(tmp_path: Path) -> None:
    one, two = filled(tmp_path / "one"), filled(tmp_path / "two")
    how: dict[str, object] = {
        "train__steps": 50,
        "label__views": "true",
        "label__view_epochs": 5,
    }
    how["train__ratio"] = 2
    finish(start(one, 1, **how, train__accumulate=2))
    said = finish(start(two, 2, **how))

    labels = [open_store(s.root).table("view_labels").read() for s in (one, two)]
    assert [table.num_rows for table in labels] == [15 * 8] * 2, (
        said
    )  # 12 labeled images, 4 a step
    draws = [table.sort_by("draw")["sample_id"].to_pylist() for table in labels]
    assert draws[0] == draws[1]
    expected, found = losses(one), losses(two)
    assert np.allclose(expected["t1"], found["t1"], rtol=1e-3), (expected, found)


def test_batch_norms_see_the_images_of_all_processes_on_gpus_alone() -> None:
    network, two = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), Processes(size=2)

    assert synchronised(network, ALONE, "cpu") is network
    spread = synchronised(network, two, "cuda:0")
    assert isinstance(spread.get_submodule("1"), nn.SyncBatchNorm)
    with pytest.raises(InputError, match=r"train\.sync_batch_norm is for GPUs: on the CPU"):
        synchronised(network, two, "cpu")


def second_process(store: Store) -> int:
    """Return the process id of rank 1 of a run on a store."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"RANK=1" in environment and str(store.root).encode() in words:
            return int(folder.name)
    raise AssertionError("there is no second process")


def test_variables_that_torchrun_did_not_set_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")

    with pytest.raises(InputError, match="begin with 'torchrun --nproc-per-node N"):
        join("cpu")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert join("cpu") is ALONE
