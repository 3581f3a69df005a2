"""Stores whose images are spread over many ranges of ids, and work that fails."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import plstore
from benchmarks.engine_work import skip_to
from plstore.errors import InputError
from plstore.images import ImageRecord, import_images
from plstore.labels import SHARD_IDS
from plstore.store import Store
from tests.conftest import CLASS_NAMES, encode
from trainers.engines.work import OnImages
from trainers.models.bringing import bring_teacher
from trainers.models.model import build_model, image_format, save_bundle
from trainers.sections import Model

ROOT = Path(__file__).parents[3]
OBJECT_BYTES = 100 << 20  # of a node of Ray
NUM_RANGES = 6
IMAGES_OF_A_RANGE = 24


def spread_store(folder: Path, *, ranges: int = NUM_RANGES) -> Store:
    """Return a store with a teacher "mine", and images in so many ranges of sample ids."""
    torch.manual_seed(0)
    settings = Model(architecture="test_resnet", resolution=32, stochastic_depth=0)
    network = build_model(settings, "test_resnet", 3)
    save_bundle(folder / "model", network, image_format(settings, network), CLASS_NAMES)
    store = plstore.create(folder / "store")
    random = np.random.default_rng(0)
    for number in range(ranges):
        skip_to(store, number * SHARD_IDS)
        records = [
            ImageRecord(
                key=f"{number}-{n}.png",
                split="validation" if n % 6 == 5 else "unlabeled",
                label=CLASS_NAMES[n % 3] if n % 6 == 5 else None,
                data=encode(random.integers(0, 256, (20, 24, 3), dtype=np.uint8)),
            )
            for n in range(IMAGES_OF_A_RANGE)
        ]
        import_images(store, records, dataset="pets", class_names=CLASS_NAMES)
    bring_teacher(store, "mine", str(folder / "model"), device="cpu")
    return store


def adds(store: Store, table: str = "soft_labels") -> list[Any]:
    """Return what the newest snapshot says of its files."""
    return [
        (shard.path, shard.size_bytes, dict(shard.partition), shard.num_rows, shard.last_id)
        for shard in store.table(table).shards()
    ]


def transactions(store: Store, table: str = "soft_labels") -> list[str]:
    """Return the transaction of each commit of a table."""
    logs = sorted((store.table(table).root / "_delta_log").glob("*.json"))
    lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    infos = [line["commitInfo"] for line in lines if "commitInfo" in line]
    return [info["plstore.transaction"] for info in infos if "plstore.transaction" in info]


@dataclass(frozen=True, kw_only=True)
class Failing:
    """Work that takes even numbers but 0."""

    device: str = "cpu"

    def open(self, on_images: OnImages) -> Callable[[int], float]:
        del on_images

        def halve(number: int) -> float:
            if number % 2:
                raise InputError(f"wanted an even number: {number}")
            return 1 / number

        return halve
