"""Every file gets a row, whatever it is, and memory is bounded by bytes."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from plstore.exchange.folders import files_below
from plstore.fingerprint import content_hash
from plstore.images import DEFAULT_MAX_BYTES
from plstore.loaders import ImageFormat, ImageSet, image_table
from plstore.report.progress import Display
from plstore.store import Store
from tests.conftest import CLASS_NAMES, encode
from trainers import prediction as module
from trainers.bringing import bring_teacher
from trainers.events import Shown
from trainers.inference import probabilities
from trainers.model import build_model, load_bundle, save_bundle
from trainers.prediction import Prediction, predict
from trainers.recipe import Model

THEIRS = ("owl", "cat", "dog")


@pytest.fixture
def checkpoint(store: Store, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    settings = Model(teacher="test_resnet", resolution=16, stochastic_depth=0)
    network = build_model(settings, "test_resnet", 3)
    save_bundle(tmp_path / "model", network, ImageFormat(size=16), THEIRS)
    bring_teacher(store, "mine", str(tmp_path / "model"), device="cpu")
    return tmp_path / "model"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    for number in range(5):
        data = encode(random.integers(0, 256, (20, 20, 3), dtype=np.uint8))
        (tmp_path / "photos" / "deep" / f"{number}.png").write_bytes(data)
    (tmp_path / "photos" / "page.jpg").write_bytes(b"<html>404</html>")
    return tmp_path / "photos"


def test_rows_name_path_class_confidence_and_verdict(
    store: Store, checkpoint: Path, photos: Path
) -> None:
    short = predict(store, photos, Prediction(teacher_id="mine", device="cpu"))
    wanted = Prediction(teacher_id="mine", device="cpu", with_probabilities=True)
    rows = predict(store, photos, wanted)
    own = load_bundle(checkpoint)
    files = [(photos / row["path"]).read_bytes() for row in rows[:5]]
    images = ImageSet(image_table((d, 20, 20, content_hash(d)) for d in files), 3)
    ((_, probs),) = probabilities(own, images, device="cpu")

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


def test_a_file_that_vanishes_or_cannot_be_read_has_a_verdict(
    store: Store,
    checkpoint: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = files_below
    with (photos / "large.png").open("wb") as large:
        large.truncate(DEFAULT_MAX_BYTES + 1)

    def vanishing(folder: Path) -> list[Path]:
        found = list(real(folder))
        (folder / "deep" / "1.png").unlink()
        (folder / "deep" / "3.png").unlink()
        (folder / "deep" / "3.png").mkdir()
        return found

    monkeypatch.setattr(module, "files_below", vanishing)
    rows = predict(
        store, photos, Prediction(teacher_id="mine", device="cpu"), on_event=Shown(Display())
    )
    verdicts = {Path(row["path"]).name: row["verdict"] for row in rows}

    assert checkpoint.is_dir()
    assert verdicts == {
        "0.png": "accepted",
        "1.png": "missing",
        "2.png": "accepted",
        "3.png": "unreadable",
        "4.png": "accepted",
        "large.png": "over_byte_limit",
        "page.jpg": "not_an_image",
    }
    assert "4 of 7 files have no class: missing 1, not_an_image 1, over_byte_limit 1" in (
        capsys.readouterr().err
    )


def test_files_are_held_by_bytes_and_number(tmp_path: Path) -> None:
    sizes = [30, 30, 30, 100, 1, 300, 1, 1]  # MiB; the one of 300 is never read
    paths = []
    for number, size in enumerate(sizes):
        paths.append(tmp_path / str(number))
        with paths[-1].open("wb") as file:
            file.truncate(size << 20)
    blocks = [[sizes[int(p.name)] for p in block] for block in module._portions(paths)]
    many = [len(block) for block in module._portions([tmp_path / "gone"] * 1100)]

    assert blocks == [[30, 30], [30], [100], [1, 300, 1, 1]]
    assert many == [512, 512, 76]


def test_no_teacher_is_named(store: Store, photos: Path) -> None:
    from plstore.errors import InputError

    with pytest.raises(InputError, match="has no teacher yet with a model"):
        predict(store, photos, Prediction(device="cpu"))
    with pytest.raises(InputError, match="backend is 'ffcv'"):
        predict(store, photos, Prediction(backend="ffcv"))  # type: ignore[arg-type]
