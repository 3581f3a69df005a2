"""The table of embeddings: written by range, read in order, deleted with the images."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

import plstore
from plstore.embeddings import (
    EmbeddingBatch,
    EmbeddingSet,
    commit_embeddings,
    embedded_ids,
    embedding_sets,
    of_images,
    read_embeddings,
    write_embeddings,
)
from plstore.errors import CommitConflictError, InputError
from plstore.store import Store
from plstore.upkeep import erase, verify

OF = EmbeddingSet(model="net-1a2b", split="unlabeled")


def ids_of(store: Store, split: str) -> np.ndarray:
    rows = store.table("images").read(columns=["sample_id"], where=pc.field("split") == split)
    return np.sort(rows["sample_id"].to_numpy())


def embed(store: Store, ids: np.ndarray, transaction: str) -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(len(ids), 5)).astype(np.float32)
    batch = EmbeddingBatch(sample_ids=ids, vectors=vectors)
    shard = write_embeddings(store, OF, batch, identity=transaction)
    commit_embeddings(store, [shard], lineage={"step": "embed"}, transaction=transaction)
    return vectors


def test_what_is_written_is_read_to_eleven_bits(store: Store) -> None:
    ids = ids_of(store, "unlabeled")
    vectors = embed(store, ids, "one")

    (batch,) = read_embeddings(store, OF)

    assert batch.sample_ids.tolist() == ids.tolist() == embedded_ids(store, OF).tolist()
    assert np.abs(batch.vectors / vectors - 1).max() <= 2**-11
    assert embedding_sets(store) == {OF: len(ids)}
    assert not verify(store)


def test_vectors_come_in_the_order_that_is_asked(store: Store) -> None:
    ids = ids_of(store, "unlabeled")
    embed(store, ids, "one")
    batches = list(read_embeddings(store, OF, only=ids[:3]))

    assert len(of_images(batches, ids[:3][::-1])) == 3
    assert np.array_equal(of_images(batches, ids[[2, 0]]), batches[0].vectors[[2, 0]])
    with pytest.raises(InputError, match=r"1 of 2 images have no embeddings"):
        of_images(batches, ids[[0, 3]])


def test_sql_sees_them(store: Store) -> None:
    ids = ids_of(store, "unlabeled")
    embed(store, ids, "one")

    what = "model, split, count(*) as n, min(len(vector)) as w"
    sql = f"select {what} from embeddings group by 1, 2"  # noqa: S608  of our own words
    rows = plstore.run_sql(store, sql).to_pylist()

    assert rows == [{"model": OF.model, "split": "unlabeled", "n": len(ids), "w": 5}]


def test_two_writers_of_the_same_images_do_not_double_them(store: Store) -> None:
    ids = ids_of(store, "unlabeled")
    vectors = np.ones((len(ids), 2), np.float32)
    shard = write_embeddings(
        store, OF, EmbeddingBatch(sample_ids=ids, vectors=vectors), identity="late"
    )
    embed(store, ids, "first")

    with pytest.raises(CommitConflictError):
        store.table("embeddings").commit([shard], lineage={}, transaction="late", beside=[])


def test_a_deleted_image_loses_them(store: Store) -> None:
    ids = ids_of(store, "unlabeled")
    embed(store, ids, "one")

    erase(store, [int(ids[0])], reason="asked")

    assert embedded_ids(store, OF).tolist() == ids[1:].tolist()


@pytest.mark.parametrize(
    ("vectors", "model"),
    [(np.full((1, 2), np.nan), "net"), (np.ones((1, 2)), "no/such")],
)
def test_what_cannot_be_kept_is_refused(store: Store, vectors: np.ndarray, model: str) -> None:
    batch = EmbeddingBatch(sample_ids=np.array([1]), vectors=vectors.astype(np.float32))

    with pytest.raises(InputError):
        write_embeddings(store, EmbeddingSet(model=model, split="test"), batch, identity="x")


def test_a_store_of_an_older_plstore_gets_the_table(store: Store) -> None:
    shutil.rmtree(store.root / "embeddings")

    opened = plstore.open(store.root)

    assert Path(store.root, "embeddings", "_delta_log").is_dir()
    assert embedding_sets(opened) == {}
    assert plstore.connect(opened).sql("select * from embeddings").fetchall() == []
