"""What a store has already, kept so that a million images cost tens of megabytes."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from plstore.schema import ACCEPTED, EVALUATION, SPLITS

if TYPE_CHECKING:
    from plstore.store import Store

DIGEST_BYTES: Final = 16
NO_LABEL: Final = -1
_FRESH_ROWS = 1 << 16
_Rows = tuple[
    npt.NDArray[np.uint64], npt.NDArray[np.void]
]  # first half of the digest, the rest
_COLUMNS = (
    *("dataset", "key", "sample_id", "content_hash", "split", "label"),
    *("verdict", "width", "height"),
)


class DigestTable:
    """Rows by a digest of 16 bytes, in sorted arrays: no object a row.

    New rows wait until there are enough of them to be sorted in. Threads may `get` while one
    adds: what is sorted in is there before it leaves those that wait.
    """

    def __init__(self, fields: Sequence[tuple[str, str]] = ()) -> None:
        """Make an empty table; `fields` are names and NumPy types of what a row holds."""
        self.fields = tuple(fields)
        self._kind = np.dtype([("rest", "<u8"), *fields])
        self._sorted: _Rows = (np.empty(0, "<u8"), np.empty(0, self._kind))
        self._pieces: list[_Rows] = []
        self._fresh: dict[bytes, list[tuple[int, ...]]] = {}
        self._num_fresh = 0

    def __len__(self) -> int:
        """Count the rows."""
        self.settle()
        return len(self._sorted[0])

    def add(self, digest: bytes, *values: int) -> None:
        """Add one row."""
        self._fresh.setdefault(digest, []).append(values)
        self._num_fresh += 1
        if self._num_fresh >= max(_FRESH_ROWS, len(self._sorted[0]) // 8):
            self.settle()

    def extend(self, digests: bytes, columns: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Add many rows, which are found once they are settled.

        Args:
            digests: 16 bytes a row.
            columns: [rows] for each field.
        """
        words = np.frombuffer(digests, ">u8").reshape(-1, 2)
        rows = np.empty(len(words), self._kind)
        rows["rest"] = words[:, 1]
        for name, column in columns.items():
            rows[name] = column
        self._pieces.append((words[:, 0].astype("<u8"), rows))

    def get(self, digest: bytes) -> list[tuple[int, ...]]:
        """Return the rows of one digest, as values of the fields, in the order they came."""
        fresh = self._fresh.get(digest, [])  # before the others, see above
        first, rows = self._sorted
        high = int.from_bytes(digest[:8], "big")
        view = memoryview(first)  # type: ignore[arg-type]  # it has a buffer
        place = bisect_left(view, high)  # NumPy's own search would let other threads run first
        found = []
        while place < len(view) and view[place] == high:
            rest, *values = rows[place].item()
            if rest == int.from_bytes(digest[8:], "big"):
                found.append(tuple(values))
            place += 1
        return found + fresh

    def rows_of(self, digests: bytes) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.void]]:
        """Return which of many digests are there, and the first row of each that is.

        Args:
            digests: 16 bytes each.

        Returns:
            bool [digests], and the fields, structured [of those that are there].
        """
        self.settle()
        first, rows = self._sorted
        words = np.frombuffer(digests, ">u8").reshape(-1, 2).astype("<u8")
        places = np.searchsorted(first, words[:, 0])
        inside = np.flatnonzero(places < len(first))
        hit = first[places[inside]] == words[inside, 0]
        hit &= rows["rest"][places[inside]] == words[inside, 1]
        there = np.zeros(len(words), np.bool_)
        there[inside[hit]] = True
        return there, rows[places[there]]

    def settle(self) -> None:
        """Sort in what waits."""
        if self._num_fresh:
            digests = b"".join(d * len(rows) for d, rows in self._fresh.items())
            values = [row for rows in self._fresh.values() for row in rows]
            columns = np.array(values, list(self.fields))
            self.extend(digests, {name: columns[name] for name, _ in self.fields})
        if self._pieces:
            pieces, self._pieces = [self._sorted, *self._pieces], []
            first = np.concatenate([part for part, _ in pieces])
            rows = np.concatenate([part for _, part in pieces])
            del pieces
            order = np.argsort(first, kind="stable")
            self._sorted = (first[order], rows[order])
        self._fresh, self._num_fresh = {}, 0


_KNOWN_FIELDS = (
    *(("content_high", "<u8"), ("content_low", "<u8"), ("sample_id", "<i8")),
    *(("label", "<i4"), ("split", "i1"), ("accepted", "?"), ("num_pixels", "<i8")),
)


class KnownImage(NamedTuple):
    """What the store has of an image that an import names again.

    Attributes:
        content_high: First half of the hash of its bytes; 0 where they were never read.
        content_low: The other half.
        sample_id: Its number.
        label: Class id, -1 for none.
        split: Index of its split in `SPLITS`.
        accepted: Whether it is used.
        num_pixels: Of an image refused for their number, else 0.
    """

    content_high: int
    content_low: int
    sample_id: int
    label: int
    split: int
    accepted: int
    num_pixels: int

    @property
    def content(self) -> str | None:
        """The hash of its bytes in hexadecimal digits, None where they were never read."""
        if not (self.content_high or self.content_low):
            return None
        return f"{self.content_high:016x}{self.content_low:016x}"


