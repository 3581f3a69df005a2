"""The loader as people use it: ranks, resume, damage, sources, formats, others' loops."""

import json
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import plstore
from plstore.errors import InputError
from plstore.images import import_images
from plstore.loaders import (
    ImageFormat,
    Noise,
    RandAugment,
    clean_batches,
    open_split,
    open_view_images,
)
from plstore.loaders.sources import WindowSource
from plstore.selection import Balance, Selection, select
from plstore.store import Store, parquet
from plstore.views import View
from plstore.views import view as views
from tests.conftest import CLASS_NAMES, give_labels, make_records
from tests.loaders.conftest import (
    RGB,
    SHUFFLES,
    in_place_store,
    loader_of,
    make_view,
    some,
    together,
)


@pytest.mark.parametrize(
    ("backend", "shuffle"),
    [
        ("dali", "global"),
        pytest.param("dali", "windowed", marks=pytest.mark.nightly),
        *product(["threads", "torch"], SHUFFLES),
    ],
)
def test_ranks_share_the_batches_of_one_bit_for_bit(
    view: View, backend: str, shuffle: str
) -> None:
    alone = some(loader_of(view, backend=backend, shuffle=shuffle), 3)
    for world_size in (2, 4, 8):
        ranks = [
            some(
                loader_of(
                    view,
                    backend=backend,
                    shuffle=shuffle,
                    rank=rank,
                    world_size=world_size,
                    num_threads=1 + rank % 3,
                ),
                3,
            )
            for rank in range(world_size)
        ]
        for step, whole in enumerate(alone):
            parts = together([rank[step] for rank in ranks])
            for part, name in zip(parts, ("images", "targets", "sample_ids"), strict=True):
                assert torch.equal(part, getattr(whole, name)), (world_size, name)


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_a_run_goes_on_with_another_number_of_ranks(view: View, shuffle: str) -> None:
    alone = some(loader_of(view, shuffle=shuffle), 6)
    first = loader_of(view, shuffle=shuffle)
    some(first, 4)
    state = json.loads(json.dumps(first.state_dict()))
    ranks = []
    for rank in range(2):
        loader = loader_of(view, shuffle=shuffle, rank=rank, world_size=2)
        loader.load_state_dict(state)
        ranks.append(some(loader, 2))

    assert state["step"] == 4
    assert set(state) == {"view", "plan", "seed", "step"}
    for number in range(2):
        images, _, ids = together([rank[number] for rank in ranks])
        assert torch.equal(images, alone[4 + number].images)
        assert torch.equal(ids, alone[4 + number].sample_ids)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"seed": 1}, "seed"),
        ({"noise": Noise(augment=RandAugment(m=8))}, "plan"),
        ({"pseudo_batch": 16}, "plan"),
        ({"image_format": ImageFormat(size=32, interpolation="bicubic")}, "plan"),
        ({"shuffle": "windowed"}, "plan"),
    ],
)
def test_a_state_of_other_batches_is_refused(
    view: View, changes: dict[str, Any], word: str
) -> None:
    state = loader_of(view).state_dict()
    with pytest.raises(InputError, match=f"the state is of {word}"):
        loader_of(view, **changes).load_state_dict(state)


def test_a_state_of_another_view_is_refused(store: Store, view: View) -> None:
    other = make_view(store, quota=9)
    with pytest.raises(InputError, match="the state is of view"):
        loader_of(other).load_state_dict(loader_of(view).state_dict())


