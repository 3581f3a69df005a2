"""A file of predictions that takes long: what is done of it is kept, the file appears whole.

While FILE is being made, its rows lie in the folder .FILE.partial beside it, in Parquet parts.
A part is written under another name, flushed to the disk and then renamed, so a part that is
there is whole, whatever ended the run; what was cut off does not count, and its images are
looked at again. When all is seen, the parts become FILE, in one step, and the folder goes away.

    .FILE.partial/about.json   what the run was asked for; a run that goes on wants the same
    .FILE.partial/000000000.parquet, 000000001.parquet, ...
    .FILE.partial/lock         held by the process that works on it
"""

import fcntl
import json
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from plstore.errors import InputError
from plstore.exchange import Named
from plstore.fingerprint import canonical_json
from plstore.report.output import StreamFormat, stream
from plstore.scratch import put_in_place
from trainers.prediction.predicted import PATH, VERDICT, Columns

Kind = Literal["csv", "json", "jsonl", "parquet"]

_KINDS: Final[dict[str, Kind]] = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_PART_DIGITS: Final = 9
_PART_ROWS: Final = 4096
_PART_BYTES: Final = 32 << 20
_PART_SECONDS: Final = 30.0
_BLOCK_ROWS: Final = 512
_GROUP_ROWS: Final = 1 << 16
_GROUP_BYTES: Final = 64 << 20
_NAMES: Final = 512
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*:/")
_ABOUT: Final = "about.json"
_LOCK: Final = "lock"


def kind_of(out: Path) -> Kind:
    """Return how a file that is to be made is written, by its ending.

    Raises:
        InputError: If there is no such ending, or the file is there.
    """
    kind = _KINDS.get(out.suffix.lower())
    if kind is None or _URL.match(str(out)):
        raise InputError(
            f"cannot write predictions to {out}; wanted a local file that ends in "
            f"{', '.join(_KINDS)}"
        )
    if out.exists():
        raise InputError(
            f"{out} is there already; remove it to make it anew, or name another file"
        )
    return kind


