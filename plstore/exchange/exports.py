"""Out of a store: a view or a label set as `datasets`, Parquet, WebDataset tars or folders.

Every export is a folder with a README.md that says what it is and where it came from; the front
matter is what the Hugging Face hub reads.
"""

import csv
import io
import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from plstore.codec import decode
from plstore.errors import InputError, MissingExtraError
from plstore.exchange.cards import write_card
from plstore.exchange.class_folders import class_folders
from plstore.labels import LabelSet, find_teacher
from plstore.store import Store, resolve
from plstore.views import View, attach_images, with_weights

Kind = Literal["datasets", "parquet", "webdataset", "folder"]

_ROWS = 1024
_TAR_BYTES = 256 << 20
_CHOSEN = ("confidence", "copies", "weight")
_HF_KEY = b"huggingface"
_ENDINGS = {b"\xff\xd8": "jpg", b"\x89P": "png", b"RI": "webp"}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export wrote."""

    folder: Path
    num_images: int
    files: int


def export_view(
    view: View,
    folder: Path,
    kind: Kind,
    *,
    on_images: Callable[[int], None] = lambda _: None,
) -> Exported:
    """Write a view's images with their targets, copies and weights.

    Args:
        view: What to write.
        folder: New, or empty.
        kind: `datasets` (`load_from_disk` opens it), `parquet` (`load_dataset` and anything
            else), `webdataset` (GNU tars of image, .json and .npy of the distribution) or
            `folder` (an ImageFolder with a metadata.csv).
        on_images: Called with the number of images just written.

    Raises:
        InputError: If the folder holds something, or the kind is unknown.
    """
    card = {
        "title": f"plstore view {view.key}",
        "what": "images and targets that a student trains on",
        "query": view.record.query,
        "parameters": dict(view.record.parameters),
        "counts": {k: v for k, v in view.record.counts.items() if not isinstance(v, list)},
        "reads": dict(view.record.pins),
        "recipe": view.record.recipe_hash,
        "deleted since": view.num_deleted,
    }
    return _export(view.store, view.batches(), folder, kind, card, on_images)


def export_labels(
    store: Store,
    label_set: LabelSet,
    folder: Path,
    kind: Kind,
    *,
    pins: Mapping[str, int] | None = None,
    on_images: Callable[[int], None] = lambda _: None,
) -> Exported:
    """Write all images of a label set with the teacher's distribution of each.

    Args:
        store: The store.
        label_set: What to write.
        folder: New, or empty.
        kind: As for `export_view`.
        pins: Version by table, as `plstore.store.resolve` returns; the newest unless given.
        on_images: Called with the number of images just written.

    Raises:
        InputError: If there are no such labels, or as for `export_view`.
    """
    table = store.table("soft_labels")
    pins = resolve(store) if pins is None else pins
    shards = table.shards(pins["soft_labels"], label_set.partition)
    if not shards:
        raise InputError(f"{store.root} has no labels {label_set}")
    about = find_teacher(store, label_set.teacher_id)
    card = {
        "title": f"plstore labels of {label_set.teacher_id}, iteration {label_set.iteration}",
        "what": f"soft labels of the {label_set.split} images",
        "teacher": {
            name: getattr(about, name)
            for name in ("architecture", "role", "checkpoint_hash", "seed")
        }
        if about
        else {"teacher_id": label_set.teacher_id},
        "counts": {"labels": sum(shard.num_rows for shard in shards)},
        "reads": {name: pins[name] for name in ("images", "soft_labels")},
    }

    def labels() -> Iterator[pa.RecordBatch]:
        for shard in shards:
            rows = table.dataset_of([shard]).to_table(
                columns=["sample_id", "class_id", "confidence", "label"]
            )
            count = rows.num_rows
            rows = rows.append_column("kind", pa.repeat(pa.scalar("pseudo"), count))
            rows = rows.append_column("copies", pa.repeat(pa.scalar(1, pa.int32()), count))
            yield from rows.sort_by("sample_id").combine_chunks().to_batches()

    rows = attach_images(store, labels(), version=pins["images"], mode="packed")
    return _export(store, rows, folder, kind, card, on_images)


def _make_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty; name a new folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}") from error


def _export(
    store: Store,
    batches: Any,  # noqa: ANN401  an iterable of Arrow batches
    folder: Path,
    kind: Kind,
    card: Mapping[str, Any],
    on_images: Callable[[int], None],
) -> Exported:
    if kind not in get_args(Kind):
        raise InputError(f"export as {kind!r}; wanted one of {', '.join(get_args(Kind))}")
    is_new = not folder.exists()
    _make_empty(folder)
    try:
        writer = _WRITERS[kind](folder, store.class_names)
    except Exception:
        if is_new:  # nothing is in it yet
            folder.rmdir()
        raise
    counts: Counter[str] = Counter()
    for batch in batches:
        for start in range(0, batch.num_rows, _ROWS):
            part = batch.slice(start, _ROWS)
            writer.write(_columns(part, len(store.class_names)))
            counts.update(part["kind"].to_pylist())
            on_images(part.num_rows)
    writer.close()
    write_card(folder, kind, card, counts, store.class_names)
    num_files = sum(path.is_file() for path in folder.rglob("*"))
    return Exported(folder=folder, num_images=sum(counts.values()), files=num_files)


def _columns(batch: pa.RecordBatch, num_classes: int) -> pa.RecordBatch:
    """Return what is exported of a row: image, label, target, and how it was chosen."""
    targets = decode(batch["label"], num_classes)
    hard = np.flatnonzero(pc.equal(batch["kind"], "labeled").to_numpy(zero_copy_only=False))
    targets[hard] = 0
    class_ids = batch["class_id"].to_numpy(zero_copy_only=False)
    targets[hard, class_ids[hard]] = 1
    ids = batch["sample_id"].to_pylist()
    images = batch["image"].to_pylist()
    names = [f"{n:012d}.{_ending(data)}" for n, data in zip(ids, images, strict=True)]
    offsets = np.arange(batch.num_rows + 1, dtype=np.int32) * num_classes
    return pa.record_batch(
        {
            "image": pa.StructArray.from_arrays(
                [batch["image"], pa.array(names)], ["bytes", "path"]
            ),
            "label": batch["class_id"].cast(pa.int64()),
            "probabilities": pa.ListArray.from_arrays(offsets, pa.array(targets.reshape(-1))),
            "confidence": batch["confidence"],
            "copies": batch["copies"],
            "weight": with_weights(batch)["weight"],
            "kind": batch["kind"],
            "sample_id": batch["sample_id"],
        }
    )


def _ending(data: bytes) -> str:
    return _ENDINGS.get(data[:2], "img")


def _features(class_names: tuple[str, ...]) -> dict[str, Any]:
    """Return the features as the `datasets` library spells them."""

    def value(kind: str) -> dict[str, str]:
        return {"dtype": kind, "_type": "Value"}

    return {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": list(class_names)},
        "probabilities": {"feature": value("float32"), "_type": "List"},
        "confidence": value("float32"),
        "copies": value("int32"),
        "weight": value("float32"),
        "kind": value("string"),
        "sample_id": value("int64"),
    }


class _Writer(Protocol):
    def write(self, batch: pa.RecordBatch) -> None: ...
    def close(self) -> None: ...


class _ParquetWriter:
    def __init__(self, folder: Path, class_names: tuple[str, ...]) -> None:
        info = {"info": {"features": _features(class_names)}}
        self._metadata = {_HF_KEY: json.dumps(info).encode()}
        self._path = folder / "data" / "train.parquet"
        self._path.parent.mkdir()
        self._writer: pq.ParquetWriter | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        batch = batch.replace_schema_metadata(self._metadata)
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._path,
                batch.schema,
                compression={"image.bytes": "NONE", "probabilities.list.element": "ZSTD"},
            )
        self._writer.write_batch(batch)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _DatasetWriter(_ParquetWriter):
    """Parquet first, then the library's own Arrow folder from it."""

    def __init__(self, folder: Path, class_names: tuple[str, ...]) -> None:
        try:
            import datasets
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                "datasets", "exchange", "exporting its data sets"
            ) from error
        super().__init__(folder, class_names)
        self._folder = folder
        self._library = datasets

    def close(self) -> None:
        super().close()
        scratch = self._folder / ".cache"
        data = self._library.Dataset.from_parquet(str(self._path), cache_dir=str(scratch))
        data.save_to_disk(self._folder)
        del data
        shutil.rmtree(self._path.parent)
        shutil.rmtree(scratch)


