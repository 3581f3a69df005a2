"""Images of a store by the names that other programs gave them: keys, places, ends of paths."""

import unicodedata
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from plstore import storage
from plstore.errors import InputError
from plstore.schema import SPLITS
from plstore.store import Store

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Found:
    """The images that some names are of.

    Attributes:
        rows: int64, for each name the row of `images`; -1 where it names none.
        images: Columns sample_id, split, verdict and, where names are text, key.
        num_by_end: Names that are no key, but end as one image's path does, and no other's.
        example: One of these with the key that it was taken for.
        doubtful: Names that may be of two images, by place: the keys of both. Their row is -1.
    """

    rows: Ints
    images: pa.Table
    num_by_end: int = 0
    example: tuple[str, str] | None = None
    doubtful: Mapping[int, tuple[str, str]] = field(default_factory=dict)


def find_images(store: Store, names: pa.Array, dataset: str | None = None) -> Found:
    """Find images by sample id, or by key, or by the end of their path.

    A name is first looked up among the keys. One that is no key may be a file name, a relative
    or an absolute path: it is of the one image whose key or place on disk ends with it, or that
    it ends with, folder by folder. (Keys of imported folders start with the split, which is no
    part of the path.) Of several the one with the longest end in common is taken.

    Args:
        store: Where the images are.
        names: int64 sample ids, or text.
        dataset: Of the images; all unless given.

    Raises:
        InputError: If a name may be of two images, or keys repeat among data sets.
    """
    found = look_up(store, names, dataset)
    if found.doubtful:
        place, both = next(iter(found.doubtful.items()))
        raise InputError(
            f"{names[place].as_py()!r} (number {place + 1} of {len(names):,} names) may be "
            f"{both[0]!r} or {both[1]!r}, and {len(found.doubtful) - 1:,} more names may be of "
            "two; wanted more of their paths, or the keys of images themselves"
        )
    return found


def look_up(
    store: Store, names: pa.Array, dataset: str | None = None, *, with_deleted: bool = False
) -> Found:
    """Find images as `find_images`, and say which names are doubtful.

    Args:
        store: Where the images are.
        names: int64 sample ids, or text.
        dataset: Of the images; all unless given.
        with_deleted: Whether images that were deleted are found too; their split and verdict
            are null.

    Raises:
        InputError: If keys repeat among data sets.
    """
    by_key = not pa.types.is_integer(names.type)
    images = _images(store, dataset, with_keys=by_key, with_deleted=with_deleted)
    values = images["key" if by_key else "sample_id"].combine_chunks()
    if by_key and pc.count_distinct(values).as_py() != images.num_rows:
        raise InputError(
            f"keys of images repeat among the data sets of {store.root}; name one with "
            "--dataset"
        )
    places = pc.index_in(names.cast(values.type), values)
    rows = places.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    left = np.flatnonzero(rows < 0)
    if not by_key or not len(left) or not images.num_rows:
        return Found(rows=rows, images=images)
    ends = _Ends(store, images)
    texts = names.take(pa.array(left)).to_pylist()
    found = [() if text is None else ends.find(text) for text in texts]
    rows[left] = [one[0] if len(one) == 1 else -1 for one in found]
    doubtful = {
        int(place): _both(values, several)
        for place, several in zip(left, found, strict=True)
        if len(several) > 1
    }
    by_end = left[rows[left] >= 0]
    example = None
    if len(by_end):
        example = (names[by_end[0]].as_py(), values[rows[by_end[0]]].as_py())
    return Found(
        rows=rows,
        images=images,
        num_by_end=len(by_end),
        example=example,
        doubtful=doubtful,
    )


def _images(
    store: Store, dataset: str | None, *, with_keys: bool, with_deleted: bool
) -> pa.Table:
    where = None if dataset is None else pc.field("dataset") == dataset
    columns = ["sample_id", "split", "verdict", *(["key"] if with_keys else [])]
    images = store.table("images").read(columns=columns, where=where)
    if not with_deleted:
        return images
    there = [name for name in columns if name not in {"split", "verdict"}]
    deleted = store.table("deletions").read(columns=there, where=where)
    gone = pc.invert(pc.is_in(deleted["sample_id"], images["sample_id"].combine_chunks()))
    return pa.concat_tables([images, deleted.filter(gone)], promote_options="default")


def _both(keys: pa.Array, rows: tuple[int, ...]) -> tuple[str, str]:
    first, second = sorted(keys[row].as_py() for row in rows)
    return first, second


class _Ends:
    """Paths of images, to be found by their ends: two or three short texts an image.

    A path is kept backwards, with a slash behind: then one that ends with another starts with
    it, and sorting brings these together.
    """

    def __init__(self, store: Store, images: pa.Table) -> None:
        forms = [(_backwards(text), row) for text, row in _forms(store, images)]
        forms.sort()
        self._paths = [path for path, _ in forms]
        self._rows = [row for _, row in forms]

    def find(self, name: str) -> tuple[int, ...]:
        """Return the row of the image that a name is of: none, or two where it is in doubt."""
        wanted = _backwards(name)
        if rows := self._rows_at(wanted, whole=False):
            return rows  # the name is the end of a path
        end = wanted.rfind("/", 0, -1)
        while end > 0:  # a path is the end of the name, the longest first
            if rows := self._rows_at(wanted[: end + 1], whole=True):
                return rows
            end = wanted.rfind("/", 0, end)
        return ()

    def _rows_at(self, wanted: str, *, whole: bool) -> tuple[int, ...]:
        found: tuple[int, ...] = ()
        for place in range(bisect_left(self._paths, wanted), len(self._paths)):
            path = self._paths[place]
            if path != wanted if whole else not path.startswith(wanted):
                break
            if self._rows[place] not in found:
                found = (*found, self._rows[place])
            if len(found) > 1:
                break
        return found


def _forms(store: Store, images: pa.Table) -> Iterator[tuple[str, int]]:
    """Yield the paths that each image goes by, with its row."""
    keys = images["key"].to_pylist()
    for row, key in enumerate(keys):
        yield key, row
        first, slash, rest = key.partition("/")
        if slash and first in SPLITS:
            yield rest, row
    ids = images["sample_id"].combine_chunks()
    for known_ids, places in _places(store):
        rows = pc.index_in(known_ids, ids).to_pylist()
        for row, place in zip(rows, places.to_pylist(), strict=True):
            if row is not None and place is not None and place != keys[row]:
                yield place, row


def _places(store: Store) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Yield sample ids and places of images, without reading the images themselves."""
    filesystem = storage.arrow_filesystem(store.root)
    for path in store.table("images").files():
        with filesystem.open_input_file(storage.arrow_path(path)) as file:
            table = pq.ParquetFile(file).read(columns=["sample_id", "image.path"])
        for batch in table.to_batches():
            yield batch["sample_id"], batch["image"].field("path")


def _backwards(path: str) -> str:
    text = path if path.isascii() else unicodedata.normalize("NFC", path)
    if "/" not in text:
        text = text.replace("\\", "/")
    return text.removeprefix("./")[::-1].removesuffix("/") + "/"
