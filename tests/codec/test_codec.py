import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plstore.codec import Codec, decode, encode
from plstore.errors import InputError

Floats = npt.NDArray[np.float32]


def softmax(logits: npt.NDArray[np.float64]) -> Floats:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), np.float32)


@st.composite
def distributions(draw: st.DrawFn) -> Floats:
    seed = draw(st.integers(0, 2**32 - 1))
    classes = draw(st.sampled_from([1, 2, 3, 10, 57]))
    scale = draw(st.sampled_from([0.0, 1e-4, 0.3, 3.0, 30.0, 300.0]))
    random = np.random.default_rng(seed)
    return softmax(random.normal(size=(40, classes)) * scale)


codecs = st.one_of(
    st.builds(Codec, name=st.just("topk"), k=st.integers(1, 60)),
    st.builds(
        Codec, name=st.just("topk"), k=st.integers(1, 60), mass=st.sampled_from([0.5, 0.98, 1])
    ),
    st.builds(Codec, name=st.just("dense"), k=st.integers(1, 60)),
    st.just(Codec(name="hard")),
)


@settings(max_examples=200, deadline=None)
@given(distributions(), codecs)
def test_every_codec_keeps_sum_and_argmax(rows: Floats, codec: Codec) -> None:
    coded = encode(rows, codec)
    decoded = decode(coded.labels, rows.shape[1])
    firsts = [ids[0] for ids in coded.labels.field("class_ids").to_pylist()]

    assert decoded.dtype == np.float32
    assert np.abs(decoded.sum(axis=1, dtype=np.float64) - 1).max() <= 1e-6
    assert (decoded.argmax(axis=1) == rows.argmax(axis=1)).all()
    assert (coded.class_ids == rows.argmax(axis=1)).all()
    assert (np.array(firsts) == coded.class_ids).all()


@settings(max_examples=60, deadline=None)
@given(distributions(), st.integers(1, 60))
def test_topk_is_as_near_as_it_says(rows: Floats, k: int) -> None:
    labels = encode(rows, Codec(k=k)).labels
    residual = labels.field("residual").to_numpy(zero_copy_only=False)
    distance = np.abs(decode(labels, rows.shape[1]) - rows).sum(axis=1) / 2

    assert (distance <= residual + 2**-9 + 1e-6).all()


@settings(max_examples=60, deadline=None)
@given(distributions(), st.integers(1, 60), st.sampled_from([0.3, 0.9, 0.99]))
def test_adaptive_topk_keeps_the_mass_with_no_class_too_many(
    rows: Floats, k: int, mass: float
) -> None:
    labels = encode(rows, Codec(k=k, mass=mass)).labels
    counts = np.array([len(ids) for ids in labels.field("class_ids").to_pylist()])
    falling = -np.sort(-rows.astype(np.float64), axis=1)
    held = np.cumsum(falling, axis=1)
    for row, count in enumerate(counts):
        assert count == min(k, rows.shape[1]) or held[row, count - 1] >= mass - 1e-6
        assert count == 1 or held[row, count - 2] < mass + 1e-6


@settings(max_examples=60, deadline=None)
@given(distributions(), st.integers(1, 20))
def test_dense_is_as_near_as_it_says(rows: Floats, k: int) -> None:
    num_classes = rows.shape[1]
    labels = encode(rows, Codec(name="dense", k=k)).labels
    for row, label in zip(rows, labels.to_pylist(), strict=True):
        kept = label["class_ids"]
        others = np.delete(row, kept)
        codes = np.frombuffer(label["tail"], np.uint8)
        roots = np.maximum(1 - codes[1:] / codes[0], 0.25 / codes[0])
        shares = others / max(row[kept].min(), 1e-38)

        assert len(codes) == 1 + num_classes - len(kept)
        assert (np.abs(shares**0.25 - roots) <= 1 / 36 + 1e-6).all()


