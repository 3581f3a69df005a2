"""What an import keeps of a store: right as a dictionary would be, and small."""

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from plstore.images import import_images, known
from plstore.images.known import DigestTable, KnownImages, key_digests
from plstore.schema import TABLES
from plstore.store import Store
from tests.conftest import CLASS_NAMES, make_records

NUM_KEYS = 100_000


def rows(count: int) -> pa.Table:
    numbers = np.arange(count)
    columns = {
        "dataset": pa.array(["pool"] * count),
        "key": pa.array([f"unlabeled/some/folder/{n:07d}.jpg" for n in range(count)]),
        "sample_id": pa.array(numbers),
        "content_hash": pa.array([f"{n:032x}" for n in range(1, count + 1)]),
        "split": pa.array(["labeled"] * count),
        "label": pa.array(numbers % 3, pa.int32()),
        "verdict": pa.array(["accepted"] * count),
        "width": pa.array(numbers, pa.int32()),
        "height": pa.array(numbers, pa.int32()),
    }
    schema = TABLES["images"].columns
    absent = {f.name: pa.nulls(count, f.type) for f in schema if f.name not in columns}
    return pa.table({**columns, **absent}).select(schema.names).cast(schema)


def test_a_hundred_thousand_known_images_cost_under_a_hundred_bytes_each(
    store: Store,
) -> None:
    store.table("images").append(rows(NUM_KEYS), lineage={}, transaction="many")
    tracemalloc.start()
    found = KnownImages.read(store, "pool")
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(found) == NUM_KEYS
    assert held / NUM_KEYS < 100
    assert peak / NUM_KEYS < 400
    last = found.find(f"unlabeled/some/folder/{NUM_KEYS - 1:07d}.jpg")
    assert last is not None
    assert (last.sample_id, last.label, last.content) == (
        NUM_KEYS - 1,
        (NUM_KEYS - 1) % 3,
        f"{NUM_KEYS:032x}",
    )
    assert found.find("unlabeled/some/folder/none.jpg") is None


def test_a_digest_table_answers_as_a_dictionary_of_lists(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(known, "_FRESH_ROWS", 16)
    random = np.random.default_rng(0)
    digests = [key_digests([str(n)]) for n in range(40)] + [bytes(16), b"\xff" * 16]
    table = DigestTable([("value", "<i8")])
    expected: dict[bytes, list[tuple[int, ...]]] = {}

    def put(choice: np.ndarray, values: np.ndarray) -> Iterator[tuple[bytes, int]]:
        for n, value in zip(choice.tolist(), values.tolist(), strict=True):
            expected.setdefault(digests[n], []).append((value,))
            yield digests[n], value

    for number in range(30):
        size = int(random.integers(1, 8))
        choice, values = random.integers(0, 42, size), random.integers(0, 1000, size)
        pairs = list(put(choice, values))
        if number % 3:
            for digest, value in pairs:
                table.add(digest, value)
        else:
            len(table)  # those added come first
            table.extend(b"".join(d for d, _ in pairs), {"value": values})
    asked = b"".join(digests)
    there, first = table.rows_of(asked)

    assert [table.get(digest) for digest in digests] == [expected.get(d, []) for d in digests]
    assert there.tolist() == [digest in expected for digest in digests]
    assert first["value"].tolist() == [expected[d][0][0] for d in digests if d in expected]
    assert len(table) == sum(map(len, expected.values()))


def test_what_is_known_is_of_one_dataset_and_its_labels_of_all(store: Store) -> None:
    import_images(store, make_records()[:3], dataset="again", class_names=CLASS_NAMES)
    here = KnownImages.read(store, "pets")
    image = here.find("labeled/0001.png")
    content = store.table("images").read()["content_hash"][1].as_py()

    assert image is not None
    assert (image.sample_id, image.label, image.content) == (1, 1, content)
    assert len(here) == len(make_records())
    assert sorted(here.labels_of(content)) == [(1, False), (1, True)]
    assert here.learned == set(CLASS_NAMES)
    assert len(KnownImages.read(store, "none")) == 0
