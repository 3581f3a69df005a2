from collections import Counter

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from plstore.loaders.order import GlobalStream, part_copies, spread
from plstore.seeds import Purpose, uniforms

COPIES = st.lists(st.integers(1, 9), min_size=1, max_size=60)


def stream(copies: list[int], batch: int, seed: int) -> GlobalStream:
    array = np.array(copies, np.int32)
    rows = np.arange(len(copies)) + 100
    return GlobalStream(rows, array, batch=batch, seed=seed, purpose=Purpose.PSEUDO_ORDER)


def meetings(rows: npt.NDArray[np.int64], batch: int) -> int:
    """Draws that find their image in the batch already."""
    batches = [rows[n : n + batch] for n in range(0, len(rows), batch)]
    return sum(len(b) - len(np.unique(b)) for b in batches)


@settings(deadline=None, max_examples=60)
@given(copies=COPIES, batch=st.integers(1, 16), seed=st.integers(0, 5))
def test_every_pass_draws_every_image_as_often_as_it_has_copies(
    copies: list[int], batch: int, seed: int
) -> None:
    found = stream(copies, batch, seed)
    total = found.draws_per_pass
    for number in range(3):
        drawn = Counter(found.take(number * total, total).tolist())
        assert drawn == {100 + row: count for row, count in enumerate(copies)}


@settings(deadline=None, max_examples=40)
@given(copies=COPIES, batch=st.integers(1, 16), cut=st.integers(1, 30))
def test_a_stream_is_the_same_in_any_pieces(copies: list[int], batch: int, cut: int) -> None:
    whole = stream(copies, batch, 0).take(0, 90)
    pieces = [stream(copies, batch, 0).take(n, min(cut, 90 - n)) for n in range(0, 90, cut)]
    assert np.array_equal(np.concatenate(pieces), whole)


def test_copies_do_not_meet_in_a_batch_where_there_are_batches_enough() -> None:
    random = np.random.default_rng(0)
    for seed in range(5):
        copies = random.integers(1, 8, 200).tolist()
        found = stream(copies, 25, seed)
        rows = found.take(0, 4 * found.draws_per_pass // 25 * 25)
        assert found.draws_per_pass % 25  # batches reach over the ends of passes
        assert meetings(rows, 25) == 0


def test_without_care_copies_would_meet() -> None:
    copies = np.random.default_rng(0).integers(1, 8, 200)
    rows = np.random.default_rng(1).permutation(np.repeat(np.arange(200), copies))
    assert meetings(rows, 25) > 20
    parted = part_copies(
        rows, copies.astype(np.int32), batch=25, at=0, random=np.random.default_rng(2)
    )
    assert meetings(parted, 25) == 0
    assert sorted(parted) == sorted(rows)


def test_more_copies_than_batches_meet_as_little_as_they_must() -> None:
    copies = np.array([6, 1, 1, 1, 1, 1, 1], np.int32)
    random = np.random.default_rng(0)
    order = part_copies(spread(copies, random), copies, batch=4, at=0, random=random)
    assert meetings(order, 4) == 3  # three batches for six copies


def test_each_image_is_anywhere_in_a_pass_with_the_same_chance() -> None:
    copies = np.array([1] * 50 + [5] * 10, np.int32)
    places = np.zeros(60)
    for seed in range(400):
        order = spread(copies, np.random.default_rng(seed))
        firsts = np.argsort(order, kind="stable")
        counts = np.bincount(order, minlength=60)
        starts = np.cumsum(counts) - counts
        places += [
            firsts[s : s + c].mean() / len(order) for s, c in zip(starts, counts, strict=True)
        ]
    assert np.abs(places / 400 - 0.5).max() < 0.06


@settings(deadline=None, max_examples=40)
@given(first=st.integers(0, 10**12), count=st.integers(1, 40), width=st.integers(1, 50))
def test_the_numbers_of_a_draw_depend_on_its_number_alone(
    first: int, count: int, width: int
) -> None:
    def draw(first: int, count: int) -> npt.NDArray[np.float64]:
        return uniforms(3, Purpose.AUGMENTATION, 1, first=first, count=count, width=width)

    whole = draw(first, count)
    assert whole.shape[1] >= width
    assert np.array_equal(whole[count // 2], draw(first + count // 2, 1)[0])
    assert not np.array_equal(whole[0], draw(first + count, 1)[0])
