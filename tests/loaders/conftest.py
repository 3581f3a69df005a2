"""A view, and loaders of it, for the tests of loaders."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import plstore
from plstore.images import ImageRecord, import_images
from plstore.loaders import (
    Batch,
    ImageFormat,
    Loader,
    Noise,
    RandAugment,
    load,
)
from plstore.selection import Balance, Selection, select
from plstore.store import Store
from plstore.views import View
from tests.conftest import CLASS_NAMES, give_labels, make_records

RGB = ImageFormat(size=32)
PAPER = Noise(augment=RandAugment(n=2, m=9, translate_const=14, cutout_const=6))
BACKENDS = ["dali", "threads", "torch"]
SHUFFLES = ["global", "windowed"]


def make_view(store: Store, mode: str = "reference", quota: int = 23) -> View:
    give_labels(store)
    balance = Balance(min_confidence=0.4, images_per_class=quota, seed=0)
    selection = Selection(view=mode, teachers=["t0@1"], balance=balance, mode=mode)  # type: ignore[arg-type]  # one of its names
    return select(store, selection)


@pytest.fixture
def view(store: Store) -> View:
    return make_view(store)


def loader_of(view: View, **changes: Any) -> Loader:  # noqa: ANN401
    values: dict[str, Any] = {
        "labeled_batch": 8,
        "pseudo_batch": 24,
        "image_format": RGB,
        "noise": PAPER,
        "seed": 0,
        "window": 40,
    }
    return load(view, **{**values, **changes})


def some(loader: Loader, count: int) -> list[Batch]:
    return list(islice(loader, count))


def together(parts: list[Batch]) -> tuple[Tensor, Tensor, Tensor]:
    """Put the batches of all ranks into the order of the one that a single rank has."""

    def joined(name: str) -> Tensor:
        values = [(getattr(part, name), part.num_labeled) for part in parts]
        return torch.cat([v[:n] for v, n in values] + [v[n:] for v, n in values])

    return joined("images"), joined("targets"), joined("sample_ids")


def same(a: Batch, b: Batch) -> bool:
    names = ("images", "targets", "sample_ids")
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in names)


def in_place_store(folder: Path) -> Store:
    records = []
    for record in make_records():
        path = folder / "pets" / record.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(record.data)
        values = {**vars(record), "place": str(path)}
        records.append(ImageRecord(**values))
    store = plstore.create(folder / "store")
    import_images(store, records, dataset="pets", class_names=CLASS_NAMES, in_place=True)
    return store