class _TarWriter:
    """Tars in the GNU format: DALI's reader does not know PAX headers."""

    def __init__(self, folder: Path, class_names: tuple[str, ...]) -> None:
        broken = [name for name in class_names if name.splitlines() != [name]]
        if broken:
            raise InputError(
                f"class {broken[0]!r} cannot be a line of classes.txt; export as parquet"
            )
        lines = "".join(f"{name}\n" for name in class_names)
        (folder / "classes.txt").write_text(lines, encoding="utf-8")
        self._folder = folder
        self._names = class_names
        self._tar: tarfile.TarFile | None = None
        self._count = 0
        self._bytes = 0

    def write(self, batch: pa.RecordBatch) -> None:
        for row in batch.to_pylist():
            if self._tar is None or self._bytes > _TAR_BYTES:
                self._next()
            stem, _, ending = row["image"]["path"].partition(".")
            about = {k: row[k] for k in ("sample_id", "label", "kind", *_CHOSEN)}
            about["class"] = self._names[row["label"]]
            self._add(f"{stem}.{ending}", row["image"]["bytes"])
            self._add(f"{stem}.cls", str(row["label"]).encode())
            self._add(f"{stem}.json", json.dumps(about).encode())
            stream = io.BytesIO()
            np.save(stream, np.array(row["probabilities"], np.float32))
            self._add(f"{stem}.npy", stream.getvalue())

    def _next(self) -> None:
        self.close()
        path = self._folder / f"shard-{self._count:06d}.tar"
        self._tar = tarfile.open(path, "w", format=tarfile.GNU_FORMAT)  # noqa: SIM115  closed by close
        self._count += 1
        self._bytes = 0

    def _add(self, name: str, data: bytes) -> None:
        if self._tar is None:
            return
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))
        self._bytes += len(data)

    def close(self) -> None:
        if self._tar is not None:
            self._tar.close()
            self._tar = None


