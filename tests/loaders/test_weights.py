"""The weight of an image comes with it, by every way to a batch."""

from itertools import product
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from plstore.loaders import Batch, clean_batches, open_split
from plstore.selection import Selection, select
from plstore.store import Store
from plstore.views import View, ViewMode
from tests.conftest import give_labels
from tests.loaders.conftest import RGB, SHUFFLES, loader_of, some, together

OWN = """-- Everything, with weights of 1/2 to 1.
--
-- grain: one row per (sample_id)
-- param teacher_id varchar: the teacher
-- column sample_id bigint: the image
select
    sample_id, class_id, confidence, 'kept' as outcome, 1 + sample_id % 3 as copies,
    1.0 / (1 + sample_id % 2) as weight
from soft_labels where teacher_id = $teacher_id
"""


@pytest.fixture(params=["reference", "packed"])
def view(request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> View:
    give_labels(store)
    own = tmp_path / "own.sql"
    own.write_text(OWN)
    mode: ViewMode = request.param
    return select(store, Selection(view="v", teachers=["t0@1"], query=str(own), mode=mode))


def expected(batch: Batch) -> torch.Tensor:
    weights = 1 / (1 + batch.sample_ids % 2)
    weights[: batch.num_labeled] = 1
    return weights


@pytest.mark.parametrize(
    ("backend", "shuffle"),
    [
        ("dali", "global"),
        ("threads", "windowed"),
        *(
            pytest.param(*pair, marks=pytest.mark.nightly)
            for pair in (
                ("dali", "windowed"),
                ("threads", "global"),
                *product(["torch"], SHUFFLES),
            )
        ),
    ],
)
def test_each_image_has_its_own_weight(view: View, backend: str, shuffle: str) -> None:
    found = some(loader_of(view, backend=backend, shuffle=shuffle), 3)

    for batch in found:
        assert batch.weights.dtype == torch.float32
        assert torch.equal(batch.weights, expected(batch))
        assert set(batch.weights.tolist()) == {0.5, 1.0}
    ranks = [
        some(loader_of(view, backend=backend, shuffle=shuffle, rank=r, world_size=2), 1)[0]
        for r in (0, 1)
    ]
    parts = [r.weights[: r.num_labeled] for r in ranks]
    parts += [r.weights[r.num_labeled :] for r in ranks]
    assert torch.equal(together(ranks)[2], found[0].sample_ids)
    assert torch.equal(torch.cat(parts), found[0].weights)


def test_an_epoch_scales_targets_by_the_weights(view: View) -> None:
    (batch,) = some(loader_of(view), 1)
    _, targets = next(iter(loader_of(view).epochs()))

    assert torch.equal(targets, batch.targets * expected(batch)[:, None])


def test_clean_images_have_the_weight_1(store: Store) -> None:
    for batch in clean_batches(open_split(store, "test"), RGB, batch_size=4):
        assert torch.equal(batch.weights, torch.ones(len(batch.images)))


def test_a_copy_in_the_cache_of_before_there_were_weights_is_made_anew(view: View) -> None:
    loader_of(view)
    (path,) = Path(view.store.cache_folder()).glob("view-*.arrow")
    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).read_all().drop_columns(["weight"])
    path.unlink()
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    (batch,) = some(loader_of(view), 1)

    assert torch.equal(batch.weights, expected(batch))


def test_verify_finds_a_weight_that_is_anothers(view: View) -> None:
    assert loader_of(view).verify().ok
    loader = loader_of(view)
    pseudo = loader.source.num_labeled
    loader.source.images.weights = loader.source.images.weights.copy()  # type: ignore[attr-defined]  # a twin's
    loader.source.images.weights[pseudo] = 0.75  # type: ignore[attr-defined]
    found = loader.verify()

    assert not found.ok
    assert all("its weight is another's" in line for line in found.errors)
