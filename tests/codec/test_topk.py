import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plstore.codec import decode, encode, statistics
from plstore.errors import InputError

Floats = npt.NDArray[np.float32]


def softmax(logits: npt.NDArray[np.float64]) -> Floats:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), np.float32)


@st.composite
def distributions(draw: st.DrawFn) -> Floats:
    seed = draw(st.integers(0, 2**32 - 1))
    classes = draw(st.sampled_from([1, 2, 3, 10, 57]))
    scale = draw(st.sampled_from([0.0, 1e-4, 0.3, 3.0, 30.0]))
    random = np.random.default_rng(seed)
    return softmax(random.normal(size=(40, classes)) * scale)


@settings(max_examples=60, deadline=None)
@given(distributions(), st.integers(1, 60))
def test_decoding_keeps_sum_argmax_and_the_stated_bound(rows: Floats, k: int) -> None:
    labels = encode(rows, k=k)
    decoded = decode(labels, rows.shape[1])
    residual = labels.field("residual").to_numpy(zero_copy_only=False)
    distance = np.abs(decoded - rows).sum(axis=1) / 2

    assert decoded.dtype == np.float32
    assert np.abs(decoded.sum(axis=1, dtype=np.float64) - 1).max() <= 1e-6
    assert (decoded.argmax(axis=1) == rows.argmax(axis=1)).all()
    assert (distance <= residual + 2**-9 + 1e-6).all()


@settings(max_examples=30, deadline=None)
@given(distributions())
def test_statistics_are_exact(rows: Floats) -> None:
    class_id, confidence, entropy = statistics(rows)
    logs = np.log(np.maximum(rows.astype(np.float64), 1e-300))

    assert (class_id == rows.argmax(axis=1)).all()
    assert (confidence == rows.max(axis=1)).all()
    assert np.allclose(entropy, -(rows * logs).sum(axis=1), atol=1e-4)


def test_all_classes_kept_leaves_no_residual() -> None:
    rows = softmax(np.random.default_rng(0).normal(size=(5, 4)))
    labels = encode(rows, k=20)

    assert labels.field("residual").to_pylist() == [0.0] * 5
    assert [len(ids) for ids in labels.field("class_ids").to_pylist()] == [4] * 5


def test_a_callers_array_is_left_alone() -> None:
    rows = softmax(np.random.default_rng(0).normal(size=(5, 4)))
    rows.flags.writeable = False
    encode(rows, k=2)

    assert rows.shape == (5, 4)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[2.0, -3.0]], "row 0 of the probabilities is no distribution"),
        ([[0.5, 0.5], [0.9, 0.9]], "row 1 of the probabilities is no distribution"),
        ([[np.nan, 0.5]], "row 0 of the probabilities is no distribution"),
        ([0.5, 0.5], r"shape \(2,\)"),
    ],
)
def test_what_is_no_distribution_is_refused(rows: list[object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        encode(np.array(rows, np.float32))


def test_a_class_outside_the_label_space_is_refused() -> None:
    labels = encode(np.array([[0.1, 0.2, 0.7]], np.float32))

    with pytest.raises(InputError, match="wanted 0 to 1"):
        decode(labels, 2)