class _FolderWriter:
    """A folder for each class, and metadata.csv beside them: an ImageFolder of `datasets`."""

    def __init__(self, folder: Path, class_names: tuple[str, ...]) -> None:
        self._folder = folder
        self._names = class_names
        self._folders = class_folders(class_names)
        for name in self._folders:
            (folder / name).mkdir()
        self._file = (folder / "metadata.csv").open("w", newline="", encoding="utf-8")
        columns = ["file_name", "class", "kind", *_CHOSEN, "sample_id"]
        self._csv = csv.DictWriter(self._file, columns)
        self._csv.writeheader()

    def write(self, batch: pa.RecordBatch) -> None:
        for row in batch.to_pylist():
            name = self._names[row["label"]]
            path = Path(self._folders[row["label"]], row["image"]["path"])
            (self._folder / path).write_bytes(row["image"]["bytes"])
            about = {k: row[k] for k in ("kind", *_CHOSEN, "sample_id")}
            self._csv.writerow({"file_name": path.as_posix(), "class": name, **about})

    def close(self) -> None:
        self._file.close()


_WRITERS: dict[str, Callable[[Path, tuple[str, ...]], _Writer]] = {
    "datasets": _DatasetWriter,
    "parquet": _ParquetWriter,
    "webdataset": _TarWriter,
    "folder": _FolderWriter,
}
