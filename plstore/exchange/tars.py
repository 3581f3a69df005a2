"""WebDataset tars: an image and its ``.cls`` or ``.json`` under one name."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from plstore.errors import InputError, MissingExtraError
from plstore.exchange.source import Source
from plstore.fingerprint import value_hash
from plstore.schema import SPLITS
from plstore.store import ImageRecord

_IMAGES = ("jpg", "jpeg", "png", "webp", "img", "ppm", "gif", "bmp", "tif", "tiff")


def tar_files(
    shards: Mapping[str, Sequence[Path]],
    *,
    class_names: Sequence[str] | None = None,
    dataset: str = "images",
) -> Source:
    """Read tars of images.

    Args:
        shards: Tars by split.
        class_names: By the numbers in ``.cls``. Unless given, a class's name is what stands
            there, or in "label" of a ``.json``.
        dataset: Name of the collection in the store.

    Raises:
        InputError: If a split is unknown, a tar is missing, or a labeled image has no class.
        MissingExtraError: If the webdataset package is not installed.
    """
    for split, paths in shards.items():
        missing = [path for path in paths if not path.is_file()]
        if split not in SPLITS or missing or not paths:
            raise InputError(
                f"{split}: {', '.join(map(str, missing)) or 'no tars'}; wanted tars that are "
                f"there, of the splits {', '.join(SPLITS)}"
            )
    names: set[str] = set()
    found: list[tuple[str, str]] = []
    for split, sample in _samples(shards, only_labels=True):
        found.append((split, sample["__key__"]))
        if split != "unlabeled":
            names.add(_class_name(sample, split, class_names))
    if len(set(found)) != len(found):
        (split, key), count = Counter(found).most_common(1)[0]
        raise InputError(
            f"{key!r} of split {split!r} is there {count} times; wanted every name once in all "
            "tars of a split"
        )
    ordered = list(class_names or sorted(names, key=lambda n: (not n.isdigit(), len(n), n)))
    files = [
        (str(p), p.stat().st_size, p.stat().st_mtime_ns) for s in shards.values() for p in s
    ]
    return Source(
        dataset=dataset,
        identity=value_hash({"found": found, "sizes": [size for _, size, _ in files]}),
        freshness=value_hash({"files": files}),
        class_names=ordered,
        num_images=len(found),
        num_bytes=sum(size for _, size, _ in files),
        splits=dict(Counter(split for split, _ in found)),
        keys=lambda: [f"{split}/{key}" for split, key in found],
        records=lambda: _records(shards, class_names),
    )


def _records(
    shards: Mapping[str, Sequence[Path]], class_names: Sequence[str] | None
) -> Iterator[ImageRecord]:
    for split, sample in _samples(shards, only_labels=False):
        data = next((sample[kind] for kind in _IMAGES if kind in sample), b"")
        label = None if split == "unlabeled" else _class_name(sample, split, class_names)
        yield ImageRecord(
            key=f"{split}/{sample['__key__']}", split=split, data=data, label=label
        )


def _samples(
    shards: Mapping[str, Sequence[Path]], *, only_labels: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        from webdataset.tariterators import group_by_keys, tar_file_expander
    except ModuleNotFoundError as error:
        raise MissingExtraError("webdataset", "exchange", "reading tars") from error

    def wanted(name: str) -> bool:
        kind = name.rpartition(".")[2].lower()
        return not only_labels or kind in {"cls", "json", *_IMAGES}

    for split, paths in shards.items():
        for path in paths:
            with path.open("rb") as stream:
                tar = [{"stream": stream, "url": str(path)}]
                for sample in group_by_keys(tar_file_expander(tar, select_files=wanted)):
                    lower = {k if k[0] == "_" else k.lower(): v for k, v in sample.items()}
                    yield split, lower


def _class_name(
    sample: Mapping[str, Any], split: str, class_names: Sequence[str] | None
) -> str:
    value = sample["cls"].decode().strip() if "cls" in sample else None
    if value is None and "json" in sample:
        value = json.loads(sample["json"]).get("label")
    if value is None:
        raise InputError(
            f"{sample['__key__']} of split {split!r} has no class; wanted a .cls beside the "
            'image, or a .json with "label"'
        )
    if class_names is None:
        return str(value)
    if not str(value).isdigit() or int(value) >= len(class_names):
        raise InputError(
            f"{sample['__key__']} has the class {value!r}; wanted a number below "
            f"{len(class_names)}"
        )
    return class_names[int(value)]
