"""Parquet with images inside, as the `datasets` library lays them out.

A folder holds ``labeled.parquet``, ``unlabeled.parquet``, ``validation.parquet`` and
``test.parquet``, each with a column ``image`` (struct of bytes and path) and, but for the
unlabeled ones, ``label`` (a ClassLabel). ``truth.parquet`` may hold the labels of the
unlabeled images, in their order, for evaluation. `datasets.load_dataset` opens all of them.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from plstore.errors import InputError
from plstore.exchange.source import Source
from plstore.fingerprint import value_hash
from plstore.schema import IMAGE_TYPE, SPLITS
from plstore.store import ImageRecord

_HF_KEY = b"huggingface"


def parquet_folder(folder: Path, *, dataset: str) -> Source:
    """Read a folder of Parquet files of images.

    Raises:
        InputError: If a file or column is missing, or the class names are.
    """
    paths = {split: folder / f"{split}.parquet" for split in SPLITS}
    present = {split: path for split, path in paths.items() if path.is_file()}
    for split in ("labeled", "unlabeled"):
        if split not in present:
            raise InputError(f"{folder} has no {split}.parquet; wanted labeled and unlabeled")
    class_names = _class_names(present["labeled"])
    counts = {split: pq.read_metadata(path).num_rows for split, path in present.items()}
    sizes = {split: path.stat().st_size for split, path in present.items()}
    return Source(
        dataset=dataset,
        identity=value_hash({"rows": counts, "sizes": sizes}),
        class_names=class_names,
        num_images=sum(counts.values()),
        num_bytes=sum(sizes.values()),
        splits=counts,
        records=lambda: _records(folder, present, class_names),
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


def _class_names(path: Path) -> list[str]:
    metadata = pq.read_schema(path).metadata or {}
    try:
        names = json.loads(metadata[_HF_KEY])["info"]["features"]["label"]["names"]
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{path} names no classes; wanted a 'label' column of the ClassLabel feature, as "
            "the datasets library writes it"
        ) from error
    return [str(name) for name in names]


def _records(
    folder: Path, present: dict[str, Path], class_names: list[str]
) -> Iterator[ImageRecord]:
    truth_path = folder / "truth.parquet"
    for split, path in present.items():
        file = pq.ParquetFile(path)
        wanted = ["image"] if split == "unlabeled" else ["image", "label"]
        missing = [name for name in wanted if name not in file.schema_arrow.names]
        if missing:
            raise InputError(f"{path} has no column {', '.join(missing)}")
        truths: Iterator[int | None] = iter(())
        if split == "unlabeled" and truth_path.is_file():
            truths = iter(pq.read_table(truth_path)["label"].to_pylist())
        for index, row in enumerate(_rows(file, wanted)):
            truth = next(truths, None)
            yield ImageRecord(
                key=row["image"].get("path") or f"{split}/{index:09d}",
                split=split,
                data=row["image"]["bytes"] or b"",
                label=class_names[row["label"]] if split != "unlabeled" else None,
                truth=None if truth is None else class_names[truth],
            )


def _rows(file: pq.ParquetFile, columns: list[str]) -> Iterator[dict[str, Any]]:
    for batch in file.iter_batches(batch_size=1024, columns=columns):
        yield from batch.to_pylist()
