"""A file of predictions appears whole, and is gone on with wherever it was stopped."""

import csv
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import plstore
from plstore.errors import InputError
from plstore.exchange import import_predictions, match_predictions
from plstore.images import ImageRecord, import_images
from tests.conftest import CLASS_NAMES
from tests.trainers.predicted import THEIRS, make_model, make_photos, photo
from trainers.events import Event, Note
from trainers.prediction import files as prediction_files
from trainers.prediction.predict import Prediction, predict, write_predictions


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "photos")


def parts(out: Path) -> list[str]:
    folder = out.with_name(f".{out.name}.partial")
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def read(path: Path) -> list[dict[str, Any]]:
    """Rows as text formats have them."""
    if path.suffix == ".csv":
        return list(csv.DictReader(io.StringIO(path.read_text())))
    if path.suffix == ".json":
        found: list[dict[str, Any]] = json.loads(path.read_text())
        return found
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl", "ndjson"])
def test_a_text_has_the_rows_that_predict_returns(
    checkpoint: Path, photos: Path, tmp_path: Path, ending: str
) -> None:
    prediction = Prediction(
        checkpoint=checkpoint, device="cpu", with_probabilities=True, with_embeddings=True
    )
    done = write_predictions(None, photos, tmp_path / f"found.{ending}", prediction)
    rows = predict(None, photos, prediction)
    found = read(tmp_path / f"found.{ending}")

    if ending == "csv":
        nested = [
            {**row, "embedding": row["embedding"] and str(row["embedding"])} for row in rows
        ]
        cells = [{n: "" if v is None else str(v) for n, v in row.items()} for row in nested]
        assert found == cells
    else:
        assert found == rows
    assert (done.num_rows, done.num_before) == (6, 0)
    assert done.verdicts == {"accepted": 5, "not_an_image": 1}
    assert parts(tmp_path / f"found.{ending}") == []


