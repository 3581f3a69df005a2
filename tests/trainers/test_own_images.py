"""A user's own folders: many files, some of them damaged, some odd; colour, mixed sizes."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
from PIL import Image

import plstore
from plstore.exchange import parquet_folder
from plstore.query import run_sql
from trainers.data import sample_folder

NUM_UNLABELED = 10_000
RANDOM = np.random.default_rng(0)


def save(image: Image.Image, kind: str, **options: Any) -> bytes:  # noqa: ANN401  Pillow's own
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()


def photo() -> Image.Image:
    side = RANDOM.integers(20, 60, 2)
    small = RANDOM.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((int(side[0]), int(side[1])), Image.Resampling.BICUBIC)


def odd_files() -> dict[str, list[bytes]]:
    exif = Image.Exif()
    exif[0x0112] = 6
    sixteen = Image.fromarray(RANDOM.integers(0, 65_536, (28, 28)).astype(np.uint16))
    jpeg, png = save(photo(), "JPEG"), save(photo(), "PNG")
    return {
        "truncated": [jpeg[: len(jpeg) * 2 // 3]] * 4 + [png[:-7]] * 4,
        "empty": [b""] * 7,
        "not_an_image": [b"<html>404 not found</html>"] * 7,
        "unsupported_pdf": [b"%PDF-1.7"] * 4,
        "from_gif+palette": [save(photo(), "GIF")] * 3,
        "cmyk": [save(photo().convert("CMYK"), "JPEG")] * 7,
        "sixteen_bit": [save(sixteen, "PNG")] * 7,
        "exif_rotated": [save(photo(), "JPEG", exif=exif)] * 6,
        "over_pixel_limit": [save(Image.new("L", (10_000, 10_000)), "PNG")],
    }


def run(home: Path, *extra: str) -> dict[str, Any]:
    words = [sys.executable, "-m", "plstore.cli.main", "run", "--store", str(home / "store")]
    words += ["--labeled", str(home / "labeled"), "--unlabeled", str(home / "unlabeled")]
    words += ["--model", "test_resnet", "--resolution", "28", "--device", "cpu"]
    for setting in ("train.steps=6", "schedule.warmup_steps=1", "select.min_confidence=0.05"):
        words += ["--set", setting]
    subprocess.run([*words, *extra], check=True, capture_output=True)
    found: dict[str, Any] = json.loads((home / "result.json").read_text())
    return found


@pytest.mark.nightly
def test_ten_thousand_images_of_which_fifty_are_damaged_or_odd(tmp_path: Path) -> None:
    source = parquet_folder(sample_folder(), dataset="sample")
    odd = odd_files()
    plain = NUM_UNLABELED - sum(len(files) for files in odd.values())
    (tmp_path / "unlabeled").mkdir()
    for record in source.records():
        if record.split == "labeled":
            folder = tmp_path / "labeled" / str(record.label).replace("/", "-")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / Path(record.key).name).write_bytes(record.data)
        elif record.split == "unlabeled" and plain:
            plain -= 1
            (tmp_path / "unlabeled" / Path(record.key).name).write_bytes(record.data)
    for name, files in odd.items():
        for index, data in enumerate(files):
            (tmp_path / "unlabeled" / f"{name}-{index}.jpg").write_bytes(data)
    found = run(tmp_path, "--set", "iterations=1")
    imported = found["imported"]
    refused = {k: len(v) for k, v in odd.items() if k in imported["verdicts"]}
    page = (tmp_path / "report.html").read_text()

    assert sum(len(files) for files in odd.values()) == 50
    assert imported["splits"]["unlabeled"] == NUM_UNLABELED - 7  # what is empty is no image
    assert {k: n for k, n in imported["verdicts"].items() if k != "accepted"} == {
        "truncated": 8,
        "not_an_image": 7,
        "unsupported_pdf": 4,
        "over_pixel_limit": 1,
    }
    assert imported["conversions"] == {
        "cmyk": 7,
        "sixteen_bit": 7,
        "exif_rotated": 6,
        "from_gif+palette": 3,
    }
    assert found["students"][0]["counts"]["in"] == NUM_UNLABELED - 7
    assert found["students"][0]["counts"]["dropped"].items() >= refused.items()
    for name in odd.keys() - {"empty"}:
        assert name in page


@pytest.mark.nightly
def test_colour_photos_of_mixed_sizes_make_a_model_that_timm_loads(tmp_path: Path) -> None:
    for split, names in (("labeled", "ab"), ("unlabeled", "_"), ("test", "ab")):
        for name in names:
            folder = tmp_path / split / ("" if name == "_" else name)
            folder.mkdir(parents=True)
            for index in range(30):
                (folder / f"{index}.jpg").write_bytes(save(photo(), "JPEG"))
    found = run(tmp_path, "--test", str(tmp_path / "test"), "--set", "iterations=1")
    checkpoint = tmp_path / "store" / found["students"][0]["checkpoint"]
    network = timm.create_model(f"local-dir:{checkpoint}", pretrained=True)
    store = plstore.open(tmp_path / "store")
    splits = run_sql(store, "select split, count(*) as n from images group by 1 order by 1")

    assert network.num_classes == 2
    assert network.pretrained_cfg["label_names"] == ["a", "b"]
    assert network.pretrained_cfg["input_size"] == (3, 28, 28)
    assert splits["n"].to_pylist() == [52, 60, 30, 8]
    assert found["students"][0]["test_accuracy"] is not None
