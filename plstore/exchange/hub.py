"""Data sets of the `datasets` library: a folder, or a name on its hub; streamed or not."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from plstore.errors import InputError
from plstore.exchange.source import Source
from plstore.fingerprint import value_hash
from plstore.schema import SPLITS
from plstore.store import ImageRecord


def hub_dataset(
    name: str,
    splits: Mapping[str, str],
    *,
    image_column: str = "image",
    label_column: str = "label",
    streaming: bool = False,
    dataset: str | None = None,
) -> Source:
    """Read a data set of images.

    Args:
        name: A folder that `save_to_disk` wrote, one that `load_dataset` opens, or a name on
            the hub.
        splits: Its split by ours: {"labeled": "train[:10%]", "unlabeled": "train[10%:]"}.
        image_column: Of an Image feature.
        label_column: Of a ClassLabel, integers or strings; not read of unlabeled images.
        streaming: Read while it is downloaded, without a local copy.
        dataset: Name of the collection in the store; the data set's own unless given.

    Raises:
        InputError: If it cannot be opened, or a split or column is missing.
    """
    unknown = sorted(set(splits) - set(SPLITS))
    if unknown or not splits:
        raise InputError(f"splits {unknown or splits}; wanted some of {', '.join(SPLITS)}")
    parts = {ours: _open(name, theirs, streaming) for ours, theirs in splits.items()}
    for ours, part in parts.items():
        wanted = [image_column] + ([] if ours == "unlabeled" else [label_column])
        missing = [column for column in wanted if column not in (part.features or {})]
        if missing:
            raise InputError(
                f"{name} ({splits[ours]}) lacks {', '.join(missing)}; it has "
                f"{', '.join(part.features or {})}"
            )
    parts = {
        ours: part.cast_column(image_column, datasets.Image(decode=False))
        for ours, part in parts.items()
    }
    counts = {ours: _count(part) for ours, part in parts.items()}
    class_names = _class_names(parts, label_column)
    identity = value_hash(
        {
            "name": name,
            "splits": dict(splits),
            "prints": [_fingerprint(p) for p in parts.values()],
        }
    )
    return Source(
        dataset=dataset or Path(name).name,
        identity=identity,
        freshness=identity,
        class_names=class_names,
        num_images=sum(counts.values()),
        num_bytes=0,
        splits=counts,
        keys=lambda: [_key(ours, n) for ours, count in counts.items() for n in range(count)],
        records=lambda: _records(parts, image_column, label_column, class_names),
    )


def _open(name: str, split: str, streaming: bool) -> Any:  # noqa: ANN401, FBT001  a Dataset, untyped
    try:
        if Path(name, "dataset_dict.json").is_file():
            return datasets.load_from_disk(name)[split]
        if Path(name, "state.json").is_file():
            part = datasets.load_from_disk(name)
            if split != str(part.split):
                raise InputError(
                    f"{name} holds one split, {part.split}; found {split!r}. Save the splits "
                    "as a DatasetDict to import several"
                )
            return part
        return datasets.load_dataset(name, split=split, streaming=streaming)
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
        raise InputError(
            f"cannot open split {split!r} of the data set {name!r}: {error}"
        ) from error


def _count(part: Any) -> int:  # noqa: ANN401
    if isinstance(part, datasets.Dataset):
        return len(part)
    known = (part.info.splits or {}).get(str(part.split))
    return int(known.num_examples) if known is not None else 0


def _label(value: Any, names: Sequence[str], is_number: bool, where: str) -> str:  # noqa: ANN401, FBT001
    known = value is not None and (not is_number or 0 <= value < len(names))
    if not known:
        raise InputError(
            f"{where} has the label {value!r}, which is none of the {len(names)} classes; "
            "import images of unknown class as unlabeled"
        )
    return names[value] if is_number else str(value)


def _fingerprint(part: Any) -> str:  # noqa: ANN401
    return str(getattr(part, "_fingerprint", "")) or str(part.info.download_checksums)


def _class_names(parts: Mapping[str, Any], column: str) -> Sequence[str]:
    names: set[str] = set()
    for ours, part in parts.items():
        if ours == "unlabeled":
            continue
        feature = part.features[column]
        if isinstance(feature, datasets.ClassLabel):
            return [str(name) for name in feature.names]
        names |= {str(row[column]) for row in part.select_columns([column])}
    return sorted(names)


def _key(split: str, number: int) -> str:
    return f"{split}/{number:09d}"


def _records(
    parts: Mapping[str, Any], image_column: str, label_column: str, names: Sequence[str]
) -> Iterator[ImageRecord]:
    for ours, part in parts.items():
        is_number = not isinstance(part.features.get(label_column), datasets.Value)
        for number, row in enumerate(part):
            image = row[image_column] or {}
            place = image.get("path")
            data = image.get("bytes")
            if data is None:
                data = Path(place).read_bytes() if place and Path(place).is_file() else b""
            label = None
            if ours != "unlabeled":
                label = _label(row[label_column], names, is_number, f"{ours} row {number}")
            on_disk = place if place and Path(place).is_file() else None
            yield ImageRecord(
                key=_key(ours, number), split=ours, data=data, label=label, place=on_disk
            )
