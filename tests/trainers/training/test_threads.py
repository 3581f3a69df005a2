"""Threads of torch, and cores for them."""

from collections.abc import Iterator

import pytest
import torch

from plstore.store import Store
from tests.trainers.test_run import TRAIN, recipe
from trainers.events import Event, Note
from trainers.loop import run
from trainers.training import threads
from trainers.training.threads import use_threads


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_there_are_no_more_threads_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "num_cores", lambda: 3)

    for wanted, there in ((8, 3), (2, 2), (None, 2), (3, 3)):
        assert use_threads(wanted) == there == torch.get_num_threads()


def test_a_run_on_fewer_cores_than_its_threads_says_so(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "num_cores", lambda: 1)
    told: list[Event] = []
    run(recipe(train={**TRAIN, "threads": 2}), store, device="cpu", on_event=told.append)
    notes = [event.text for event in told if isinstance(event, Note)]

    assert torch.get_num_threads() == 1
    assert any("train.threads is 2, and there are cores for 1" in note for note in notes)