def test_parquet_has_lists_of_exact_numbers(
    checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    prediction = Prediction(
        checkpoint=checkpoint,
        device="cpu",
        top_k=2,
        with_probabilities=True,
        with_embeddings=True,
    )
    write_predictions(None, photos, tmp_path / "found.parquet", prediction)
    rows = predict(None, photos, prediction)
    table = pq.read_table(tmp_path / "found.parquet")
    probs = np.array(table["probabilities"].to_pylist()[:5], np.float32)

    assert table.column_names == [
        *("path", "class", "confidence", "verdict"),
        *("top1_class", "top1_confidence", "top2_class", "top2_confidence"),
        *("probabilities", "embedding"),
    ]
    assert str(table.schema.field("probabilities").type) == "list<element: float>"
    for name in ("path", "class", "verdict", "top1_class", "top2_class"):
        assert table[name].to_pylist() == [row[name] for row in rows]
    assert np.array_equal(probs.max(axis=1), table["confidence"].to_numpy()[:5])
    assert np.abs(probs.sum(axis=1) - 1).max() < 1e-6
    for number, name in enumerate(THEIRS):
        assert np.allclose(
            probs[:, number], [row[f"prob_{name}"] for row in rows[:5]], rtol=1e-5
        )
    found = table["embedding"].to_pylist()
    assert np.allclose(found[0], rows[0]["embedding"], rtol=1e-5)
    assert found[5] is None
    assert table["probabilities"][5].as_py() is None


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("with_probabilities", [True, False])
def test_what_is_written_is_imported_by_name(
    checkpoint: Path, photos: Path, tmp_path: Path, ending: str, with_probabilities: bool
) -> None:
    store = plstore.create(tmp_path / "store")
    records = [
        ImageRecord(key=f"unlabeled/deep/{n}.png", split="unlabeled", data=photo(n))
        for n in range(5)
    ]
    import_images(store, records, dataset="pets", class_names=CLASS_NAMES)
    out = tmp_path / f"found.{ending}"
    prediction = Prediction(
        checkpoint=checkpoint,
        device="cpu",
        with_probabilities=with_probabilities,
        with_embeddings=True,
        top_k=3,
    )
    write_predictions(None, photos, out, prediction)
    rows = predict(None, photos, prediction)
    matched = import_predictions(store, out, teacher_id="theirs")
    with match_predictions(store, out) as again:
        (batch,) = again.splits["unlabeled"]()

    assert matched.counts == {"unlabeled": 5}
    assert matched.left_out == {"not_an_image": 1}
    best = batch.probabilities.argmax(axis=1)
    assert [CLASS_NAMES[n] for n in best] == [row["class"] for row in rows[:5]]
    for place, name in enumerate(CLASS_NAMES):
        wanted = [row[f"prob_{name}"] for row in rows[:5]] if with_probabilities else None
        if wanted is not None:
            assert np.allclose(batch.probabilities[:, place], wanted, atol=1e-5)


class StoppedError(Exception):
    """What ends a run in the middle."""


def stopping(paths: list[str], after: int) -> Iterator[str]:
    yield from paths[:after]
    raise StoppedError


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(
    checkpoint: Path, photos: Path, tmp_path: Path, ending: str
) -> None:
    names = [
        n % 100 if n % 100 < 5 else f"gone-{n % 7}" for n in range(1300)
    ]  # some several times
    paths = [str(photos / f"deep/{name}.png") for name in names]
    prediction = Prediction(checkpoint=checkpoint, device="cpu", with_probabilities=True)
    whole, out = tmp_path / f"whole.{ending}", tmp_path / f"found.{ending}"
    write_predictions(None, paths, whole, prediction)
    for after in (600, 700, 1250):
        with pytest.raises(StoppedError):
            write_predictions(None, stopping(paths, after), out, prediction)
        assert not out.exists()
    told: list[Event] = []
    done = write_predictions(None, paths, out, prediction, on_event=told.append)

    assert done.num_before == 1024  # two portions of 512
    assert (done.num_rows, done.verdicts["accepted"]) == (1300, 65)
    assert any("1024 rows are there" in e.text for e in told if isinstance(e, Note))
    if ending == "parquet":
        assert pq.read_table(out).equals(pq.read_table(whole))
    else:
        assert out.read_bytes() == whole.read_bytes()
    assert parts(out) == []


@pytest.mark.nightly
def test_a_killed_run_loses_no_row_and_doubles_none(
    checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    out, names = tmp_path / "found.csv", [f"gone/{n}.png" for n in range(6000)]
    names[::1000] = [f"{photos}/deep/{n % 5}.png" for n in range(6)]
    words = ["predict", "-", "--checkpoint", str(checkpoint), "--out", str(out)]
    command = [sys.executable, "-m", "plstore.cli.main", *words, "--device", "cpu"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=tmp_path, text=True)
    assert process.stdin is not None
    process.stdin.write("".join(f"{name}\n" for name in names[:5000]))
    process.stdin.flush()
    while "000000000.parquet" not in parts(out) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    left = parts(out)
    text = "".join(f"{name}\n" for name in names)
    again = subprocess.run(
        command, input=text, cwd=tmp_path, text=True, capture_output=True, check=True
    )

    assert "000000000.parquet" in left
    assert "4096 rows are there; it goes on after them" in again.stderr
    assert [row["path"] for row in read(out)] == names
    assert [row["verdict"] for row in read(out)].count("accepted") == 6
    assert parts(out) == []


def test_a_part_that_was_cut_off_does_not_count_and_a_broken_one_is_told(
    checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    out, prediction = tmp_path / "found.csv", Prediction(checkpoint=checkpoint, device="cpu")
    paths = [str(photos / "gone.png")] * 600
    with pytest.raises(StoppedError):
        write_predictions(None, stopping(paths, 550), out, prediction)
    folder = tmp_path / ".found.csv.partial"
    (folder / ".000000001.parquet").write_bytes(b"PAR1 cut o")
    assert parts(out) == [".000000001.parquet", "000000000.parquet", "about.json", "lock"]
    whole = (folder / "000000000.parquet").read_bytes()
    (folder / "000000000.parquet").write_bytes(whole[:100])
    with pytest.raises(
        InputError, match=r"000000000\.parquet cannot be read: .* remove it, and its"
    ):
        write_predictions(None, paths, out, prediction)
    (folder / "000000000.parquet").write_bytes(whole)
    about = (folder / "about.json").read_text()
    (folder / "about.json").write_text(about[:9])
    with pytest.raises(InputError, match=r"about\.json is damaged: .* to begin anew"):
        write_predictions(None, paths, out, prediction)
    (folder / "about.json").write_text(about)
    done = write_predictions(None, paths, out, prediction)

    assert (done.num_before, done.num_rows) == (512, 600)
    assert len(read(out)) == 600


def test_a_part_that_was_removed_is_seen_again_and_no_other_lost(
    checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_files, "_PART_ROWS", 512)
    out, prediction = tmp_path / "found.csv", Prediction(checkpoint=checkpoint, device="cpu")
    paths = [str(photos / f"{n}.png") for n in range(1200)]
    with pytest.raises(StoppedError):
        write_predictions(None, stopping(paths, 1100), out, prediction)
    (tmp_path / ".found.csv.partial" / "000000000.parquet").unlink()
    done = write_predictions(None, paths, out, prediction)

    assert done.num_before == 512
    assert sorted(row["path"] for row in read(out)) == sorted(paths)


def test_files_may_come_and_go_between_runs(
    checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_files, "_NAMES", 2)  # passed over in more than one look
    out, prediction = tmp_path / "found.csv", Prediction(checkpoint=checkpoint, device="cpu")
    monkeypatch.setattr(prediction_files.Unfinished, "finish", _stop)
    with pytest.raises(StoppedError):
        write_predictions(None, photos, out, prediction)
    monkeypatch.undo()
    (photos / "deep/2.png").unlink()
    (photos / "a.png").write_bytes(photo(9))
    (photos / "zz.png").write_bytes(photo(10))
    told: list[Event] = []
    done = write_predictions(None, photos, out, prediction, on_event=told.append)

    assert [row["path"] for row in read(out)] == [
        *(f"deep/{n}.png" for n in range(5)),
        *("page.jpg", "a.png", "zz.png"),
    ]
    assert (done.num_before, done.num_rows) == (6, 8)
    assert any("1 rows are of files" in e.text for e in told if isinstance(e, Note))


def _stop(_: object) -> None:
    raise StoppedError


def test_other_settings_another_process_and_a_whole_file_are_refused(
    checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    out, prediction = tmp_path / "found.csv", Prediction(checkpoint=checkpoint, device="cpu")
    with pytest.raises(StoppedError):
        write_predictions(None, stopping([], 0), out, prediction)
    other = Prediction(checkpoint=checkpoint, device="cpu", top_k=1)
    with pytest.raises(InputError, match=r"top_k was 0 and is 1\. Take the same ones"):
        write_predictions(None, [], out, other)
    with pytest.raises(InputError, match=r"paths_below was .* and is"):
        write_predictions(None, photos, out, prediction)

    def meanwhile() -> Iterator[str]:
        with pytest.raises(InputError, match="another process is making"):
            write_predictions(None, [], out, prediction)
        yield str(photos / "page.jpg")

    write_predictions(None, meanwhile(), out, prediction)
    assert [row["verdict"] for row in read(out)] == ["not_an_image"]
    with pytest.raises(InputError, match=r"found\.csv is there already; remove it to make"):
        write_predictions(None, photos, out, prediction)
    for name in ("found.xlsx", "found", "s3://bucket/found.csv"):
        with pytest.raises(InputError, match=r"wanted a local file that ends in \.csv, \.json"):
            write_predictions(None, photos, name, prediction)
    (tmp_path / ".new.csv.partial").mkdir()
    (tmp_path / ".new.csv.partial" / ".about.json.0a1b").touch()  # of one that was killed
    write_predictions(None, photos, tmp_path / "new.csv", prediction)
    (tmp_path / "new.csv").unlink()
    (tmp_path / ".new.csv.partial").mkdir()
    (tmp_path / ".new.csv.partial" / "mine.txt").touch()
    with pytest.raises(InputError, match=r"holds mine\.txt and is none of this program's"):
        write_predictions(None, photos, tmp_path / "new.csv", prediction)


def test_no_files_make_a_file_of_no_rows(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    prediction = Prediction(checkpoint=checkpoint, device="cpu")
    for name in ("found.csv", "found.parquet"):
        done = write_predictions(None, tmp_path / "none", tmp_path / name, prediction)
        assert done.num_rows == 0

    assert (tmp_path / "found.csv").read_text() == "path,class,confidence,verdict\n"
    assert pq.read_table(tmp_path / "found.parquet").num_rows == 0


def test_the_file_may_lie_among_the_images(checkpoint: Path, photos: Path) -> None:
    prediction = Prediction(checkpoint=checkpoint, device="cpu")
    done = write_predictions(None, photos, photos / "found.csv", prediction)

    assert done.num_rows == 6


def test_many_parts_become_few_row_groups(
    checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_files, "_PART_ROWS", 512)
    monkeypatch.setattr(prediction_files, "_GROUP_ROWS", 1000)
    paths = [str(photos / f"{n}.png") for n in range(3000)]
    out = tmp_path / "found.parquet"
    write_predictions(None, paths, out, Prediction(checkpoint=checkpoint, device="cpu"))
    file = pq.ParquetFile(out)
    counts = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]

    assert counts == [1024, 1024, 952]
    assert file.read()["path"].to_pylist() == paths
