"""Files of predictions, and what becomes of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import plstore
from plstore.codec import Codec, decode
from plstore.exchange import match_predictions
from plstore.exchange.predictions import Matched, keep_predictions
from plstore.images import ImageRecord, import_images
from plstore.store import Store
from tests.conftest import CLASS_NAMES, make_records

Floats = npt.NDArray[np.float32]
NUM = 60
KEYS = [record.key for record in make_records() if record.split == "unlabeled"]


def distributions(seed: int, num_classes: int = 3, rows: int = NUM) -> Floats:
    random = np.random.default_rng(seed)
    return random.dirichlet([0.3] * num_classes, rows).astype(np.float32)


PROBS = distributions(0)


def keep(
    store: Store,
    path: Path,
    *,
    replace: bool = False,
    on_images: Callable[[int], None] = lambda _: None,
    **options: Any,  # noqa: ANN401  passed through
) -> Matched:
    with match_predictions(store, path, **options) as matched:
        keep_predictions(
            store,
            matched,
            teacher_id="mine",
            iteration=1,
            codec=Codec(k=3),
            source=path.name,
            replace=replace,
            on_images=on_images,
        )
    return matched


def taken(
    store: Store,
    path: Path,
    **options: Any,  # noqa: ANN401  passed through
) -> tuple[Matched, Floats]:
    """What would be kept, in the order of sample ids."""
    with match_predictions(store, path, **options) as matched:
        batches = [batch for read in matched.splits.values() for batch in read()]
    if not batches:
        return matched, np.empty((0, len(store.class_names)), np.float32)
    ids = np.concatenate([batch.sample_ids for batch in batches])
    return matched, np.concatenate([b.probabilities for b in batches])[np.argsort(ids)]


def kept(store: Store) -> Floats:
    rows = store.table("soft_labels").read().sort_by("sample_id")
    return decode(rows["label"].combine_chunks(), len(store.class_names))


def written(
    folder: Path, name: str, values: Floats, keys: list[str] = KEYS
) -> tuple[Path, Path]:
    np.save(folder / f"{name}.npy", values)
    (folder / f"{name}.txt").write_text("\n".join(keys))
    return folder / f"{name}.npy", folder / f"{name}.txt"


def wide(
    path: Path, keys: list[str], *, start: str = "", probs: Floats = PROBS, text: str = "{}"
) -> Path:
    columns = {
        f"{start}{name}": [text.format(value) for value in probs[:, i].tolist()]
        for i, name in enumerate(CLASS_NAMES)
    }
    lines = [["file", *columns], *zip(keys, *columns.values(), strict=True)]
    path.write_text("".join(f"{','.join(line)}\n" for line in lines))
    return path


def pool(path: Path, *keys: str, in_place: Path | None = None) -> Store:
    record = next(r for r in make_records() if r.split == "unlabeled")
    records = []
    for key in keys:
        place = None
        if in_place is not None:
            place = str(in_place / key.rpartition("/")[2])
            Path(place).write_bytes(record.data)
        records.append(ImageRecord(key=key, split="unlabeled", data=record.data, place=place))
    store = plstore.create(path)
    import_images(
        store,
        records,
        dataset="d",
        class_names=CLASS_NAMES,
        in_place=in_place is not None,
    )
    return store
