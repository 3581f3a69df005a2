"""Parquet with images inside, as the `datasets` library lays them out.

A folder holds ``labeled.parquet``, ``unlabeled.parquet``, ``validation.parquet`` and
``test.parquet``, each with a column ``image`` (struct of bytes and path) and, but for the
unlabeled ones, ``label`` (a ClassLabel). ``truth.parquet`` may hold the labels of the
unlabeled images, in their order, for evaluation. `datasets.load_dataset` opens all of them.
Every file's numbers are read by its own names, and classes of files are matched by name.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from plstore.errors import InputError
from plstore.exchange.label_space import declared_names, label_space
from plstore.exchange.source import Source
from plstore.fingerprint import file_hash, value_hash
from plstore.images import ImageFile, ImageRecord
from plstore.schema import IMAGE_TYPE, SPLITS

_HF_KEY = b"huggingface"


def parquet_folder(folder: str | Path, *, dataset: str) -> Source:
    """Read a folder of Parquet files of images.

    Raises:
        InputError: If a file or column is missing, damaged or of another kind, a label is not
            one of the classes, a class is not among the labeled images', or the truth is not
            as long as the unlabeled images.
    """
    folder = Path(folder)
    paths = {split: folder / f"{split}.parquet" for split in SPLITS}
    present = {split: path for split, path in paths.items() if path.is_file()}
    for split in ("labeled", "unlabeled"):
        if split not in present:
            raise InputError(f"{folder} has no {split}.parquet; wanted labeled and unlabeled")
    truth = folder / "truth.parquet"
    counts = {split: _open(path, "image").metadata.num_rows for split, path in present.items()}
    named = {split: path for split, path in present.items() if split != "unlabeled"}
    if truth.is_file():
        _check_truth(truth, counts["unlabeled"])
        named["truth"] = truth
    class_names = label_space(
        {name: _class_names(path) for name, path in named.items()},
        lambda name: _used_names(named[name]),
        str(folder),
    )
    files = [*present.values(), *([truth] if truth.is_file() else [])]
    identity = value_hash({path.name: file_hash(path) for path in files})
    return Source(
        dataset=dataset,
        identity=identity,
        freshness=identity,
        class_names=class_names,
        num_images=sum(counts.values()),
        num_bytes=sum(path.stat().st_size for path in present.values()),
        splits=counts,
        keys=lambda: [key for split, path in present.items() for key in _keys(path, split)],
        records=lambda: _records(present, truth if truth.is_file() else None),
    )


def parquet_file(path: str | Path, split: str, *, dataset: str) -> Source:
    """Read one Parquet file of labeled images, as those of a folder are.

    Raises:
        InputError: If the file or a column is missing, damaged or of another kind, or a label
            is not one of the classes.
    """
    path = Path(path)
    _open(path, "label")
    count, identity = _open(path, "image").metadata.num_rows, file_hash(path)
    return Source(
        dataset=dataset,
        identity=identity,
        freshness=identity,
        class_names=[name for name in _class_names(path) if name in _used_names(path)],
        num_images=count,
        num_bytes=path.stat().st_size,
        splits={split: count},
        keys=lambda: _keys(path, split),
        records=lambda: _records({split: path}, None),
    )


def write_parquet_folder(folder: Path, source: Source) -> None:
    """Write images as such a folder, one file a split, and the truth where it is known."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[ImageRecord]] = {split: [] for split in SPLITS}
    for record in source.records():
        rows[record.split].append(record)
    ids = {name: index for index, name in enumerate(source.class_names)}
    for split, records in rows.items():
        if not records:
            continue
        images = pa.array([{"bytes": r.data, "path": r.key} for r in records], IMAGE_TYPE)
        columns: dict[str, pa.Array] = {"image": images}
        if split != "unlabeled":
            columns["label"] = pa.array([ids[str(r.label)] for r in records], pa.int64())
        _write(folder / f"{split}.parquet", columns, source.class_names)
        if split == "unlabeled" and all(r.truth is not None for r in records):
            truth = {"label": pa.array([ids[str(r.truth)] for r in records], pa.int64())}
            _write(folder / "truth.parquet", truth, source.class_names)