@pytest.mark.parametrize(("batch", "window"), [(16, 64), (16, 200), (7, 30)])
def test_copies_stay_apart_in_windows_too(store: Store, batch: int, window: int) -> None:
    view = make_view(store, "packed", quota=40)
    loader = loader_of(
        view, shuffle="windowed", pseudo_batch=batch, labeled_batch=1, window=window
    )
    stream = loader.source.stream(pseudo=True, batch=batch, seed=3)
    draws = stream.draws_per_pass
    whole = stream.take(0, 2 * draws)
    copies = Counter(whole[:draws].tolist())
    assert copies == Counter(whole[draws:].tolist())
    for number in range(2):
        inner = range(-(-number * draws // batch) * batch, (number + 1) * draws, batch)
        for start in inner:
            rows = whole[start : min(start + batch, (number + 1) * draws)].tolist()
            repeated = [row for row, count in Counter(rows).items() if count > 1]
            assert all(copies[row] >= window // batch for row in repeated), repeated


def test_two_readings_of_a_block_in_one_window_are_one(store: Store) -> None:
    give_labels(store)
    balance = Balance(min_confidence=0.8, images_per_class=14, seed=0)
    selection = Selection(view="few", teachers=["t0@1"], balance=balance, mode="packed")
    loader = loader_of(select(store, selection), shuffle="windowed", window=30)
    for seed in range(6):
        stream = loader.source.stream(pseudo=True, batch=6, seed=seed)
        draws = stream.draws_per_pass
        whole = stream.take(0, draws)
        copies = Counter(whole.tolist())
        assert 3 < max(copies.values()) < draws // 6  # more than a window holds apart
        batches = [whole[n : n + 6] for n in range(0, draws - 5, 6)]
        assert all(len(np.unique(batch)) == 6 for batch in batches)


@pytest.mark.parametrize("mode", ["packed", "reference"])
def test_both_shuffles_honour_copies_and_read_both_modes(store: Store, mode: str) -> None:
    view = make_view(store, mode)
    rows = {r["sample_id"]: r for b in view.batches() for r in b.to_pylist()}
    wanted = {n: r["copies"] for n, r in rows.items() if r["kind"] == "pseudo"}
    draws = sum(wanted.values())
    for shuffle in SHUFFLES:
        loader = loader_of(view, shuffle=shuffle, labeled_batch=2, pseudo_batch=3)
        ids = [b.sample_ids[2:] for b in some(loader, 2 * draws // 3)]
        stream = torch.cat(ids).tolist()
        assert Counter(stream[:draws]) == wanted, shuffle
        assert Counter(stream[draws : 2 * draws]) == wanted, shuffle
        assert stream[:draws] != stream[draws : 2 * draws]
        assert all(len(set(b.tolist())) == 3 for b in ids), shuffle


def test_windows_are_read_ahead_and_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_ROW_GROUP_BYTES", 100_000)
    big = plstore.create(tmp_path / "big")
    records = make_records(num_labeled=40, num_unlabeled=1200)
    import_images(big, records, dataset="pets", class_names=CLASS_NAMES)
    view = make_view(big, "packed", quota=400)
    loader = loader_of(view, shuffle="windowed", window=128, pseudo_batch=16)
    source = loader.source
    assert isinstance(source, WindowSource)
    sizes = source._ends - source._blocks.starts
    most = 0
    for step in range(60):
        loader.work(step)
        most = max(most, int(sizes[list(source._held)].sum()))

    bound = 2 * (2 * 128 + 2 * int(sizes.max()))  # two windows of each stream
    assert len(sizes) > 10
    assert most <= bound < sizes.sum()


def test_photos_in_place_are_read_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "_READ_BYTES", 20 * 24 * 22)
    view = make_view(in_place_store(tmp_path))
    loader = loader_of(view, shuffle="windowed")
    source = loader.source
    assert isinstance(source, WindowSource)
    sizes = source._ends - source._blocks.starts

    assert sizes.max() <= 26
    assert sizes.sum() == view.record.num_images
    assert all(batch.num_rows <= 26 for batch in view.batches())
    assert loader.verify().ok


@pytest.mark.parametrize("ratio", [1, 14, 28])
def test_any_ratio_draws_the_same_labeled_images(view: View, ratio: int) -> None:
    one = some(loader_of(view, labeled_batch=2, pseudo_batch=2), 4)
    many = some(loader_of(view, labeled_batch=2, pseudo_batch=2 * ratio), 4)
    for a, b in zip(one, many, strict=True):
        assert torch.equal(a.images[:2], b.images[:2])
        assert torch.equal(a.sample_ids[:2], b.sample_ids[:2])
        assert len(b.images) == 2 + 2 * ratio


def test_each_copy_has_its_own_noise(view: View) -> None:
    seen: dict[int, list[Tensor]] = {}
    for batch in some(loader_of(view), 12):
        for image, sample_id in zip(batch.images, batch.sample_ids.tolist(), strict=True):
            assert not any(torch.equal(image, other) for other in seen.get(sample_id, []))
            seen.setdefault(sample_id, []).append(image)
    assert max(len(images) for images in seen.values()) > 3


def test_ranks_that_cannot_share_a_batch_are_refused(view: View) -> None:
    with pytest.raises(InputError, match="cannot be shared by 3 ranks; wanted a multiple"):
        loader_of(view, rank=0, world_size=3)
    with pytest.raises(InputError, match="rank is 2; wanted a whole number from 0 to 1"):
        loader_of(view, rank=2, world_size=2)
    with pytest.raises(InputError, match="go together"):
        loader_of(view, rank=1)


IMPOSSIBLE_ARGUMENTS: list[tuple[str, object, str]] = [
    ("labeled_batch", -1, "a whole number of 0 or more"),
    ("labeled_noise", ["crop", "blur"], "'crop', 'flip', 'augment'"),
    ("labeled_batch", 2.5, "a whole number"),
    ("pseudo_batch", -4, "a whole number of 0 or more"),
    ("image_format", 32, "ImageFormat"),
    ("noise", "paper", "Noise"),
    ("seed", -1, "a whole number of 0 or more"),
    ("seed", "0", "a whole number"),
    ("first_step", -1, "a whole number of 0 or more"),
    ("shuffle", "local", "'global', 'windowed'"),
    ("window", 0, "a whole number of 1 or more"),
    ("backend", "ffcv", "'auto', 'dali', 'threads', 'torch'"),
    ("num_threads", 0, "a whole number of 1 or more"),
    ("cache_bytes", -1, "a whole number of 0 or more"),
]


def test_a_batch_of_no_image_is_refused(view: View) -> None:
    with pytest.raises(InputError, match="labeled_batch is 0; wanted a whole number of 1"):
        loader_of(view, labeled_batch=0, pseudo_batch=0)


def test_pseudo_labels_may_be_alone(view: View) -> None:
    (batch,) = some(loader_of(view, labeled_batch=0), 1)
    (both,) = some(loader_of(view), 1)

    assert batch.num_labeled == 0
    assert torch.equal(batch.images, both.images[8:])
    assert torch.equal(batch.targets, both.targets[8:])


def test_what_a_kind_of_image_gets_does_not_depend_on_what_it_does_not(view: View) -> None:
    """Noise that is left out leaves the rest of it, and the other kind, as they were."""
    (whole,) = some(loader_of(view), 1)
    (bare,) = some(loader_of(view, pseudo_noise=[]), 1)
    (flipped,) = some(loader_of(view, labeled_noise=["flip"]), 1)
    clean = {
        int(n): image
        for batch in clean_batches(open_view_images(view), RGB)
        for n, image in zip(batch.sample_ids, batch.images, strict=True)
    }

    assert torch.equal(bare.images[:8], whole.images[:8])
    assert torch.equal(flipped.images[8:], whole.images[8:])
    for n, image in zip(bare.sample_ids[8:], bare.images[8:], strict=True):
        assert torch.equal(image, clean[int(n)])
    for n, image in zip(flipped.sample_ids[:8], flipped.images[:8], strict=True):
        expected = clean[int(n)]
        assert torch.equal(image, expected) or torch.equal(image, expected.flip(-1))


def test_impossible_numbers_are_refused(view: View) -> None:
    for name, value, wanted in IMPOSSIBLE_ARGUMENTS:
        with pytest.raises(InputError, match=f"{name} is .*wanted {wanted}"):
            loader_of(view, **{name: value})
    for device in ("tpu", "cuda:99", "cpu:0"):
        with pytest.raises(InputError, match=f"device is '{device}'.*wanted 'c"):
            loader_of(view, device=device)
    loader = loader_of(view)
    with pytest.raises(InputError, match="steps is 0; wanted a whole number of 1 or more"):
        loader.verify(0)
    with pytest.raises(InputError, match="step of the state is -1; wanted a whole number"):
        loader.load_state_dict({**loader.state_dict(), "step": -1})
    with pytest.raises(InputError, match="batch_size is 0; wanted a whole number of 1"):
        next(clean_batches(open_split(view.store, "test"), RGB, batch_size=0))
