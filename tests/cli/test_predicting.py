"""Predictions from the shell."""

import csv
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from plstore.cli.predicting import predict
from plstore.errors import InputError
from tests.cli.test_main import plstore
from tests.trainers.predicted import make_model, make_photos

COMMAND = (sys.executable, "-m", "plstore.cli.main", "predict")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "photos")


def test_every_form_has_the_same_rows(
    checkpoint: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {}
    for form in ("json", "jsonl", "csv", "table"):
        predict(str(photos), checkpoint=checkpoint, top_k=2, device="cpu", format_=form)
        found[form] = capsys.readouterr().out
    rows = json.loads(found["json"])
    cells = [{n: "" if v is None else str(v) for n, v in row.items()} for row in rows]

    assert len(rows) == 6
    assert list(rows[0])[-2:] == ["top2_class", "top2_confidence"]
    assert [json.loads(line) for line in found["jsonl"].splitlines()] == rows
    assert list(csv.DictReader(io.StringIO(found["csv"]))) == cells
    assert found["table"].splitlines()[-1] == "(6 rows)"


def test_paths_come_from_stdin_or_a_list(
    checkpoint: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(photos)
    text = io.TextIOWrapper(io.BytesIO(b"deep/1.png\r\n\ngone.png\npage.jpg"))
    monkeypatch.setattr(sys, "stdin", text)
    predict("-", checkpoint=checkpoint, device="cpu", format_="csv")
    piped = capsys.readouterr().out
    (photos / "list.txt").write_text("deep/1.png\ngone.png\npage.jpg\n")
    predict(list_=Path("list.txt"), checkpoint=checkpoint, device="cpu", format_="csv")
    listed = capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a.png\nb\xff.png\n")))

    assert piped == listed
    rows = list(csv.DictReader(io.StringIO(piped)))
    assert [row["path"] for row in rows] == ["deep/1.png", "gone.png", "page.jpg"]
    assert [row["verdict"] for row in rows] == ["accepted", "missing", "not_an_image"]
    with pytest.raises(InputError, match=r"line 2 of stdin is not UTF-8: b'b\\xff\.png"):
        predict("-", checkpoint=checkpoint, device="cpu")


def test_a_file_is_summed_up(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(
        str(photos),
        store=str(tmp_path / "no store is asked for"),
        checkpoint=checkpoint,
        out=tmp_path / "found.parquet",
        sort_into=tmp_path / "sorted",
        batch="3",
        device="cpu",
        format_="json",
    )
    rows = json.loads(capsys.readouterr().out)

    assert rows[:3] == [
        {"what": f"rows of {tmp_path / 'found.parquet'}", "n": 6},
        {"what": "accepted", "n": 5},
        {"what": "not_an_image", "n": 1},
    ]
    assert sum(row["n"] for row in rows[3:]) == 5
    assert all(row["what"].startswith("copied into ") for row in rows[3:])


def test_images_and_a_model_are_named_once(checkpoint: Path, photos: Path) -> None:
    with pytest.raises(InputError, match="no model is named; wanted --store"):
        predict(str(photos))
    with pytest.raises(InputError, match="name the images once"):
        predict(checkpoint=checkpoint)
    with pytest.raises(InputError, match="name the images once"):
        predict(str(photos), list_=photos / "list.txt", checkpoint=checkpoint)
    with pytest.raises(InputError, match="batch is 'much'"):
        predict(str(photos), checkpoint=checkpoint, batch="much")


def test_an_unknown_form_is_refused_with_the_others_named() -> None:
    done = plstore("predict", ".", "--format", "xml", "--checkpoint", ".")

    assert done.returncode == 2
    assert "--format is 'xml'; wanted table, json, jsonl, csv" in done.stderr


@pytest.mark.nightly
def test_rows_go_to_their_file_while_a_terminal_shows_the_bar(
    checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    terminal, end = pty.openpty()
    words = (str(photos), "--checkpoint", str(checkpoint), "--format", "csv")
    with (tmp_path / "found.csv").open("w") as found:
        code = subprocess.call(
            [*COMMAND, *words], stdout=found, stderr=end, env={**os.environ, "TERM": "xterm"}
        )
    os.close(end)
    shown = os.read(terminal, 1 << 20).decode()
    os.close(terminal)

    assert code == 0
    assert len((tmp_path / "found.csv").read_text().splitlines()) == 7
    assert "predict" in shown
    assert "6/6" in shown
    assert "deep/1.png" not in shown


@pytest.mark.nightly
def test_a_reader_that_has_enough_ends_it_in_silence(checkpoint: Path, photos: Path) -> None:
    paths = "".join(f"{photos}/gone-{n}.png\n" for n in range(20_000))
    words = ("-", "--checkpoint", str(checkpoint), "--format", "jsonl")
    process = subprocess.Popen(
        [*COMMAND, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.write(paths[:60_000])
    process.stdin.flush()
    first = process.stdout.readline()  # while stdin is open: rows come as they are seen
    process.stdout.close()
    _, said = process.communicate(paths)

    assert json.loads(first)["verdict"] == "missing"
    assert process.returncode == 0, said
    assert "Traceback" not in said