def test_dense_is_nearer_than_topk_at_every_temperature() -> None:
    rows = softmax(np.random.default_rng(0).normal(size=(500, 200)) * 2.5)
    for temperature in (1, 2, 4):
        error = {}
        for name in ("topk", "dense"):
            codec = Codec(name=name, k=10)
            kept = decode(encode(rows, codec).labels, 200).astype(np.float64)
            p, q = (x ** (1 / temperature) for x in (rows.astype(np.float64), kept))
            p, q = (x / x.sum(axis=1, keepdims=True) for x in (p, q))
            error[name] = float((p * np.log(p / q)).sum(axis=1).mean())
        assert error["dense"] < error["topk"] / 50


@settings(max_examples=30, deadline=None)
@given(distributions())
def test_statistics_are_exact(rows: Floats) -> None:
    coded = encode(rows, Codec(k=3))
    logs = np.log(np.maximum(rows.astype(np.float64), 1e-300))

    assert (coded.confidence == rows.max(axis=1)).all()
    assert np.allclose(coded.entropy, -(rows * logs).sum(axis=1), atol=1e-4)


def test_hard_is_one_hot() -> None:
    rows = softmax(np.random.default_rng(0).normal(size=(5, 4)))

    assert (
        decode(encode(rows, Codec(name="hard")).labels, 4) == np.eye(4)[rows.argmax(1)]
    ).all()


def test_all_classes_kept_leaves_no_residual() -> None:
    rows = softmax(np.random.default_rng(0).normal(size=(5, 4)))
    labels = encode(rows).labels

    assert labels.field("residual").to_pylist() == [0.0] * 5
    assert [len(ids) for ids in labels.field("class_ids").to_pylist()] == [4] * 5


def test_labels_of_several_codecs_and_null_decode_together_and_into_an_array() -> None:
    rows = softmax(np.random.default_rng(0).normal(size=(6, 30)) * 3)
    parts = [encode(rows, codec).labels for codec in (Codec(k=5), Codec(name="dense", k=5))]
    parts += [encode(rows, Codec(mass=0.9)).labels, pa.nulls(2, parts[0].type)]
    out = np.empty((20, 30), np.float32)
    mixed = decode(pa.concat_arrays(parts).take(pa.array([0, 6, 1, 7, 12, 18, 13])), 30)
    whole = decode(pa.concat_arrays(parts), 30, out=out)

    assert whole is out
    assert (whole[18:] == 0).all()
    assert np.array_equal(mixed, out[[0, 6, 1, 7, 12, 18, 13]])
    assert np.array_equal(decode(parts[1], 30), out[6:12])


def test_a_sliced_label_decodes_as_its_rows() -> None:
    rows = softmax(np.random.default_rng(0).normal(size=(9, 12)))
    for codec in (Codec(k=3), Codec(name="dense", k=3)):
        labels = encode(rows, codec).labels
        assert np.array_equal(decode(labels.slice(4, 3), 12), decode(labels, 12)[4:7])


def test_a_callers_array_is_left_alone() -> None:
    rows = softmax(np.random.default_rng(0).normal(size=(5, 4)))
    before = rows.copy()
    rows.flags.writeable = False
    for codec in (Codec(k=2), Codec(name="dense", k=2), Codec(name="hard")):
        encode(rows, codec)

    assert np.array_equal(rows, before)


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


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"k": 0}, "k is 0"),
        ({"name": "zip"}, "codec 'zip'; wanted one of topk, dense, hard"),
        ({"mass": 2.0}, "mass 2.0"),
        ({"name": "dense", "mass": 0.9}, "codec 'dense' with mass"),
    ],
)
def test_impossible_settings_are_refused(settings_: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Codec(**settings_)  # type: ignore[arg-type]  # wrong on purpose


def test_a_class_outside_the_label_space_is_refused() -> None:
    labels = encode(np.array([[0.1, 0.2, 0.7]], np.float32)).labels

    with pytest.raises(InputError, match="wanted 0 to 1"):
        decode(labels, 2)


def test_a_dense_label_of_another_label_space_is_refused() -> None:
    rows = softmax(np.random.default_rng(0).normal(size=(3, 9)))
    labels = encode(rows, Codec(name="dense", k=2)).labels

    with pytest.raises(InputError, match="coded tails of 8 bytes beside 2 classes; wanted 9"):
        decode(labels, 10)