class KnownImages:
    """The images of a store as an import needs them: of one dataset by key, all by contents.

    `learned` holds the names of the classes with a labeled image that is used.
    """

    def __init__(self, dataset: str) -> None:
        """Know nothing; `read` asks a store."""
        self.dataset = dataset
        self._by_key = DigestTable(_KNOWN_FIELDS)
        self._labels = DigestTable([("label", "<i4"), ("here", "i1")])
        self._deleted_keys = DigestTable()
        self._deleted_contents = DigestTable()
        self._has_deletions = False
        self._with_truth = np.empty(0, np.int64)
        self.learned: set[str] = set()

    @classmethod
    def read(cls, store: "Store", dataset: str) -> "KnownImages":
        """Ask a store: its images, those deleted from it, and whose truth is there."""
        known = cls(dataset)
        batches = store.table("images").dataset().to_batches(columns=list(_COLUMNS))
        learned = known._read_images(batches)
        known.learned = {n for n, i in store.ensure_classes(()).items() if i in learned}
        deleted = store.table("deletions").read(columns=["dataset", "key", "content_hash"])
        here = deleted.filter(pc.equal(deleted["dataset"], dataset))
        known._deleted_keys.extend(key_digests(here["key"].to_pylist()), {})
        known._deleted_contents.extend(_contents(deleted["content_hash"].drop_null()), {})
        truth = store.table("truth").read(columns=["sample_id"])["sample_id"]
        known._with_truth = np.sort(truth.to_numpy())
        for table in (known._by_key, known._labels):
            table.settle()
        known._has_deletions = len(known._deleted_keys) + len(known._deleted_contents) > 0
        return known

    def _read_images(self, batches: Iterable[pa.RecordBatch]) -> set[int]:
        """Take in the images of a store; return the classes that have one to learn from."""
        learned: set[int] = set()
        for batch in batches:
            here = pc.equal(batch["dataset"], self.dataset)
            named = batch.filter(here)
            self._by_key.extend(key_digests(named["key"].to_pylist()), _columns(named))
            used = pc.and_(pc.is_valid(batch["label"]), pc.equal(batch["verdict"], ACCEPTED))
            used = pc.and_(used, pc.not_equal(batch["split"], EVALUATION))  # of no run
            with_label = {
                "label": batch["label"].filter(used).to_numpy(zero_copy_only=False),
                "here": here.filter(used).to_numpy(zero_copy_only=False),
            }
            self._labels.extend(_contents(batch["content_hash"].filter(used)), with_label)
            taught = pc.and_(used, pc.equal(batch["split"], "labeled"))
            learned.update(batch["label"].filter(taught).unique().to_pylist())
        return learned

    def __len__(self) -> int:
        """Count the images of the dataset."""
        return len(self._by_key)

    def find(self, key: str) -> KnownImage | None:
        """Return what is known of a key of the dataset."""
        rows = self._by_key.get(_digest(key))
        return KnownImage(*rows[0]) if rows else None

    def find_all(
        self, keys: Sequence[str]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.void]]:
        """Return which of many keys are known, and the fields of `KnownImage` of those."""
        return self._by_key.rows_of(key_digests(keys))

    def add(self, key: str, image: KnownImage) -> None:
        """Note an image that is on its way into the store."""
        self._by_key.add(_digest(key), *image)
        is_of_runs = image.split != SPLITS.index(EVALUATION)
        is_labeled = image.accepted and is_of_runs and image.label != NO_LABEL
        if is_labeled and (content := image.content):
            self._labels.add(bytes.fromhex(content), image.label, 1)

    def is_deleted(self, key: str) -> bool:
        """Return whether an image of this name was deleted from the dataset."""
        return self._has_deletions and bool(self._deleted_keys.get(_digest(key)))

    def are_deleted(self, content: str | None) -> bool:
        """Return whether an image of these contents was deleted, under whatever name."""
        if content is None or not self._has_deletions:
            return False
        return bool(self._deleted_contents.get(bytes.fromhex(content)))

    def labels_of(self, content: str) -> list[tuple[int, bool]]:
        """Return the class id of each labeled image of these contents, and if it is here.

        "Here" is the dataset of the import.
        """
        rows = self._labels.get(bytes.fromhex(content))
        return [(label, bool(here)) for label, here in rows]

    def has_truth(self, sample_id: int) -> bool:
        """Return whether the truth of an image was there when the store was asked."""
        place = int(np.searchsorted(self._with_truth, sample_id))
        return place < len(self._with_truth) and self._with_truth[place] == sample_id


def key_digests(keys: Iterable[str]) -> bytes:
    """Return the digests of names, 16 bytes each."""
    return b"".join(map(_digest, keys))


def _digest(key: str) -> bytes:
    return xxhash.xxh3_128_digest(key.encode())


def _contents(hashes: pa.Array) -> bytes:
    """Return content hashes as 16 bytes each, zeros for null."""
    return bytes.fromhex("".join(value or "0" * 32 for value in hashes.to_pylist()))


def _columns(batch: pa.RecordBatch) -> dict[str, npt.NDArray[np.generic]]:
    words = np.frombuffer(_contents(batch["content_hash"]), ">u8").reshape(-1, 2)
    pixels = pc.multiply(batch["width"].cast(pa.int64()), batch["height"].cast(pa.int64()))
    too_large = pc.equal(batch["verdict"], "over_pixel_limit")
    columns = {
        "sample_id": batch["sample_id"],
        "label": pc.fill_null(batch["label"], NO_LABEL),
        "split": pc.index_in(batch["split"], value_set=pa.array(SPLITS)),
        "accepted": pc.equal(batch["verdict"], ACCEPTED),
        "num_pixels": pc.fill_null(pc.if_else(too_large, pixels, 0), 0),
    }
    return {
        "content_high": words[:, 0],
        "content_low": words[:, 1],
        **{name: column.to_numpy(zero_copy_only=False) for name, column in columns.items()},
    }