class Unfinished:
    """The rows of a file that is being made; use it in a ``with`` block.

    Attributes:
        num_done: Rows that were there at the start.
    """

    def __init__(self, out: Path, columns: Columns, about: Mapping[str, Any]) -> None:
        """Name the file; nothing is touched yet.

        Args:
            out: The file.
            columns: Of its rows.
            about: What the rows depend on, JSON-like.
        """
        self._out, self._columns, self._about = out, columns, about
        self._kind = kind_of(out)
        self._folder = out.with_name(f".{out.name}.partial")
        self._held: list[pa.RecordBatch] = []
        self._since = time.monotonic()
        self._parts: list[Path] = []
        self._number = 0
        self._done = _Done(())
        self._stack = ExitStack()
        self.num_done = 0

    def __enter__(self) -> Self:
        """Go on with what is there, or begin.

        Raises:
            InputError: If another process works on it, or it was begun otherwise.
        """
        self._lock()
        try:
            self._check_about()
            self._parts = sorted(self._folder.glob(f"{'[0-9]' * _PART_DIGITS}.parquet"))
            self._number = max((int(part.stem) + 1 for part in self._parts), default=0)
            self._done = _Done(_column(part, PATH) for part in self._parts)
        except BaseException:
            self._stack.close()
            raise
        self.num_done = self._done.num_left
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """Keep the rows that were added, however the block ends."""
        with self._stack:
            self._flush()

    @property
    def num_unnamed(self) -> int:
        """Rows that were there, of files that `left` was not given."""
        return self._done.num_left

    def left(
        self, named: Iterable[Named], on_done: Callable[[int], None] = lambda _: None
    ) -> Iterator[Named]:
        """Yield the files that have no row yet; a path that is named twice has two rows.

        Args:
            named: All files, in whatever order.
            on_done: Called with the number of files just passed over.
        """
        rest = iter(named)
        while self._done.num_left and (some := list(islice(rest, _NAMES))):
            is_done = self._done.take([name for name, _ in some])
            on_done(sum(is_done))
            yield from (one for one, done in zip(some, is_done, strict=True) if not done)
        yield from rest

    def add(self, batch: pa.RecordBatch) -> None:
        """Add rows; a part is written for 4,096, for 32 MiB, or after 30 seconds."""
        self._held.append(batch)
        rows = sum(held.num_rows for held in self._held)
        size = sum(held.nbytes for held in self._held)
        late = time.monotonic() - self._since > _PART_SECONDS
        if rows >= _PART_ROWS or size >= _PART_BYTES or late:
            self._flush()

    def finish(self) -> Counter[str]:
        """Make the file of all rows; return their number by verdict."""
        self._flush()
        counts: Counter[str] = Counter()
        with put_in_place(self._out) as temporary:
            if self._kind == "parquet":
                self._write_parquet(temporary)
            else:
                self._write_text(temporary, self._kind)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())  # the parts are about to go
        for part in self._parts:
            counts.update(_column(part, VERDICT).to_pylist())
        shutil.rmtree(self._folder)
        return counts

    def _lock(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise InputError(
                f"{self._folder} is a file, and the place of what is done of {self._out.name}; "
                "move it away"
            ) from error
        file = self._stack.enter_context((self._folder / _LOCK).open("w"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._stack.close()
            raise InputError(
                f"another process is making {self._out} now; wait for it, or name another file"
            ) from error

    def _check_about(self) -> None:
        path = self._folder / _ABOUT
        if path.is_file():
            self._compare(path)
            return
        there = {path.name for path in self._folder.iterdir()} - {_LOCK}
        # One that was killed while it wrote that file left a part of it.
        if strangers := sorted(name for name in there if not name.startswith(f".{_ABOUT}.")):
            raise InputError(
                f"{self._folder} holds {strangers[0]} and is none of this program's; move it "
                "away, or name another file"
            )
        with put_in_place(path) as temporary:
            temporary.write_text(canonical_json(self._about), encoding="utf-8")

    def _compare(self, path: Path) -> None:
        try:
            found = json.loads(path.read_bytes())
        except ValueError as error:
            raise InputError(
                f"{path} is damaged: {error}; remove its folder to begin anew"
            ) from error
        names = [
            n for n in sorted({*found, *self._about}) if found.get(n) != self._about.get(n)
        ]
        if names:
            others = [f"{n} was {found.get(n)!r} and is {self._about.get(n)!r}" for n in names]
            raise InputError(
                f"{self._folder} holds what is done of {self._out.name} with other settings: "
                f"{'; '.join(others)}. Take the same ones to go on, or remove that folder to "
                "begin anew"
            )

    def _flush(self) -> None:
        if not self._held:
            return
        # An interruption may come between any two lines: rows that are still held then are
        # written again, as the same part.
        part = self._folder / f"{self._number:0{_PART_DIGITS}d}.parquet"
        table = pa.Table.from_batches(self._held, self._columns.schema)
        with part.with_name(f".{part.name}").open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        part.with_name(f".{part.name}").rename(part)
        self._held = []
        self._number += 1
        self._parts.append(part)
        self._since = time.monotonic()

    def _write_parquet(self, path: Path) -> None:
        """Write parts as few row groups: of 65,536 rows or 64 MiB, whichever is less."""
        schema = self._columns.schema
        texts = [field.name for field in schema if pa.types.is_string(field.type)]
        with pq.ParquetWriter(
            path, schema, compression="zstd", use_dictionary=[n for n in texts if n != PATH]
        ) as writer:
            held: list[pa.Table] = []
            for part in self._parts:
                held.append(pq.read_table(part, schema=schema))
                rows = sum(table.num_rows for table in held)
                if rows >= _GROUP_ROWS or sum(table.nbytes for table in held) >= _GROUP_BYTES:
                    writer.write_table(pa.concat_tables(held))
                    held = []
            if held:
                writer.write_table(pa.concat_tables(held))

    def _write_text(self, path: Path, kind: Kind) -> None:
        blocks = (
            list(self._columns.rows(batch))
            for part in self._parts
            for batch in pq.ParquetFile(part).iter_batches(_BLOCK_ROWS)
        )
        with path.open("w", encoding="utf-8", newline="") as file:
            for text in stream(blocks, cast("StreamFormat", kind), self._columns.names):
                file.write(text)


class _Done:
    """Paths that have rows, each as often as it has: 16 bytes a path, and 8.

    Attributes:
        num_left: Rows that were not taken yet.
    """

    def __init__(self, paths: Iterable[pa.ChunkedArray]) -> None:
        digests = b"".join(_digests(column.to_pylist()) for column in paths)
        self._known, self._counts = np.unique(_as_keys(digests), return_counts=True)
        self.num_left = int(self._counts.sum())

    def take(self, names: Sequence[str]) -> list[bool]:
        """Return for each name whether it has a row, which counts as taken from then on."""
        wanted = _as_keys(_digests(names))
        places = np.minimum(np.searchsorted(self._known, wanted), len(self._known) - 1)
        taken: list[bool] = (self._known[places] == wanted).tolist()
        for number, place in enumerate(places.tolist()):
            taken[number] = taken[number] and bool(self._counts[place] > 0)
            self._counts[place] -= taken[number]
        self.num_left -= sum(taken)
        return taken


def _digests(names: Sequence[str]) -> bytes:
    return b"".join(xxhash.xxh3_128_digest(name.encode()) for name in names)


def _as_keys(digests: bytes) -> Any:  # noqa: ANN401  numpy has no type of raw bytes
    return np.frombuffer(digests, "V16")


def _column(part: Path, name: str) -> pa.ChunkedArray:
    try:
        return pq.read_table(part, columns=[name])[name]
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{part} cannot be read: {error}; remove it, and its images are looked at again"
        ) from error
