"""Every file gets a row, whatever it is, as it is seen, and memory is bounded by bytes."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from plstore.errors import InputError
from plstore.exchange import path_list
from plstore.fingerprint import content_hash
from plstore.images import DEFAULT_MAX_BYTES
from plstore.loaders import ImageSet, image_table
from plstore.report.progress import Display
from plstore.store import Store
from tests.conftest import CLASS_NAMES
from tests.trainers.predicted import THEIRS, make_model, make_photos
from trainers.events import Event, Note, Shown
from trainers.inference.clean import BatchSize, Look, first_batch, looks, probabilities
from trainers.models.bringing import bring_teacher
from trainers.models.model import Bundle, load_bundle
from trainers.prediction.predict import Prediction, predict, predictions
from trainers.prediction.viewing import portions


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


@pytest.fixture
def brought(store: Store, checkpoint: Path) -> Store:
    bring_teacher(store, "mine", str(checkpoint), device="cpu")
    return store


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "photos")


def own_images(photos: Path) -> ImageSet:
    files = [(photos / f"deep/{number}.png").read_bytes() for number in range(5)]
    return ImageSet(image_table((d, 20, 20, content_hash(d)) for d in files), 3)


def test_rows_name_path_class_confidence_and_verdict(
    brought: Store, checkpoint: Path, photos: Path
) -> None:
    short = predict(brought, photos, Prediction(teacher_id="mine", device="cpu"))
    wanted = Prediction(teacher_id="mine", device="cpu", with_probabilities=True)
    rows = predict(brought, photos, wanted)
    own = load_bundle(checkpoint)
    ((_, probs),) = probabilities(own, own_images(photos), device="cpu")

    assert list(short[0]) == ["path", "class", "confidence", "verdict"]
    assert list(rows[0]) == [*short[0], *(f"prob_{name}" for name in CLASS_NAMES)]
    assert [row["path"] for row in rows] == [*(f"deep/{n}.png" for n in range(5)), "page.jpg"]
    for row, values in zip(rows, probs, strict=False):
        assert row["class"] == THEIRS[int(values.argmax())]
        assert row["confidence"] == pytest.approx(float(values.max()), abs=1e-6)
        for name, value in zip(THEIRS, values.tolist(), strict=True):
            assert row[f"prob_{name}"] == pytest.approx(value, rel=1e-5)
        assert math.isclose(sum(row[f"prob_{n}"] for n in CLASS_NAMES), 1, abs_tol=1e-5)
    assert rows[5]["verdict"] == "not_an_image"
    assert all(rows[5][name] is None for name in rows[5] if name not in {"path", "verdict"})
    assert short == [{n: row[n] for n in short[0]} for row in rows]


def test_the_most_probable_classes_have_columns_in_their_order(
    checkpoint: Path, photos: Path
) -> None:
    wanted = Prediction(checkpoint=checkpoint, device="cpu", top_k=3, with_probabilities=True)
    rows = predict(None, photos, wanted)

    for row in rows[:5]:
        ranked = sorted(THEIRS, key=lambda name: -row[f"prob_{name}"])
        assert [row[f"top{rank}_class"] for rank in (1, 2, 3)] == ranked
        assert (row["top1_class"], row["top1_confidence"]) == (row["class"], row["confidence"])
        for rank, name in enumerate(ranked, 1):
            assert row[f"top{rank}_confidence"] == pytest.approx(row[f"prob_{name}"], abs=1e-6)
    assert rows[5]["top1_class"] is None
    with pytest.raises(InputError, match="top_k is 4; wanted at most 3, the classes"):
        predict(None, photos, Prediction(checkpoint=checkpoint, device="cpu", top_k=4))


def test_an_embedding_is_what_the_model_without_its_classifier_gives(
    checkpoint: Path, photos: Path
) -> None:
    wanted = Prediction(checkpoint=checkpoint, device="cpu", with_embeddings=True)
    rows = predict(None, photos, wanted)
    plain = predict(None, photos, Prediction(checkpoint=checkpoint, device="cpu"))
    headless = timm.create_model(f"local-dir:{checkpoint}", pretrained=True, num_classes=0)
    bundle = load_bundle(checkpoint)
    (batch,) = [batch for batch, _ in probabilities(bundle, own_images(photos), device="cpu")]
    with torch.inference_mode():
        expected = headless.eval()(bundle.format.normalise(batch.images))

    found = torch.tensor([row["embedding"] for row in rows[:5]])
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-5)
    assert rows[5]["embedding"] is None
    assert [{n: row[n] for n in plain[0]} for row in rows] == plain


def test_a_model_without_pooled_features_gives_no_embeddings(checkpoint: Path) -> None:
    bundle = load_bundle(checkpoint)
    bare = Bundle(**{**vars(bundle), "network": nn.Sequential(nn.Flatten(), nn.Linear(768, 3))})
    skips = Bundle(**{**vars(bundle), "network": _Skipping(bundle.network)})

    for broken in (bare, skips):
        with pytest.raises(InputError, match="does not give its pooled features"):
            broken.check_features()


class _Skipping(nn.Module):
    """A model whose logits do not come from its features alone."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.inner(images)
        return found + 1

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.inner.forward_features(images)  # type: ignore[operator]
        return found

    def forward_head(self, features: torch.Tensor, *, pre_logits: bool = False) -> torch.Tensor:
        found: torch.Tensor = self.inner.forward_head(features, pre_logits=pre_logits)  # type: ignore[operator]
        return found


