"""Damaged images are replaced, and what belongs together stays together."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from plstore.errors import StoreError
from plstore.loaders import (
    clean_batches,
    open_split,
)
from plstore.store import Store
from plstore.views import View
from tests.loaders.conftest import (
    BACKENDS,
    RGB,
    SHUFFLES,
    in_place_store,
    loader_of,
    make_view,
    some,
    together,
)


def damage_twin(view: View, sample_ids: set[int]) -> None:
    """Flip a byte of images in the cache, as a failing disk would."""
    loader_of(view)
    (path,) = Path(view.store.cache_folder()).glob("view-*.arrow")
    data = bytearray(path.read_bytes())
    for batch in view.batches():
        for row in batch.to_pylist():
            if row["sample_id"] in sample_ids:
                data[data.index(row["image"]) + 40] ^= 0xFF
    path.unlink()  # it may be mapped
    path.write_bytes(data)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_damaged_image_is_replaced_and_counted(view: View, backend: str) -> None:
    whole = some(loader_of(view, backend=backend), 4)
    ids = whole[0].sample_ids.tolist()
    bad = {ids[0], ids[20]}
    damage_twin(view, bad)
    loader = loader_of(view, backend=backend)
    found = some(loader, 4)

    assert set(loader.replaced) == bad
    assert sum(loader.replaced.values()) == sum(len(b.replaced) for b in found)
    assert set(found[0].replaced) == bad
    for before, after in zip(whole, found, strict=True):
        kept = torch.tensor([n not in bad for n in before.sample_ids.tolist()])
        assert torch.equal(after.images[kept], before.images[kept])
        assert not bad & set(after.sample_ids.tolist())
        assert len(after.images) == 32
    split = [some(loader_of(view, backend=backend, rank=r, world_size=2), 1)[0] for r in (0, 1)]
    assert torch.equal(together(split)[0], found[0].images)


def test_a_view_of_nothing_but_damage_is_refused(view: View) -> None:
    damage_twin(view, {row["sample_id"] for b in view.batches() for row in b.to_pylist()})
    with pytest.raises(StoreError, match=r"in a row .* are damaged"):
        some(loader_of(view), 1)


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_a_file_in_place_that_is_gone_is_replaced_until_it_is_back(
    tmp_path: Path, shuffle: str
) -> None:
    store = in_place_store(tmp_path)
    view = make_view(store)
    rows = store.table("images").read(columns=["sample_id", "image"]).to_pylist()
    place = {row["sample_id"]: Path(row["image"]["path"]) for row in rows}
    lost = some(loader_of(view, shuffle=shuffle), 1)[0].sample_ids.tolist()[3]
    shutil.rmtree(store.cache_folder(), ignore_errors=True)  # windows copy nothing
    data = place[lost].read_bytes()
    place[lost].unlink()
    found = some(loader_of(view, shuffle=shuffle), 1)[0]
    place[lost].write_bytes(data)
    again = some(loader_of(view, shuffle=shuffle), 1)[0]

    assert found.replaced == (lost,)
    assert again.replaced == ()
    assert again.sample_ids.tolist()[3] == lost


def test_labeling_refuses_a_damaged_image(store: Store) -> None:
    images = open_split(store, "test")
    (path,) = Path(store.cache_folder()).glob("split-*.arrow")
    data = bytearray(path.read_bytes())
    row = (
        store.table("images")
        .read()
        .filter(pa.compute.equal(store.table("images").read()["split"], "test"))
        .to_pylist()[0]
    )
    data[data.index(row["image"]["bytes"]) + 40] ^= 0xFF
    del images
    path.unlink()
    path.write_bytes(data)
    with pytest.raises(StoreError, match="is not what the store says"):
        list(clean_batches(open_split(store, "test"), RGB))


@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_verify_finds_nothing_wrong(view: View, backend: str, shuffle: str) -> None:
    loader = loader_of(view, backend=backend, shuffle=shuffle)
    found = loader.verify()

    assert found.ok
    assert found.images == view.record.num_images
    assert found.samples == loader.plan.steps_per_pass * 32
    assert loader.step == 0


@pytest.mark.parametrize(("column", "word"), [("image", "image"), ("label", "label")])
def test_verify_finds_what_was_exchanged(view: View, column: str, word: str) -> None:
    loader_of(view)
    (path,) = Path(view.store.cache_folder()).glob("view-*.arrow")
    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    places = np.arange(table.num_rows)
    first = int(np.flatnonzero(np.array(table["kind"].to_pylist()) == "pseudo")[0])
    places[[first, first + 1]] = places[[first + 1, first]]
    columns = [column, "image_hash"] if column == "image" else [column]
    columns += ["width", "height"] if column == "image" else []
    for name in columns:
        index = table.schema.get_field_index(name)
        table = table.set_column(index, table.schema.field(name), table[name].take(places))
    path.unlink()
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    found = loader_of(view).verify()

    assert not found.ok
    assert all(f"its {word} is another's" in line for line in found.errors)
    wrong = {int(line.split()[1].rstrip(":")) for line in found.errors}
    assert wrong == set(table["sample_id"].to_pylist()[first : first + 2])
