"""Images that were left in place and whose files are gone: passed over until they are back.

The verdict on such an image becomes `file_gone`, in a version of `images` of its own: all that
reads accepted images passes it over, and counts it with its reason. It becomes `accepted` again
when the file is back. Versions of before stay what they were.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from plstore import storage
from plstore.errors import InputError, StoreError
from plstore.fingerprint import content_hash, value_hash
from plstore.schema import ACCEPTED, EVALUATION, FILE_GONE
from plstore.store import may_hold

if TYPE_CHECKING:
    from pathlib import Path

    from plstore.store import Shard, Store, Table

_Ids = npt.NDArray[np.int64]

_FILE_URL: Final = "file://"
_LOCAL: Final = (("/", "0"), (_FILE_URL, "file:/0"))  # starts of places, and what sorts behind
_FILES_A_TASK: Final = 1024

_PLACES: Final = pa.schema(
    [
        pa.field("sample_id", pa.int64()),
        pa.field("split", pa.string()),
        pa.field("verdict", pa.string()),
        pa.field("place", pa.string()),
    ]
)


def _none() -> _Ids:
    return np.empty(0, np.int64)


@dataclass(frozen=True, kw_only=True)
class GoneFiles:
    """Images that were left in place and whose files are not there.

    Attributes:
        ids: int64 [images], ascending: their sample ids.
        marked: int64, ascending: images whose verdict says so by now, whether it is so or not.
        first: Place of the first of them, "" where there is none.
        splits: How many, by split.
        of_runs: int64, ascending: those that a run may read, which are of no test set.
    """

    ids: _Ids = field(default_factory=_none)
    marked: _Ids = field(default_factory=_none)
    first: str = ""
    splits: Mapping[str, int] = field(default_factory=dict)
    of_runs: _Ids = field(default_factory=_none)

    @property
    def identity(self) -> str:
        """The same for the same images that a run may read; "" for none."""
        return content_hash(self.of_runs.tobytes()) if len(self.of_runs) else ""

    def __str__(self) -> str:
        """Say it in a line."""
        return f"file is gone: {len(self.ids)}; first: {self.first}; left out until it is back"


def find_gone(store: "Store") -> GoneFiles:
    """Return which images were left in place and have lost their files; nothing is written.

    Files that cannot be looked at are taken to be there, and so are those behind URLs: reading
    them says what is wrong.
    """
    return _find(store)[0]


def mark_gone(store: "Store") -> GoneFiles:
    """Make the verdicts on images that were left in place say which files are there now.

    Returns:
        Those that are not.

    Raises:
        InputError: If no image of a split that runs read is left; nothing is written then.
        CommitConflictError: If another writer changed the same files of `images` at the same
            time; do it again.
    """
    gone, whole = _find(store)
    _check_some_are_left(store, gone)
    _remember(store, whole)
    if len(changed := np.setxor1d(gone.ids, gone.marked)):
        _mark(store.table("images"), gone, changed)
    return gone


def _find(store: "Store") -> tuple[GoneFiles, list[str]]:
    """Return what is gone, and the files of `images` that hold no image left in place."""
    table = store.table("images")
    if not table.root.exists():
        return GoneFiles(), []
    whole = _remembered(store)
    there = [shard.path for shard in table.shards()]
    looked = [path for path in there if path not in whole]
    with ThreadPoolExecutor() as pool:
        parts = list(pool.map(lambda path: _in_place(table, path), looked))
        rows = pa.concat_tables([_PLACES.empty_table(), *parts]).sort_by("sample_id")
        places = [place.removeprefix(_FILE_URL) for place in rows["place"].to_pylist()]
        tasks = (places[n : n + _FILES_A_TASK] for n in range(0, len(places), _FILES_A_TASK))
        is_gone = np.array([gone for part in pool.map(_are_gone, tasks) for gone in part], bool)
    held = {path for path, part in zip(looked, parts, strict=True) if part.num_rows}
    lost = rows.filter(pa.array(is_gone))
    gone = GoneFiles(
        ids=lost["sample_id"].to_numpy(),
        marked=rows.filter(pc.equal(rows["verdict"], FILE_GONE))["sample_id"].to_numpy(),
        first=lost["place"][0].as_py() if lost.num_rows else "",
        splits=dict(sorted(Counter(lost["split"].to_pylist()).items())),
        of_runs=lost.filter(pc.not_equal(lost["split"], EVALUATION))["sample_id"].to_numpy(),
    )
    return gone, [path for path in there if path not in held]


def _in_place(table: "Table", path: str) -> pa.Table:
    """Return the images of a file of `images` that were left in place, as `_PLACES`.

    Of images that are stored, no byte is read: those of folders are named below a folder, and
    only of ones that are named by a whole path it takes a look at their bytes.
    """
    filesystem = storage.arrow_filesystem(table.root)
    place = storage.arrow_path(str(table.root / path))
    try:
        with pq.ParquetFile(place, filesystem=filesystem) as file:
            found = [_of_group(file, group) for group in _groups_with_places(file)]
    except FileNotFoundError as error:
        raise StoreError(
            f"{path} of images in {table.root} is gone; 'plstore verify' tells what is wrong"
        ) from error
    return pa.concat_tables([_PLACES.empty_table(), *found])


def _groups_with_places(file: pq.ParquetFile) -> Iterator[int]:
    """Yield the row groups that may hold whole paths, by the bounds of their paths."""
    leaves = range(file.metadata.num_columns)
    leaf = next(n for n in leaves if file.schema.column(n).path == "image.path")
    for group in range(file.num_row_groups):
        bounds = file.metadata.row_group(group).column(leaf).statistics
        known = bounds is not None and bounds.has_min_max and isinstance(bounds.min, str)
        if not known or any(bounds.min < end and bounds.max >= start for start, end in _LOCAL):
            yield group


def _of_group(file: pq.ParquetFile, group: int) -> pa.Table:
    columns = ["sample_id", "split", "verdict", "key", "image.path"]
    rows = file.read_row_group(group, columns=columns)
    place = pc.struct_field(rows["image"], "path")
    is_local = pc.or_(*(pc.starts_with(place, start) for start, _ in _LOCAL))
    is_usable = pc.is_in(rows["verdict"], value_set=pa.array([ACCEPTED, FILE_GONE]))
    taken = pc.fill_null(pc.and_(is_local, is_usable), False)  # noqa: FBT003  Arrow's own
    if pc.any(pc.and_(taken, pc.equal(place, rows["key"]))).as_py():
        stored = pc.struct_field(
            file.read_row_group(group, columns=["image.bytes"])["image"], "bytes"
        )
        taken = pc.and_(taken, pc.is_null(stored))
    columns = [rows["sample_id"], rows["split"], rows["verdict"], place]
    return pa.Table.from_arrays(columns, schema=_PLACES).filter(taken)


def _are_gone(places: Sequence[str]) -> list[bool]:
    return [_is_gone(place) for place in places]


def _is_gone(place: str) -> bool:
    try:
        os.stat(place)  # noqa: PTH116  a million times
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def _check_some_are_left(store: "Store", gone: GoneFiles) -> None:
    """Stop where a split has no image left: a disk is not there, or a folder was moved."""
    images = store.table("images").dataset()
    usable = pc.field("verdict").isin([ACCEPTED, FILE_GONE])
    of_runs = {split: n for split, n in gone.splits.items() if split != EVALUATION}
    for split, number in of_runs.items():
        if number == images.count_rows(filter=usable & (pc.field("split") == split)):
            raise InputError(
                f"all {number} {split} images of {store.root} were imported in place, and none "
                f"of their files is there now; first: {gone.first}. Was the folder moved, or "
                "is its disk not mounted? Bring the files back; or take these images out: "
                f"plstore delete --query \"from images select sample_id where split='{split}'\""
            )


def _mark(table: "Table", gone: GoneFiles, changed: _Ids) -> None:
    """Write the files of `images` that hold such images anew, and commit."""
    version, shards = table.newest()
    old = [shard for shard in shards if may_hold(shard, changed)]
    anew = [(shard, _marked(table, shard, gone)) for shard in old]
    written = {shard.path: new for shard, new in anew if new is not None}
    if not written:
        return
    what = {
        "version": version,
        "files": sorted(written),
        "gone": content_hash(gone.ids.tobytes()),
    }
    num_gone = len(np.setdiff1d(gone.ids, gone.marked))
    table.commit(
        list(written.values()),
        lineage={"step": "files", "gone": num_gone, "back": len(changed) - num_gone},
        transaction=f"files-{value_hash(what)}",
        remove=[shard for shard in old if shard.path in written],
    )


def _marked(table: "Table", shard: "Shard", gone: GoneFiles) -> "Shard | None":
    """Write a file anew with the verdicts of now; return None where they are the same."""
    rows = table.dataset_of([shard]).to_table(columns=table.spec.file_schema.names)
    ids = rows["sample_id"]
    is_back = pc.is_in(ids, value_set=pa.array(np.setdiff1d(gone.marked, gone.ids)))
    verdicts = pc.if_else(is_back, ACCEPTED, rows["verdict"])
    verdicts = pc.if_else(pc.is_in(ids, value_set=pa.array(gone.ids)), FILE_GONE, verdicts)
    if verdicts.equals(rows["verdict"]):
        return None
    index = rows.schema.get_field_index("verdict")
    rows = rows.set_column(index, rows.schema.field("verdict"), verdicts)
    name = shard.path.rpartition("/")[2].rpartition("-")[0]  # less the hash of its bytes
    return table.write_shard(name, rows, shard.partition)


def _remembered(store: "Store") -> set[str]:
    """Return files of `images` that are known to hold no image left in place."""
    with suppress(OSError, StoreError):
        return set((storage.read_json(_memory(store)) or {}).get("files", ()))
    return set()


def _remember(store: "Store", whole: Sequence[str]) -> None:
    with suppress(OSError, StoreError):  # who may only read looks each time
        if set(whole) != _remembered(store):
            storage.write_json(_memory(store), {"files": sorted(whole)})


def _memory(store: "Store") -> "Path":
    return store.cache_folder("not-in-place.json")
