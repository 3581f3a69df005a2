"""What of a store's images is not in the pool: found in some files at a time, and kept."""

import pytest

from plstore.images import ImageRecord, import_images
from plstore.query import run_sql
from plstore.selection import find_standing, image_files
from plstore.store import Store
from tests.conftest import CLASS_NAMES, make_records


@pytest.fixture
def pool(store: Store) -> Store:
    for number in range(3):  # a file each
        data = make_records()[number].data
        records = [
            ImageRecord(key=f"{number}-whole.png", split="unlabeled", data=data + b"\n"),
            ImageRecord(key=f"{number}-cut.png", split="unlabeled", data=data[:40]),
        ]
        import_images(store, records, dataset=f"more{number}", class_names=CLASS_NAMES)
    return store


def test_what_is_barred_does_not_depend_on_how_many_files_are_read_at_once(
    pool: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins = pool.versions()
    whole = find_standing(pool, pins)
    pool.cache_folder("standing.parquet").unlink()
    monkeypatch.setattr(image_files, "_FILES_AT_ONCE", 1)
    parted = find_standing(pool, pins)
    sql = "select count(*) as n from images where split <> 'unlabeled' or verdict <> 'accepted'"
    (row,) = run_sql(pool, sql).to_pylist()

    assert parted.barred == whole.barred
    assert parted.verdicts == whole.verdicts == {"accepted": 63, "truncated": 3}
    assert whole.barred.num_rows == row["n"] == 27


def test_images_are_looked_at_once_for_the_files_of_a_snapshot(pool: Store) -> None:
    first = find_standing(pool, pool.versions())
    kept = pool.cache_folder("standing.parquet")
    before = kept.stat().st_mtime_ns
    again = find_standing(pool, pool.versions())
    data = make_records()[5].data
    late = [ImageRecord(key="late.png", split="unlabeled", data=data + b"\n")]
    same_files = kept.stat().st_mtime_ns == before
    import_images(pool, late, dataset="late", class_names=CLASS_NAMES)
    later = find_standing(pool, pool.versions())

    assert same_files
    assert (again.barred, again.verdicts) == (first.barred, first.verdicts)
    assert later.num_accepted == first.num_accepted + 1