def test_rows_come_as_they_are_seen(checkpoint: Path, photos: Path) -> None:
    asked = []

    def paths() -> Iterator[Path]:
        for number in range(1_000_000_000):
            asked.append(number)
            yield photos / f"deep/{number % 5}.png"

    rows = predictions(None, paths(), Prediction(checkpoint=checkpoint, device="cpu"))
    first = [next(rows) for _ in range(5)]

    assert [row["path"] for row in first] == [str(photos / f"deep/{n}.png") for n in range(5)]
    assert all(row["class"] in THEIRS for row in first)
    assert len(asked) == 513  # one portion, and the file that shows that it is full


def test_images_are_named_by_list_file_or_path(checkpoint: Path, photos: Path) -> None:
    prediction = Prediction(checkpoint=checkpoint, device="cpu")
    below = {row["path"]: row["class"] for row in predict(None, photos, prediction)}
    (photos / "list.txt").write_text("deep/3.png\ndeep/gone.png\ndeep\n")
    listed = predict(None, path_list(photos / "list.txt"), prediction)
    (one,) = predict(None, photos / "deep/3.png", prediction)
    again = predict(None, [photos / "deep/3.png"] * 2, prediction)

    assert [(row["path"], row["verdict"]) for row in listed] == [
        ("deep/3.png", "accepted"),
        ("deep/gone.png", "missing"),
        ("deep", "unreadable"),
    ]
    assert listed[0]["class"] == one["class"] == below["deep/3.png"]
    assert one["path"] == str(photos / "deep/3.png")
    assert again == [one, one]


def test_a_file_that_vanishes_or_cannot_be_read_has_a_verdict(
    checkpoint: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (photos / "large.png").open("wb") as large:
        large.truncate(DEFAULT_MAX_BYTES + 1)
    (photos / "nowhere.png").symlink_to(photos / "gone.png")
    rows = []
    prediction = Prediction(checkpoint=checkpoint, device="cpu")
    names = sorted(str(path) for path in photos.rglob("*") if not path.is_dir())

    def vanishing() -> Iterator[str]:
        for name in names:
            yield name  # its size is looked at, and then:
            if name.endswith("1.png"):
                Path(name).unlink()
            if name.endswith("3.png"):
                Path(name).unlink()
                Path(name).mkdir()

    rows = predict(None, vanishing(), prediction, on_event=Shown(Display()))
    verdicts = {Path(row["path"]).name: row["verdict"] for row in rows}

    assert verdicts == {
        "0.png": "accepted",
        "1.png": "missing",
        "2.png": "accepted",
        "3.png": "unreadable",
        "4.png": "accepted",
        "large.png": "over_byte_limit",
        "nowhere.png": "missing",
        "page.jpg": "not_an_image",
    }
    assert "5 of 8 files have no class: missing 2, not_an_image 1, over_byte_limit 1" in (
        capsys.readouterr().err
    )


def test_files_are_held_by_bytes_and_number(tmp_path: Path) -> None:
    sizes = [30, 30, 30, 100, 1, 300, 1, 1]  # MiB; the one of 300 is never read
    named = []
    for number, size in enumerate(sizes):
        named.append((str(number), str(tmp_path / str(number))))
        with Path(named[-1][1]).open("wb") as file:
            file.truncate(size << 20)
    blocks = [[sizes[int(name)] for name, _ in block] for block in portions(named)]
    gone = [("gone", str(tmp_path / "gone"))] * 1100

    assert blocks == [[30, 30], [30], [100], [1, 300, 1, 1]]
    assert [len(block) for block in portions(gone)] == [512, 512, 76]


class _Small(nn.Module):
    """A model on a device whose memory holds so many images."""

    def __init__(self, room: int, error: Exception) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3))
        self.room, self.error = room, error
        self.shown: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.shown.append(len(images))
        if len(images) > self.room:
            raise self.error
        found: torch.Tensor = self.inner(images)
        return found


