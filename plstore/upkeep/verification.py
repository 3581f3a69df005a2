"""Whether a store is what it says: every byte, row, number and pin."""

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from plstore import storage
from plstore.errors import PlstoreError
from plstore.fingerprint import content_hash, file_hash
from plstore.labels import list_teachers
from plstore.schema import ACCEPTED
from plstore.store import TABLES_OF_IMAGES, read_log, step_pins, tags, view_pins
from plstore.upkeep.view_labels import verify_view_labels
from plstore.views import open_view

if TYPE_CHECKING:
    from plstore.store import Shard, Store, Table

_ROUNDING = 2.0**-9
_SUM_TOLERANCE = 5e-3
_HASH_DIGITS = 32
_OF_TEACHER = frozenset({"argmax", "confidence"})


@dataclass(frozen=True, kw_only=True, order=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        where: A file, table, view or tag, below the store.
        what: Kind of problem, in snake case.
        detail: What was found and what was wanted.
    """

    where: str
    what: str
    detail: str


def verify(
    store: "Store", *, on_files: Callable[[int], None] = lambda _: None
) -> list[Problem]:
    """Return everything that is wrong with a store; an empty list means that it is sound.

    Checked are, of the newest snapshot and of every pinned one: that files are there, with the
    size of the log and the hash of their name; rows counts; sample ids unique and ascending in
    a file; distributions that sum to 1 and whose argmax is `class_id`; hashes of stored images,
    and of those that views hold; labels, decisions and view rows of images that are there;
    views with all their rows; weights of teachers with the hash that was kept; and files that
    nothing names.
    """
    problems: list[Problem] = []
    pins = _pins(store, problems)
    for name in store.versions():
        problems += _verify_table(store, name, pins, on_files)
    bad = {problem.where for problem in problems}
    problems += _verify_references(store, bad)
    problems += _verify_views(store)
    problems += _verify_checkpoints(store)
    return sorted(set(problems))


def count_files(store: "Store") -> int:
    """Return how many files `verify` is going to read, of newest snapshots."""
    return sum(len(store.table(name).shards()) for name in store.versions())


def _pins(store: "Store", problems: list[Problem]) -> dict[str, Mapping[str, int]]:
    """Return the pinned versions by who pins them; those that are gone are problems."""
    named = {f"tag {tag.name}": tag.versions for tag in tags(store)}
    named |= {f"pin {name}": versions for name, versions in step_pins(store).items()}
    named |= {
        f"view {row['view']}@{row['version']}": view_pins(row)
        for row in store.table("views").read().to_pylist()
    }
    tried: dict[tuple[str, int], str | None] = {}
    for who, versions in named.items():
        for pin in versions.items():
            if pin not in tried:
                tried[pin] = _why_unreadable(store, *pin)
            if (why := tried[pin]) is not None:
                problems.append(Problem(where=who, what="pin_is_gone", detail=why))
    return named


def _why_unreadable(store: "Store", table: str, version: int) -> str | None:
    try:
        store.table(table).shards(version)
    except PlstoreError as error:
        return str(error)
    return None


def _verify_table(
    store: "Store",
    name: str,
    pins: Mapping[str, Mapping[str, int]],
    on_files: Callable[[int], None],
) -> Iterator[Problem]:
    table = store.table(name)
    there = {entry.path: entry for entry in storage.files_below(table.root)}
    newest = table.shards()
    named = {shard.path: shard for shard in newest}
    seen: dict[int | None, list[Shard]] = {}
    for who, versions in pins.items():
        version = versions.get(name)
        if version not in seen:
            seen[version] = _readable(table, version)
        for shard in seen[version]:
            if shard.path not in there and shard.path not in named:
                yield Problem(
                    where=who,
                    what="pin_is_gone",
                    detail=f"{name} version {versions[name]} needs {shard.path}",
                )
            named.setdefault(shard.path, shard)
    with ThreadPoolExecutor() as pool:
        for found in pool.map(lambda shard: _verify_shard(table, shard, there), named.values()):
            yield from found
            on_files(1)
    yield from _repeated_ids(table, newest)
    yield from _orphans(table, there.keys() - named.keys())


def _orphans(table: "Table", unnamed: AbstractSet[str]) -> Iterator[Problem]:
    """Yield the files that neither a version nor a deletion names."""
    erased = table.erasures.by_path()
    written_anew = {new["path"] for new in erased.values() if new is not None}
    unnamed = unnamed - erased.keys() - written_anew
    unnamed = {path for path in unnamed if not path.startswith("_delta_log/")}
    if unnamed:  # those that older versions name are no orphans
        ever = {path for _, added, _ in read_log(table.root) for path in added}
        for path in sorted(unnamed - ever):
            yield Problem(
                where=f"{table.spec.name}/{path}",
                what="orphan_file",
                detail="no snapshot names it: a writer that is at work, or was stopped; "
                "'plstore gc' collects it",
            )


def _readable(table: "Table", version: int | None) -> "list[Shard]":
    if version is None:
        return []
    try:
        return table.shards(version)
    except PlstoreError:
        return []  # reported by `_pins`


def _verify_shard(
    table: "Table", shard: "Shard", there: Mapping[str, storage.FileEntry]
) -> list[Problem]:
    where = f"{table.spec.name}/{shard.path}"

    def wrong(what: str, detail: str) -> list[Problem]:
        return [Problem(where=where, what=what, detail=detail)]

    if shard.path not in there:
        return wrong("file_is_missing", "the commit log names it")
    data = (table.root / shard.path).read_bytes()
    if len(data) != shard.size_bytes:
        return wrong("size", f"{len(data)} bytes; the log says {shard.size_bytes}")
    digest = shard.path.removesuffix(".parquet").rpartition("-")[2]
    if len(digest) == _HASH_DIGITS and content_hash(data) != digest:
        return wrong("checksum", f"{content_hash(data)}; its name says {digest}")
    try:
        rows = pq.ParquetFile(pa.BufferReader(data)).read()
    except (OSError, pa.ArrowException) as error:
        return wrong("unreadable", str(error))
    if rows.num_rows != shard.num_rows:
        return wrong("rows", f"{rows.num_rows}; the log says {shard.num_rows}")
    found = _verify_rows(table.spec.name, rows, shard)
    return [problem for what, detail in found for problem in wrong(what, detail)]


def _verify_rows(name: str, rows: pa.Table, shard: "Shard") -> Iterator[tuple[str, str]]:
    if "sample_id" in rows.column_names and rows.num_rows:
        ids = rows["sample_id"].to_numpy()
        if (int(ids.min()), int(ids.max())) != (shard.first_id, shard.last_id):
            yield "sample_ids", f"{ids.min()} to {ids.max()}; the log says otherwise"
        if name in {"images", "soft_labels"} and (np.diff(ids) <= 0).any():
            yield "sample_ids", "they do not ascend"
    if name in {"soft_labels", "perturbed_labels"}:
        yield from _verify_labels(rows)
    if name == "view_rows":
        yield from _verify_view_rows(rows)
        yield from _verify_packed(rows)
    if name == "view_labels":
        yield from verify_view_labels(rows, shard)
    if name == "embeddings":
        yield from _verify_embeddings(rows)
    if name == "images":
        yield from _verify_images(rows)


def _verify_view_rows(rows: pa.Table) -> Iterator[tuple[str, str]]:
    pseudo = rows.filter(pc.equal(rows["kind"], "pseudo"))
    # Its class and confidence are the selection's, and may be of several teachers.
    yield from (found for found in _verify_labels(pseudo) if found[0] not in _OF_TEACHER)
    if rows.num_rows and pc.min(rows["copies"]).as_py() < 1:
        yield "copies", "fewer than 1"
    if "weight" in rows.column_names:  # files of before 0.5 have none
        weights = rows["weight"].fill_null(1).to_numpy()
        if not ((weights > 0) & (weights <= 1)).all():
            yield "weight", f"{weights.min()} to {weights.max()}; wanted above 0, up to 1"


def _verify_embeddings(rows: pa.Table) -> Iterator[tuple[str, str]]:
    vectors = rows["vector"].combine_chunks()
    widths = pc.unique(vectors.value_lengths()).to_pylist()
    if len(widths) > 1:
        yield "vector", f"of {', '.join(map(str, widths))} numbers; wanted as many in each"
    if not pc.all(pc.is_finite(vectors.flatten()), min_count=0).as_py():
        yield "vector", "numbers that are not finite"


def _verify_labels(rows: pa.Table) -> Iterator[tuple[str, str]]:
    labels = rows["label"].combine_chunks()
    class_ids, probs, residual, _ = labels.flatten()
    counts = class_ids.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    if not len(counts):
        return
    if (counts == 0).any():
        yield "label", f"row {int(np.argmax(counts == 0))} has no class"
        return
    starts = np.cumsum(counts) - counts
    ids = class_ids.flatten().to_numpy(zero_copy_only=False)
    values = probs.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    sums = np.add.reduceat(values, starts) + residual.to_numpy(zero_copy_only=False)
    first_ids, firsts = ids[starts], values[starts]
    confidence = rows["confidence"].to_numpy()
    hard = (counts == 1) & (firsts == 1)
    checks: dict[str, npt.NDArray[np.bool_]] = {
        "probability_sum": ~(np.abs(sums - 1) <= _SUM_TOLERANCE),
        "argmax": (first_ids != rows["class_id"].to_numpy())
        | (np.maximum.reduceat(values, starts) > firsts),
        "confidence": ~hard & ~(np.abs(firsts - confidence) <= _ROUNDING * firsts + 1e-7),
    }
    for what, bad in checks.items():
        if bad.any():
            row = int(np.argmax(bad))
            one = rows.slice(row, 1).to_pylist()[0]
            detail = (
                f"{int(bad.sum())} rows, such as sample_id {one['sample_id']}: classes sum to "
                f"{sums[row]:.6f}, first is {first_ids[row]} with {firsts[row]:.6f}; class_id "
                f"{one['class_id']}, confidence {one['confidence']:.6f}"
            )
            yield what, detail


def _verify_images(rows: pa.Table) -> Iterator[tuple[str, str]]:
    columns = ["sample_id", "image", "content_hash", "verdict", "conversion"]
    for batch in rows.select(columns).to_batches(max_chunksize=256):
        for row in batch.to_pylist():
            data = row["image"]["bytes"]
            same = (
                data is None or row["conversion"] or content_hash(data) == row["content_hash"]
            )
            if not same:
                yield "content_hash", f"of image {row['sample_id']} is not that of its bytes"
            if data is None and row["verdict"] == ACCEPTED and not row["image"]["path"]:
                yield "image", f"{row['sample_id']} is accepted and has neither bytes nor path"


def _verify_packed(rows: pa.Table) -> Iterator[tuple[str, str]]:
    """Yield packed images whose bytes are not those of their hash; old files have no hash."""
    if "image_hash" not in rows.column_names:
        return
    columns = ["sample_id", "image", "image_hash"]
    for batch in rows.select(columns).to_batches(max_chunksize=256):
        for row in batch.filter(pc.is_valid(batch["image"])).to_pylist():
            expected = row["image_hash"]
            if expected is not None and content_hash(row["image"]) != expected:
                yield "image_hash", f"of image {row['sample_id']} is not that of its bytes"


def _repeated_ids(table: "Table", shards: "list[Shard]") -> Iterator[Problem]:
    """Yield files of one partition that hold the same sample id."""
    if table.spec.name not in {"images", "soft_labels", "embeddings", "view_rows", "truth"}:
        return
    by_partition: dict[tuple[tuple[str, str], ...], list[Shard]] = {}
    for shard in shards:
        by_partition.setdefault(tuple(sorted(shard.partition.items())), []).append(shard)
    for members in by_partition.values():
        members.sort(key=lambda shard: shard.first_id)
        for group in _overlapping(members):
            ids = table.dataset_of(group).to_table(columns=["sample_id"])["sample_id"]
            repeated = len(ids) - pc.count_distinct(ids).as_py()
            if repeated:
                yield Problem(
                    where=f"{table.spec.name}/{group[0].path}",
                    what="repeated_sample_id",
                    detail=f"{repeated} of {len(ids)} rows of {len(group)} files together",
                )


def _overlapping(shards: "list[Shard]") -> "Iterator[list[Shard]]":
    group: list[Shard] = []
    last = -1
    for shard in shards:
        if group and shard.first_id > last:
            if len(group) > 1:
                yield group
            group = []
        group.append(shard)
        last = max(last, shard.last_id)
    if len(group) > 1:
        yield group


def _verify_references(store: "Store", bad: set[str]) -> Iterator[Problem]:
    """Yield rows of images that are not in the store, of files that are not bad themselves."""

    def ids(name: str) -> Iterator[npt.NDArray[np.int64]]:
        table = store.table(name)
        good = [s for s in table.shards() if f"{name}/{s.path}" not in bad]
        for batch in table.dataset_of(good).to_batches(columns=["sample_id"]):
            yield batch["sample_id"].to_numpy()

    if any(where.startswith("images/") for where in bad):
        return  # which images there are is not known
    there = np.sort(np.concatenate([np.empty(0, np.int64), *ids("images")]))
    deleted = np.sort(np.concatenate([np.empty(0, np.int64), *ids("deletions")]))
    if len(left := there[_in_sorted(there, deleted)]):
        yield Problem(
            where="images",
            what="deleted_image",
            detail=f"{len(left)} images, such as sample_id {left[0]}, are listed as deleted "
            "and still there: a deletion was stopped. 'plstore delete' of them completes it",
        )
    for name in [name for name in TABLES_OF_IMAGES[1:] if name in store.tables]:
        unknown, example = 0, -1
        for found in ids(name):
            lost = found[~_in_sorted(found, there)]
            unknown += len(lost)
            example = int(lost[0]) if len(lost) else example
        if unknown:
            yield Problem(
                where=name,
                what="unknown_image",
                detail=f"{unknown} rows, such as sample_id {example}, of images that are not "
                "there; after a deletion that was stopped, 'plstore delete' completes it",
            )


def _in_sorted(
    values: npt.NDArray[np.int64], there: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    places = np.minimum(np.searchsorted(there, values), max(len(there) - 1, 0))
    return there[places] == values if len(there) else np.zeros(len(values), dtype=bool)


def _verify_views(store: "Store") -> Iterator[Problem]:
    deleted = store.table("deletions").dataset().count_rows()
    for row in store.table("views").read().to_pylist():
        view = open_view(store, row["view"], row["version"])
        missing = view.num_deleted
        if missing < 0 or missing > deleted:
            yield Problem(
                where=f"view {view.key}",
                what="view_rows",
                detail=f"{view.record.num_images - missing} rows; "
                f"{view.record.num_images} were written and no image was deleted since",
            )


def _verify_checkpoints(store: "Store") -> Iterator[Problem]:
    """Yield teachers whose checkpoint is gone or changed, and models that are no teacher's."""
    teachers = list_teachers(store)
    named = {teacher.checkpoint for teacher in teachers}
    for entry in storage.files_below(store.checkpoint("checkpoints")):
        path = f"checkpoints/{entry.path}"
        if path.rpartition("/")[0] not in named:
            yield Problem(
                where=path,
                what="orphan_file",
                detail="no teacher names it: a training that is being kept, or was stopped; "
                "'plstore gc' collects it",
            )
    for teacher in teachers:
        if not teacher.checkpoint or not teacher.checkpoint_hash:
            continue
        weights = store.checkpoint(teacher.checkpoint) / "model.safetensors"
        found = file_hash(weights) if weights.is_file() else "no file"
        if found != teacher.checkpoint_hash:
            yield Problem(
                where=f"teacher {teacher.teacher_id}",
                what="checkpoint",
                detail=f"{found} at {weights}; the store recorded {teacher.checkpoint_hash}",
            )
