"""The same images with the same soft labels in every form that a contender of `loaders` reads.

JPEGs of about ImageNet's size (162,000 pixels and 87 kB, where ImageNet has 180,000 and 110)
are random crops of the photos of `benchmarks.teachers`, each another one; a tenth is labeled,
the rest has soft labels of 1,000 classes.
"""

import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

import plstore
from benchmarks.teachers import photo_paths
from plstore.codec import Codec
from plstore.images import ImageRecord, import_images
from plstore.labels import LabelBatch, LabelSet, commit_labels, write_labels
from plstore.seeds import Purpose, generator
from plstore.selection import Balance, Selection, select
from plstore.store import Store

NUM_CLASSES: Final = 1000
NUM_TARS: Final = 4  # a worker process reads tars of its own
_LABELED_EVERY: Final = 10
_SIDES: Final = (500, 375)
_QUALITY: Final = 95
_GRAIN: Final = 8  # levels, so that crops have as many bits a pixel as ImageNet's photos


def make_data(folder: Path, count: int, *, peers: bool = True) -> None:
    """Make everything, unless it is there; what only peers read, where that is wanted."""
    done = folder / "done.json"
    wanted = {"images": count, "peers": peers}
    if done.is_file() and wanted.items() <= json.loads(done.read_text()).items():
        return
    for name in ("files", "store", "datasets", "litdata"):
        shutil.rmtree(folder / name, ignore_errors=True)
    files = folder / "files"
    files.mkdir(parents=True)
    labels = soft_labels(count)
    sizes = []
    for number, data in enumerate(_jpegs(count)):
        (files / f"{number:05d}.jpg").write_bytes(data)
        sizes.append(len(data))
    np.save(folder / "labels.npy", labels)
    views = {mode: {"mode": mode} for mode in ("packed", "reference")}
    make_store(folder / "store", files, labels, views)
    if peers:
        _make_tars(folder, files, labels)
        _make_datasets(folder / "datasets", files, labels)
        _make_litdata(folder, count)
    about = {**wanted, "mean_bytes": round(sum(sizes) / len(sizes))}
    done.write_text(json.dumps(about))


def soft_labels(count: int) -> npt.NDArray[np.float32]:
    """Return float32 [count, 1000]: softmax of normal logits, as peaked as a teacher's."""
    logits = generator(0, Purpose.SAMPLE, 7).normal(0, 1, (count, NUM_CLASSES))
    logits[np.arange(count), np.arange(count) % NUM_CLASSES] += 8
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True), np.float32)


def _jpegs(count: int) -> Iterator[bytes]:
    random = generator(0, Purpose.SAMPLE, 8)
    photos = []
    for path in photo_paths():
        with Image.open(path) as file:
            photo = file.convert("RGB")
        photo.thumbnail((1600, 1600))
        photos.append(photo)
    for number in range(count):
        photo = photos[number % len(photos)]
        width, height = _SIDES if random.random() < 0.75 else _SIDES[::-1]  # noqa: PLR2004  as many lie
        width, height = width - int(random.integers(60)), height - int(random.integers(60))
        share = random.uniform(0.35, 1)
        scale = share * min(photo.width / width, photo.height / height)
        crop_w, crop_h = int(width * scale), int(height * scale)
        left = int(random.integers(photo.width - crop_w + 1))
        top = int(random.integers(photo.height - crop_h + 1))
        crop = photo.crop((left, top, left + crop_w, top + crop_h))
        pixels = np.asarray(crop.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        grain = random.normal(0, _GRAIN, pixels.shape).astype(np.int16)
        stream = io.BytesIO()
        image = Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))
        image.save(stream, "JPEG", quality=_QUALITY)
        yield stream.getvalue()


def make_store(
    path: Path,
    files: Path,
    labels: npt.NDArray[np.float32],
    views: Mapping[str, Mapping[str, Any]],
    *,
    labeled_every: int = _LABELED_EVERY,
) -> None:
    """Make a store of all files, with views by name: what each has of a `Selection`."""
    names = [f"class-{number:04d}" for number in range(NUM_CLASSES)]

    def records() -> Iterator[ImageRecord]:
        for number, file in enumerate(sorted(files.iterdir())):
            labeled = number % labeled_every == 0
            yield ImageRecord(
                key=file.name,
                split="labeled" if labeled else "unlabeled",
                data=file.read_bytes(),
                label=names[number % NUM_CLASSES] if labeled else None,
            )

    store = plstore.create(path)
    import_images(store, records(), dataset="photos", class_names=names)
    _label(store, labels)
    balance = Balance(policy="none", min_confidence=0.0)
    for name, values in views.items():
        select(store, Selection(view=name, teachers=["teacher@1"], balance=balance, **values))


def _label(store: Store, labels: npt.NDArray[np.float32]) -> None:
    rows = store.table("images").read(columns=["sample_id", "split", "key"]).to_pylist()
    rows = sorted((r for r in rows if r["split"] == "unlabeled"), key=lambda r: r["sample_id"])
    numbers = [int(Path(row["key"]).stem) for row in rows]
    batch = LabelBatch(
        sample_ids=np.array([row["sample_id"] for row in rows], np.int64),
        probabilities=labels[numbers],
    )
    label_set = LabelSet(teacher_id="teacher", iteration=1, split="unlabeled")
    shards = write_labels(store, label_set, [batch], codec=Codec(), identity="labels")
    commit_labels(store, shards, lineage={"step": "label"}, transaction="labels")


def _make_tars(folder: Path, files: Path, labels: npt.NDArray[np.float32]) -> None:
    paths = sorted(files.iterdir())
    for part in range(NUM_TARS):
        path = folder / f"images-{part}.tar"
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
            for number in range(part, len(paths), NUM_TARS):
                target = io.BytesIO()
                np.save(target, labels[number])
                members = {"jpg": paths[number].read_bytes(), "npy": target.getvalue()}
                for name, data in members.items():
                    entry = tarfile.TarInfo(f"{number:05d}.{name}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))


def _make_datasets(path: Path, files: Path, labels: npt.NDArray[np.float32]) -> None:
    import datasets

    found = datasets.Dataset.from_dict(
        {
            "image": [{"bytes": f.read_bytes(), "path": None} for f in sorted(files.iterdir())],
            "target": list(labels),
        },
        features=datasets.Features(
            {
                "image": datasets.Image(),
                "target": datasets.List(datasets.Value("float32"), length=NUM_CLASSES),
            }
        ),
    )
    found.save_to_disk(str(path))


def litdata_row(inputs: tuple[str, int]) -> dict[str, Any]:
    """Return one row as litdata stores it."""
    folder, number = inputs
    return {
        "image": Path(folder, "files", f"{number:05d}.jpg").read_bytes(),
        "target": np.load(Path(folder, "labels.npy"), mmap_mode="r")[number].copy(),
    }


def _make_litdata(folder: Path, count: int) -> None:
    """Run litdata in a process of its own: it spawns workers that import the main module."""
    if find_spec("litdata") is None:
        return
    command = [sys.executable, "-m", "benchmarks.loader_data", str(folder), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"litdata wrote nothing:\n{done.stderr[-3000:]}")


def _optimize(folder: Path, count: int) -> None:
    import litdata

    litdata.optimize(
        fn=litdata_row,
        inputs=[(str(folder), number) for number in range(count)],
        output_dir=str(folder / "litdata"),
        chunk_bytes="64MB",
        num_workers=1,
        mode="overwrite",
    )


if __name__ == "__main__":
    _optimize(Path(sys.argv[1]), int(sys.argv[2]))