def seen(bundle: Bundle, images: ImageSet, size: BatchSize) -> list[Look]:
    return list(looks(bundle, images, device="cpu", batch_size=size))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate"
                     " memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA runtime API error cudaErrorMemoryAllocation (2): out of memory"),
        MemoryError(),
    ],
)  # fmt: skip
def test_a_batch_that_memory_does_not_hold_is_halved_for_good(
    checkpoint: Path, photos: Path, error: Exception
) -> None:
    bundle = load_bundle(checkpoint)
    large = Bundle(**{**vars(bundle), "network": _Small(5, error)})
    whole = seen(large, own_images(photos), BatchSize(5))
    network = _Small(2, error)
    small = Bundle(**{**vars(bundle), "network": network})
    said: list[tuple[int, int]] = []
    size = BatchSize(16, lambda before, now: said.append((before, now)))
    found = seen(small, own_images(photos), size)
    again = seen(small, own_images(photos), size)

    assert torch.equal(torch.cat([look.batch.sample_ids for look in found]), torch.arange(5))
    assert torch.allclose(torch.cat([look.probs for look in found]), whole[0].probs, atol=1e-6)
    assert said == [(16, 8), (8, 4), (4, 2)]
    assert network.shown == [5, 5, 4, 2, 2, 1, 2, 2, 1]
    assert len(again) == 3


def test_what_does_not_fit_alone_is_told_and_other_errors_are_not_hidden(
    checkpoint: Path, photos: Path
) -> None:
    bundle = load_bundle(checkpoint)
    none = _Small(0, torch.OutOfMemoryError("CUDA out of memory"))
    other = _Small(2, RuntimeError("mat1 and mat2 cannot be multiplied"))

    with pytest.raises(InputError, match="one image of 16 pixels does not fit into the memory"):
        seen(Bundle(**{**vars(bundle), "network": none}), own_images(photos), BatchSize(4))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        seen(Bundle(**{**vars(bundle), "network": other}), own_images(photos), BatchSize(4))
    assert other.shown == [4]


def test_the_first_batch_is_by_pixels_and_device(checkpoint: Path) -> None:
    format_ = load_bundle(checkpoint).format
    large = type(format_)(size=4096)

    assert [first_batch(f, "cpu") for f in (format_, large)] == [64, 1]
    assert [first_batch(f, "cuda") for f in (format_, large)] == [512, 5]


def test_a_batch_size_does_not_change_what_is_seen(checkpoint: Path, photos: Path) -> None:
    rows = [
        predict(None, photos, Prediction(checkpoint=checkpoint, device="cpu", batch=size))
        for size in ("auto", 1, 2)
    ]

    for other in rows[1:]:
        assert [row["class"] for row in other] == [row["class"] for row in rows[0]]
        found, wanted = ([row["confidence"] for row in some[:5]] for some in (other, rows[0]))
        assert np.allclose(found, wanted, atol=2e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "has no teacher yet with a model"),
        ({"backend": "ffcv"}, "backend is 'ffcv'"),
        ({"teacher_id": "other"}, "no teacher other with a model; it has mine"),
        ({"teacher_id": "mine", "checkpoint": "x"}, "both a teacher, 'mine', and a checkpoint"),
        ({"checkpoint": "nothing"}, "nothing is no model folder"),
        ({"top_k": -1}, "top_k is -1"),
        ({"batch": 0}, "batch is 0"),
        ({"batch": "much"}, "batch is 'much'; wanted 'auto' or a whole number above 0"),
        ({"min_confidence": 0.5}, r"min_confidence is 0\.5, and nothing is sorted"),
        ({"min_confidence": 2, "sort_into": "x"}, "min_confidence is 2"),
    ],
)
def test_impossible_settings_are_refused_before_an_image_is_read(
    brought: Store, photos: Path, settings: dict[str, object], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        predictions(brought, photos, Prediction(**{"device": "cpu", **settings}))  # type: ignore[arg-type]


def test_a_store_or_a_checkpoint_is_named(photos: Path) -> None:
    with pytest.raises(InputError, match="no model is named; wanted a store with one, or a"):
        predict(None, photos)


def test_what_people_should_know_of_a_model_is_said(checkpoint: Path, photos: Path) -> None:
    config = checkpoint / "config.json"
    text = config.read_text()
    config.write_text(text.replace('"crop_mode": "center"', '"crop_mode": "squash"'))
    told: list[Event] = []
    predict(None, photos, Prediction(checkpoint=checkpoint, device="cpu"), on_event=told.append)
    notes = [event.text for event in told if isinstance(event, Note)]

    assert text != config.read_text()
    assert any("its crop_mode is 'squash'" in note for note in notes)