def _write(path: Path, columns: dict[str, pa.Array], class_names: Sequence[str]) -> None:
    features: dict[str, object] = {}
    if "image" in columns:
        features["image"] = {"_type": "Image"}
    if "label" in columns:
        features["label"] = {"_type": "ClassLabel", "names": list(class_names)}
    metadata = {_HF_KEY: json.dumps({"info": {"features": features}}).encode()}
    table = pa.table(columns).replace_schema_metadata(metadata)
    pq.write_table(table, path, compression="zstd", row_group_size=1000)


def _check_truth(path: Path, num_unlabeled: int) -> None:
    num_rows = _open(path, "label").metadata.num_rows
    if num_rows != num_unlabeled:
        raise InputError(
            f"{path} has {num_rows} rows for {num_unlabeled} unlabeled images; wanted one "
            "label for each, in their order"
        )


def _class_names(path: Path) -> list[str]:
    metadata = _read(path).schema_arrow.metadata or {}
    try:
        names = json.loads(metadata[_HF_KEY])["info"]["features"]["label"]["names"]
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} names no classes; wanted a 'label' column of the ClassLabel feature, as "
            "the datasets library writes it"
        ) from error
    return declared_names(names, str(path))


def _used_names(path: Path) -> set[str]:
    names = _class_names(path)
    with _reading(path):
        column = _open(path, "label").read(columns=["label"])["label"]
    labels = pc.unique(column).to_pylist()
    return {names[label] for label in labels if label is not None and 0 <= label < len(names)}


def _records(present: dict[str, Path], truth: Path | None) -> Iterator[ImageRecord]:
    for split, path in present.items():
        hidden = split == "unlabeled"
        names: Iterator[str | None] = iter(())
        if not hidden:
            names = _label_names(path)
        elif truth is not None:
            names = _label_names(truth)
        keys = _keys(path, split)
        for key, image in zip(keys, _images(path), strict=True):
            name = next(names, None)
            label = None if hidden else name
            data = image["bytes"]
            if data is None and image.get("path"):
                # `Dataset.to_parquet` keeps where an image is, if that is how it was given.
                there = str(image["path"])
                place = there if "://" in there else str(path.resolve().parent / there)
                file = ImageFile(key=key, split=split, place=place, label=label)
                if name is None or not hidden:
                    yield file
                    continue
                data = file.data
            yield ImageRecord(
                key=key,
                split=split,
                data=data or b"",
                label=label,
                truth=name if hidden else None,
            )


def _keys(path: Path, split: str) -> list[str]:
    """Return a name for each image: its path where those are unique, else its row number."""
    file = _open(path, "image")
    names: list[str | None] = [None] * file.metadata.num_rows
    if "path" in _fields(file.schema_arrow.field("image").type):
        with _reading(path):
            rows = file.read(columns=["image.path"])["image"].to_pylist()
        names = [None if row is None else row["path"] for row in rows]
    if None in names or len(set(names)) != len(names):
        return [f"{split}/{index:09d}" for index in range(len(names))]
    return [f"{split}/{name}" for name in names]


def _images(path: Path) -> Iterator[dict[str, Any]]:
    with _reading(path):
        for batch in _open(path, "image").iter_batches(batch_size=1024, columns=["image"]):
            for image in batch["image"].to_pylist():
                yield image or {"bytes": None}


def _label_names(path: Path) -> Iterator[str]:
    names = _class_names(path)
    row = 0
    with _reading(path):
        for batch in _open(path, "label").iter_batches(batch_size=8192, columns=["label"]):
            for label in batch["label"].to_pylist():
                if label is None or not 0 <= label < len(names):
                    raise InputError(
                        f"{path} row {row} has the label {label}; wanted 0 to "
                        f"{len(names) - 1}. Images of unknown class belong in unlabeled.parquet"
                    )
                yield names[label]
                row += 1


def _open(path: Path, column: str) -> pq.ParquetFile:
    file = _read(path)
    schema = file.schema_arrow
    if column not in schema.names:
        raise InputError(f"{path} has no column {column!r}; it has {schema.names}")
    kind = schema.field(column).type
    if column == "label" and not pa.types.is_integer(kind):
        raise InputError(f"{path} has labels of type {kind}; wanted numbers of a ClassLabel")
    if column == "image" and "bytes" not in _fields(kind):
        raise InputError(f"{path} has images of type {kind}; wanted a struct of bytes and path")
    return file


def _fields(kind: pa.DataType) -> list[str]:
    return [field.name for field in kind] if pa.types.is_struct(kind) else []


def _read(path: Path) -> pq.ParquetFile:
    with _reading(path):
        return pq.ParquetFile(path)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}") from error
